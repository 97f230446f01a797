"""A proxy between a worker and Redis that knows commands: it acts when the worker says a certain one.

The one that knows RabbitMQ's frames is in `cutting_amqp.py`.
"""

import socket
import threading
import uuid


class Trap:
    """Springs once, at the first command that `matches`: before the server has it, or after the server has done it.

    What stands between MULTI and EXEC counts as one command. `act` is called with nothing; then the connection is cut.
    Where there is something to come `first`, the connection is once cut there, and nothing else is done.
    """

    def __init__(self, matches, after, act=lambda: None, first=None):
        self.matches, self.after, self.act, self._first = matches, after, act, first
        self.is_armed, self.sprang = False, threading.Event()
        self._lock = threading.Lock()

    def springs(self, commands):
        """Whether it does now; the caller then has to `spring` it and to cut the connection."""
        with self._lock:
            if not self.is_armed or not any(map(self._first or self.matches, commands)):
                return False
            self.is_armed, self._first = self._first is not None, None
            return True

    def spring(self):
        if not self.is_armed:
            self.act()
            self.sprang.set()


class Listener:
    """Listens on a port of its own, and has each connection handed on to the server."""

    def __init__(self, port, trap):
        self._port, self._trap = port, trap
        self.refusals = 0  # How many connections to come are closed at once.
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusals:
                self.refusals -= 1
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                # The server is away: who connects hears so.
                client.close()
                continue
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.begin(client, server)


class Proxy(Listener):
    """Hands on commands one by one."""

    def begin(self, client, server):
        reply = Reply(server, client)
        threading.Thread(target=self._hear, args=(client, server, reply), daemon=True).start()

    def _hear(self, client, server, reply):
        heard, unit, words = client.makefile("rb"), b"", []
        try:
            while command := _command(heard):
                raw, said = command
                unit, words = unit + raw, [*words, said]
                if words[0][0].upper() == b"MULTI" and said[0].upper() not in (b"EXEC", b"DISCARD"):
                    continue
                if self._trap.springs(words):
                    return self._spring(server, unit, reply)
                server.sendall(unit)
                unit, words = b"", []
        except OSError:
            pass
        finally:
            for side in (client, server):
                shut(side)

    def _spring(self, server, unit, reply):
        if self._trap.after:
            reply.stop_at(marker := uuid.uuid4().hex.encode())
            server.sendall(unit + b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(marker), marker))
            reply.stopped.wait(10)
        self._trap.spring()


class Reply:
    """Hands on what Redis says, until it is to keep it to itself."""

    def __init__(self, server, client):
        self.stopped = threading.Event()
        self._marker, self._kept = None, b""
        self._server, self._client = server, client
        threading.Thread(target=self._run, daemon=True).start()

    def stop_at(self, marker):
        """From now on nothing is handed on; `stopped` is set when Redis has answered up to the marker."""
        self._marker = marker

    def _run(self):
        try:
            while data := self._server.recv(65536):
                if self._marker is None:
                    self._client.sendall(data)
                    continue
                self._kept += data
                if self._marker in self._kept:
                    self.stopped.set()
        except OSError:
            pass
        shut(self._client)


def shut(side):
    try:
        side.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    side.close()


def _command(heard):
    """The bytes of a command, and its words."""
    head = heard.readline()
    if not head:
        return None
    raw, words = head, []
    for _ in range(int(head[1:])):
        size = heard.readline()
        word = heard.read(int(size[1:]) + 2)
        raw += size + word
        words.append(word[:-2])
    return raw, words
