"""Kombu's messages appear whole in their folder.

A producer of Kombu's makes a message's file and then writes it (kombu/transport/filesystem.py `Channel._put`). A stock
worker that reads between the two ends with a `JSONDecodeError`, and gives back what it has already run. That is stock's own
fault, and no test of ours is to wait for its luck; what our worker does with a file that is not written yet, it tests itself.
"""

import os
import tempfile
import threading

from kombu.transport import filesystem

_put, _lock = filesystem.Channel._put, threading.Lock()


def _put_whole(self, queue, payload, **kwargs):
    with _lock, tempfile.TemporaryDirectory(dir=os.path.dirname(self.data_folder_out)) as staging:
        self.data_folder_out, folder = staging, self.data_folder_out
        try:
            _put(self, queue, payload, **kwargs)
        finally:
            self.data_folder_out = folder
        for name in os.listdir(staging):
            os.rename(os.path.join(staging, name), os.path.join(folder, name))


filesystem.Channel._put = _put_whole
