"""The nursery: a process without threads that has the project imported, and forks the children.

It speaks with the parent in frames of the form that ``python/src/frame`` defines. It reads of them whatever comes, and
ends, with all children, when the parent hangs up.
"""

import gc
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterator

from billiard.common import human_status
from celery import platforms, signals

from celeriac import backend, child
from celeriac.limits import Limits

#: A frame's length and kind, the child's number, and a number beside it: its place in the pool, or a signal.
ASK = struct.Struct("<IBQQ")
FORK, SIGNAL, PING, CLOSE = (ord(kind) for kind in "fspc")


def settle(app) -> None:
    """What is there now will be shared with all children; a collection that looked at it would copy it."""
    backend.make(app)
    gc.collect()
    gc.freeze()


def fork(
    app, hostname: str, limits: Limits, pool, line: socket.socket, foreign: list[socket.socket]
) -> int:
    """Forks the nursery, which has ``line`` to the parent and closes what is ``foreign``; returns its process id. ``pool`` is
    who sends the signal before each fork."""
    settle(app)
    child.flush()
    parent, pid = os.getpid(), os.fork()
    if pid:
        return pid
    code = 1
    try:
        platforms.set_pdeathsig("SIGKILL")
        if os.getppid() != parent:
            # It died before it could be tied to this process.
            os._exit(code)
        for other in foreign:
            other.close()
        Nursery(app, hostname, limits, pool, line).serve()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class Nursery:
    """Forks children as it is asked to, and tells how they end."""

    def __init__(self, app, hostname: str, limits: Limits, pool, line: socket.socket):
        self.app = app
        self.hostname = hostname
        self.limits = limits
        self.pool = pool
        self.line = line
        #: The children's process ids and numbers.
        self.children: dict[int, int] = {}
        #: Of children that are still to be forked: for each its line, and its claims.
        self.received: list[int] = []
        self.unread = b""
        # Written to when a child ends, so that one wait hears of both.
        self.woken, self.waker = os.pipe()
        os.set_blocking(self.waker, False)
        os.set_blocking(self.woken, False)
        # Unlike `select` it knows descriptors of any number; unlike epoll it has none that children would inherit.
        self.poll = select.poll()
        for readable in (self.line, self.woken):
            self.poll.register(readable, select.POLLIN)

    def serve(self) -> None:
        """Serves until the parent hangs up."""
        platforms.set_process_title("celeriac: nursery")
        # The parent decides what becomes of the children; a Ctrl+C at the terminal reaches all.
        for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        while self.wait():
            pass
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)

    def wait(self) -> bool:
        """Waits for one thing to happen; ``False`` when nothing more will."""
        ready = {descriptor for descriptor, _ in self.poll.poll()}
        if self.woken in ready:
            self.drain()
        self.reap()
        if self.line.fileno() not in ready:
            return True
        data, received, _, _ = socket.recv_fds(self.line, 64 << 10, 64)
        self.received.extend(received)
        self.unread += data
        return bool(data) and all(self.obey(*ask) for ask in self.asks())

    def drain(self) -> None:
        try:
            while os.read(self.woken, 512):
                pass
        except BlockingIOError:
            pass

    def asks(self) -> Iterator[tuple[int, int, int]]:
        while len(self.unread) >= ASK.size:
            _, kind, index, number = ASK.unpack_from(self.unread)
            self.unread = self.unread[ASK.size :]
            yield kind, index, number

    def obey(self, kind: int, index: int, number: int) -> bool:
        if kind == FORK:
            self.bear(index, number, self.received.pop(0), self.received.pop(0))
        elif kind == SIGNAL:
            for pid, known in self.children.items():
                if known == index:
                    self.signal(pid, number)
            # The child is given nothing before this is heard: the signal would come to another task than was meant.
            self.tell(b"s" + struct.pack("<Q", index))
        elif kind == PING:
            self.tell(b"p" + struct.pack("<Q", 0))
        return kind != CLOSE

    @staticmethod
    def signal(pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except (OSError, OverflowError) as error:
            # There is no such signal: whoever asked for it harms nobody.
            print(f"signal {number} cannot be sent to process {pid}: {error}", file=sys.stderr)

    def bear(self, index: int, place: int, line: int, claims: int) -> None:
        try:
            # Where Celery sends it, it is about to fork, too.
            signals.worker_before_create_process.send(sender=self.pool)
            # What waits to be written is written once.
            child.flush()
            pid = os.fork()
        except OSError as error:
            # The machine has no room for another process: the parent asks again in a while.
            os.close(line)
            os.close(claims)
            return self.tell_end(index, f"no process: {error}")
        if pid == 0:
            self.become(index, place, line, claims)
        os.close(line)
        os.close(claims)
        self.children[pid] = index
        self.tell(b"f" + struct.pack("<QQ", index, pid))

    def become(self, index: int, place: int, line: int, claims: int) -> None:
        """In the child: leaves what is the nursery's, and never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for name in ("SIGQUIT", "SIGHUP"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            os.close(self.woken)
            os.close(self.waker)
            self.line.close()
            for other in self.received:
                os.close(other)
            code = child.run(self.app, self.hostname, self.limits, index, place, line, claims)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            index = self.children.pop(pid, None)
            if index is not None:
                self.tell_end(index, human_status(os.waitstatus_to_exitcode(status)))

    def tell_end(self, index: int, how: str) -> None:
        text = how.encode()
        self.tell(b"x" + struct.pack("<QI", index, len(text)) + text)

    def tell(self, frame: bytes) -> None:
        try:
            self.line.sendall(struct.pack("<I", len(frame)) + frame)
        except OSError:
            # The parent is gone: the next wait says so.
            pass
