"""A private memcached, from Debian's package."""

import ctypes
import signal
import socket
import subprocess
import time

from support import SECONDS, Port


class Memcached:
    """A server on a free port."""

    def __init__(self, *options):
        self._own_port = Port()
        self.port = self._own_port.number
        self.url = f"cache+memcached://127.0.0.1:{self.port}/"
        self._options = options
        self.start()

    def start(self):
        """Starts it, or starts it again: with nothing of what it held."""
        # It refuses to be root unless it is told to; another user it would not end with this process.
        command = ["memcached", "-u", "root", "-l", "127.0.0.1", "-U", "0", "-p", str(self.port), *self._options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGTERM),
        )  # fmt: skip
        end = time.monotonic() + SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert time.monotonic() < end, "memcached does not answer"
            time.sleep(0.01)

    def stop(self):
        self._process.kill()
        self._process.wait()

    def asked(self, line):
        """What it says to one line."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            connection.sendall(f"{line}\r\nquit\r\n".encode())
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
