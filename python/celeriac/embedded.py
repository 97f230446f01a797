"""The beat of a worker: a process beside it, and another one whenever that ends though nobody stopped it.

The worker has threads and cannot fork. So it forks a keeper before it has any, and the keeper forks the beat, as often as that
is needed. Celery's (``celery.beat.EmbeddedService``) is forked once: when it is killed, or raises, its worker runs on and
nothing periodic is sent any more.

All three have a part of one line. The worker hangs up when it ends, however it does: then the beat keeps what ran last and
ends, and the keeper sees to that. A keeper that is killed leaves its beat to go on and to end with the worker. Where both are
killed, as by a system that has no memory left, the line closes in the worker, which starts another keeper: a program of its
own that imports the project anew.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Optional, Union

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
#: What a keeper says that a signal has ended: the worker is not to start another.
STOPPED = b"s"


class Embedded:
    """A worker's end of the line, and the keeper."""

    def __init__(self, keeper: "Forked", line: socket.socket):
        self.keeper: Union[Forked, subprocess.Popen] = keeper
        self.line = line
        #: Of a keeper that is being started: its end.
        self.theirs: Optional[socket.socket] = None
        self.watcher: Optional[threading.Thread] = None
        #: Whether the worker ends; what is started is started while that is not so, under the lock.
        self.is_ending = threading.Event()
        self.lock = threading.Lock()
        # What holds the line keeps the beat alive: neither a child of the pool nor what a task forks is to.
        os.register_at_fork(after_in_child=self.leave_alone)

    def leave_alone(self) -> None:
        """In a process that the worker has forked: nothing of the beat's is held."""
        self.line.close()
        if self.theirs is not None:
            self.theirs.close()

    def watch(self, told: str) -> None:
        """From now on, when the worker may have threads: starts another keeper when the one that is there has ended, and its
        beat with it, and nobody has stopped them. ``told``: what it needs to be told of the worker, as
        :func:`celeriac.renewal.prepared` reads it."""
        self.watcher = threading.Thread(target=self.follow, args=(told,), name="celeriac-beat", daemon=True)
        self.watcher.start()

    def follow(self, told: str) -> None:
        """Has one keeper follow the other, until one is stopped."""
        pause = PAUSE
        while True:
            began = time.monotonic()
            if heard(self.line):
                return self.keeper.wait()
            if self.is_ending.wait(TOGETHER):
                return
            if time.monotonic() - began >= STEADY:
                pause = PAUSE
            status = self.keeper.poll()
            logger.error(
                "beat: Its keeper, the process %d, ended though nobody stopped it%s, and the beat with it: nothing periodic is "
                "sent until others begin in %s",
                self.keeper.pid, "" if status is None else f" ({human_status(status)})", humanize_seconds(pause),
            )  # fmt: skip
            if self.is_ending.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self.start(told)
            except OSError as error:
                # The machine has no room for another process: the line is closed, and says so again.
                logger.error("beat: No other keeper can be started: %s", error)

    def start(self, told: str) -> None:
        """Starts a keeper as a program of its own: what has threads is not to fork."""
        with self.lock:
            if self.is_ending.is_set():
                return
            former = self.line
            self.line, self.theirs = socket.socketpair()
            former.close()
            with self.theirs as theirs:
                command = [sys.executable, "-m", "celeriac.embedded", str(theirs.fileno()), told]
                self.keeper = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
            self.theirs = None

    def end(self) -> None:
        """Has the beat keep what ran last, and end; waits for that."""
        deadline = time.monotonic() + 2 * PARTING
        self.is_ending.set()
        with self.lock:
            try:
                self.line.shutdown(socket.SHUT_WR)
            except OSError:
                # They have ended already.
                pass
        if isinstance(self.keeper, subprocess.Popen):
            # It may be busy importing the project, and not hear yet.
            self.keeper.terminate()
        while (status := self.keeper.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if status is None:
            # It hangs, and its beat with it.
            self.keeper.kill()
            self.keeper.wait()
        elif status != 0 and self.watcher is not None:
            # One that was killed may have left a beat, and the line closes when that has ended. Who else has it, as what a
            # listener to beat's signals has forked, is waited for in no other case.
            self.watcher.join(max(deadline - time.monotonic(), 0))
        self.line.close()


class Forked:
    """A keeper that the worker has forked itself; it is asked as a ``Popen`` is."""

    def __init__(self, pid: int):
        self.pid = pid
        self.returncode: Optional[int] = None

    def poll(self) -> Optional[int]:
        """How it has ended; ``None``: not yet."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                # Where it has ended, its number may be another's.
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
            except ChildProcessError:
                # A project that ignores SIGCHLD leaves nothing to wait for, and nobody knows how it ended.
                self.returncode = 1
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Waits for its end."""
        while self.poll() is None:
            time.sleep(0.005)


def heard(line: socket.socket) -> bytes:
    """Waits for what the other end says; nothing, if it has hung up."""
    try:
        return line.recv(1)
    except OSError:
        return b""


def embed(beat: Callable[[], int]) -> Embedded:
    """Begins a worker's beat, before the worker has any thread. ``beat`` is run in its process, and returns its exit code."""
    ours, theirs = socket.socketpair()
    child.flush()
    parent, pid = os.getpid(), os.fork()
    if pid:
        theirs.close()
        return Embedded(Forked(pid), ours)
    code = 1
    try:
        ours.close()
        platforms.set_pdeathsig("SIGKILL")
        # Else the worker died before this could be tied to it.
        if os.getppid() == parent:
            Keeper(theirs, beat).keep()
        code = 0
    except BaseException:
        logger.critical("The beat's keeper raised exception", exc_info=True)
    finally:
        child.flush()
        os._exit(code)


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
        """Keeps a beat until it is stopped, and tells the worker if that was not the worker's doing."""
        signal.set_wakeup_fd(self.waker)
        for number in (*ENDS, signal.SIGCHLD):
            # What has no handler is told to nobody.
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        platforms.set_process_title("celery beat", info="(keeper)")
        self.go_on()
        if self.is_left():
            return
        logger.warning("beat: a signal has ended it. The worker sends nothing periodic any more")
        try:
            self.line.sendall(STOPPED)
        except OSError:
            # The worker ends as well.
            pass

    def go_on(self) -> None:
        """Has one beat follow the other."""
        pause = PAUSE
        while True:
            began = time.monotonic()
            pid = self.fork()
            status = self.wait(pid)
            if status is None:
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


def main(line: int, told: str) -> None:
    """A keeper that was started: readies the project as the worker has, and has a beat of it."""
    from celeriac import beat, renewal

    code = 1
    try:
        preparation, given = renewal.prepared(told)
        standing = preparation.load(given["hostname"], given["loglevel"], given["logfile"], [])
        if preparation.refusal:
            raise RuntimeError(preparation.refusal)
        preparation.set_up(standing, given["no_color"])
        shown = {name: given[name] for name in ("loglevel", "logfile", "no_color")}
        Keeper(socket.socket(fileno=line), lambda: beat.serve(preparation.app, preparation.options, **shown)).keep()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Threads of the project are not waited for.
        child.flush()
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
