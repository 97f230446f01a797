"""``pool_restart``: another nursery, in an interpreter of its own that has the project imported anew.

This process has threads by then and cannot fork. So the other one is a program that is started: it finds the app and readies
it as this process has, and is a nursery from then on.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Optional

from celery.utils.log import get_logger

from celeriac import nursery

if TYPE_CHECKING:
    from celeriac import worker

logger = get_logger("celery.worker")

#: For how many seconds a new nursery may import the project.
IMPORTING = 120.0


class Renewal:
    """Starts other nurseries for one worker; what it has started, :meth:`end` ends."""

    def __init__(self, told: str):
        #: The app's name, the command line, and what else the worker was told, as :func:`prepared` reads it.
        self.told = told
        self.lock = threading.Lock()
        self.processes: list[subprocess.Popen] = []
        #: The one that imports the project.
        self.pending: Optional[subprocess.Popen] = None

    def begin(self, renew) -> None:
        """Starts a nursery; ``renew(socket, process)`` gives it to the pool once it has the project imported."""
        threading.Thread(target=self.run, args=(renew,), name="celeriac-renewal", daemon=True).start()

    def run(self, renew) -> None:
        with self.lock:
            try:
                line, process = self.start()
            except Exception as error:
                return logger.error("The pool is not restarted, and goes on as it was: %s", error)
            renew(line.detach(), process)
            logger.info("The pool is restarted: each process is replaced when it has ended its task")

    def start(self) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "celeriac.renewal", str(theirs.fileno()), self.told]
            self.pending = process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self.processes = [*(other for other in self.processes if other.poll() is None), process]
        try:
            ours.settimeout(IMPORTING)
            ours.sendall(nursery.ASK.pack(nursery.ASK.size - 4, nursery.PING, 0, 0))
            if not ours.recv(64):
                raise RuntimeError("the project cannot be imported any more")
        except BaseException:
            ours.close()
            process.kill()
            raise
        finally:
            self.pending = None
        ours.settimeout(None)
        return ours, process.pid

    def end(self, patience: float) -> None:
        """Waits for those that are left, which end when their sockets close; one that does not is killed."""
        if self.pending is not None:
            self.pending.kill()
        for process in self.processes:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def prepared(told: str) -> tuple["worker.Preparation", dict[str, Any]]:
    """In a program that a worker has started: finds the app; returns that and what else the worker was told."""
    from celeriac import cli, user_options, worker
    from celeriac.options import split

    name, arguments, given = json.loads(told)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    # The project may look at it, and it is what the process list shows.
    sys.argv = ["celeriac", *arguments]
    options = split(arguments, os.environ)
    app = cli.load(name)
    if app is None:
        raise SystemExit(2)
    options.user, options.arguments = user_options.take(app, options.arguments)
    return worker.Preparation(app, options), given


def main(line: int, told: str) -> None:
    """The other nursery: readies the app, and serves."""
    preparation, given = prepared(told)
    preparation.serve(socket.socket(fileno=line), **given)


if __name__ == "__main__":
    # Nothing of the worker's may be kept open: sockets of its connections are not passed on.
    main(int(sys.argv[1]), sys.argv[2])
