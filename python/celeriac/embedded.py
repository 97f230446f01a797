"""The beat of a worker: a process beside it, and another one whenever that ends though nobody stopped it.

The worker has threads and cannot fork. So it forks a keeper before it has any, and the keeper forks the beat, as often as that
is needed. Celery's (``celery.beat.EmbeddedService``) is forked once: when it is killed, or raises, its worker runs on and
nothing periodic is sent any more.

All three have a part of one line. The worker hangs up when it ends, however it does: then the beat keeps what ran last and
ends, and the keeper sees to that. A keeper that is killed leaves its beat to go on and to end with the worker.
"""

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Optional

from billiard.common import human_status
from celery import platforms
from celery.utils.log import get_logger
from celery.utils.time import humanize_seconds

from celeriac import child

logger = get_logger("celery.beat")

#: For how many seconds the beat of a worker may go on when the worker has ended.
PARTING = 5.0
#: After how many seconds another beat begins: after the first end, and at most; each time it is twice as long.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: A beat that has gone on for so many seconds was well: its end counts as the first.
STEADY = 60.0
#: Who stops all processes of a worker at once sends the beat and its keeper the same, one of them a little later.
TOGETHER = 0.2
#: What ends a keeper.
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Embedded:
    """A worker's end of the line, and the keeper."""

    def __init__(self, pid: int, line: socket.socket):
        self.pid = pid
        self.line = line

    def end(self) -> None:
        """Has the beat keep what ran last, and end; waits for that."""
        try:
            self.line.shutdown(socket.SHUT_WR)
            # It closes when both have ended.
            self.line.settimeout(2 * PARTING)
            self.line.recv(1)
        except OSError:
            # It hangs, and its keeper with it.
            pass
        self.line.close()
        try:
            # Where it has ended, its number may be another's.
            if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        except (ChildProcessError, ProcessLookupError):
            # A project that ignores SIGCHLD leaves nothing to wait for.
            pass


def embed(beat: Callable[[], int]) -> Embedded:
    """Begins a worker's beat, before the worker has any thread. ``beat`` is run in its process, and returns its exit code."""
    ours, theirs = socket.socketpair()
    child.flush()
    parent, pid = os.getpid(), os.fork()
    if pid:
        theirs.close()
        # What holds it keeps the beat alive: neither a child of the pool nor what a task forks is to.
        os.register_at_fork(after_in_child=ours.close)
        return Embedded(pid, ours)
    try:
        ours.close()
        platforms.set_pdeathsig("SIGKILL")
        # Else the worker died before this could be tied to it.
        if os.getppid() == parent:
            Keeper(theirs, beat).keep()
    except BaseException:
        logger.critical("The beat's keeper raised exception", exc_info=True)
    finally:
        child.flush()
        os._exit(0)


class Keeper:
    """A process without threads that has a beat and knows what to do when that ends."""

    def __init__(self, line: socket.socket, beat: Callable[[], int]):
        self.line = line
        self.beat = beat
        #: Tells which signals came.
        self.woken, self.waker = os.pipe()
        os.set_blocking(self.woken, False)
        os.set_blocking(self.waker, False)

    def keep(self) -> None:
        """Keeps a beat until it is stopped."""
        signal.set_wakeup_fd(self.waker)
        for number in (*ENDS, signal.SIGCHLD):
            # What has no handler is told to nobody.
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        platforms.set_process_title("celery beat", info="(keeper)")
        pause = PAUSE
        while True:
            began = time.monotonic()
            pid = self.fork()
            status = self.wait(pid)
            if status is None:
                if not self.is_left():
                    logger.warning("beat: a signal has ended it. The worker sends nothing periodic any more")
                return part(pid)
            if self.is_stopped(TOGETHER):
                return
            if time.monotonic() - began >= STEADY:
                pause = PAUSE
            logger.error(
                "beat: The process %d ended though nobody stopped it (%s): another one begins in %s",
                pid, human_status(os.waitstatus_to_exitcode(status)), humanize_seconds(pause),
            )  # fmt: skip
            if self.is_stopped(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    def fork(self) -> int:
        """Forks a beat."""
        child.flush()
        # What comes in between is for the one or the other, and not for a handler that is no longer there.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
            return pid
        code = 1
        try:
            self.leave_behind()
            threading.Thread(target=leave, args=(self.line,), daemon=True).start()
            code = self.beat()
        except BaseException:
            logger.critical("beat raised exception", exc_info=True)
        finally:
            child.flush()
            os._exit(code)

    def leave_behind(self) -> None:
        """In a new beat: nothing of the keeper's is left."""
        os.register_at_fork(after_in_child=self.line.close)
        signal.set_wakeup_fd(-1)
        os.close(self.woken)
        os.close(self.waker)
        for number in (*ENDS, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)

    def wait(self, pid: int) -> Optional[int]:
        """How the beat ended; ``None``: it is to end."""
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            if self.hears(None):
                return None

    def is_left(self) -> bool:
        """Whether the worker has hung up."""
        return bool(select.select([self.line], [], [], TOGETHER)[0])

    def is_stopped(self, seconds: float) -> bool:
        """Whether it is to end within so many seconds."""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            if self.hears(rest):
                return True
        return False

    def hears(self, patience: Optional[float]) -> bool:
        """Waits until something happens, so many seconds at most; says whether that is its end."""
        readable, _, _ = select.select([self.line, self.woken], [], [], patience)
        if self.line in readable:
            return True
        return self.woken in readable and any(number in ENDS for number in os.read(self.woken, 4096))


def part(pid: int) -> None:
    """Waits for a beat that has been told of its end; one that has not heard is told, and one that does not end is killed."""
    for number, patience in ((signal.SIGTERM, 1.0), (signal.SIGKILL, PARTING)):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                return
            time.sleep(0.01)
        os.kill(pid, number)
    os.waitpid(pid, 0)


def leave(line: socket.socket) -> None:
    """Ends this process, a beat, when the worker has hung up."""
    while line.recv(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PARTING)
    # Nobody may be left to do it.
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)
