"""Tasks in threads of this process: the pools ``threads`` and ``solo``.

To Rust this is a nursery as the other one (:mod:`celeriac.nursery`): what it asks to be forked is a thread here, with a socket
of its own, and nobody can end one.
"""

import socket
import struct
import threading
import traceback

from celery.app import trace

from celeriac import backend, nursery
from celeriac._celeriac import Channel
from celeriac.child import Child
from celeriac.limits import Limits

#: For how many seconds a thread may end that has nothing left to do.
PARTING = 0.2


class Threads:
    """Begins threads as it is asked to, and tells when they have ended."""

    def __init__(self, app, line: socket.socket):
        self.app = app
        self.line = line
        self.lock = threading.Lock()
        self.threads: list[threading.Thread] = []

    def start(self, hostname: str) -> None:
        for name, task in self.app.tasks.items():
            task.__trace__ = trace.build_tracer(name, task, self.app.loader, hostname, app=self.app)
        threading.Thread(target=self.serve, name="celeriac-pool", daemon=True).start()

    def is_left(self) -> bool:
        """Whether a task still runs that nobody waits for any more."""
        for thread in self.threads:
            thread.join(PARTING)
        return any(thread.is_alive() for thread in self.threads)

    def serve(self) -> None:
        unread, descriptors = b"", []
        while True:
            data, received, _, _ = socket.recv_fds(self.line, 64 << 10, 64)
            if not data:
                return
            descriptors.extend(received)
            unread += data
            while len(unread) >= nursery.ASK.size:
                _, kind, index, _ = nursery.ASK.unpack_from(unread)
                unread = unread[nursery.ASK.size :]
                if kind == nursery.FORK:
                    self.begin(index, descriptors.pop(0), descriptors.pop(0))
                elif kind == nursery.PING:
                    self.tell(b"p" + struct.pack("<Q", 0))

    def begin(self, index: int, line: int, claims: int) -> None:
        thread = threading.Thread(target=self.work, args=(index, line, claims), name=f"celeriac-{index}", daemon=True)
        self.threads = [thread, *(other for other in self.threads if other.is_alive())]
        thread.start()

    def work(self, index: int, line: int, claims: int) -> None:
        how = "exitcode 0"
        try:
            channel = Channel(line, claims)
            backend.hand_over(self.app, channel)
            Child(self.app, channel, Limits()).work()
        except SystemExit as exit:
            how = f"exitcode {exit.code}"
        except ConnectionError:
            # The worker is gone, and nobody is left to tell.
            pass
        except BaseException as error:
            traceback.print_exc()
            how = repr(error)
        text = how.encode()
        self.tell(b"x" + struct.pack("<QI", index, len(text)) + text)

    def tell(self, frame: bytes) -> None:
        try:
            with self.lock:
                self.line.sendall(struct.pack("<I", len(frame)) + frame)
        except OSError:
            # The worker is gone.
            pass
