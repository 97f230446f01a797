"""Workers for tests, in the shape of ``celery.contrib.testing.worker``: in a thread of the tests' own process, so that the
app, its tasks and whatever a test has replaced are the very objects that the test has.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional, Union

from celery import Celery, signals
from celery.app import trace
from celery.contrib.testing.worker import setup_app_for_worker
from celery.exceptions import ImproperlyConfigured
from celery.result import _set_task_join_will_block, allow_join_result
from celery.utils.nodenames import anon_nodename

from celeriac import beat, cli, user_options
from celeriac.options import split
from celeriac.worker import Preparation

WORKER_LOGLEVEL = os.environ.get("WORKER_LOGLEVEL", "error")
#: For how many seconds a worker may begin.
START = 30.0

#: Celery's parameters of a worker that are options here.
OPTIONS = (
    "autoscale", "exclude_queues", "include", "max_memory_per_child", "max_tasks_per_child", "optimization",
    "prefetch_multiplier", "queues", "soft_time_limit", "statedb", "time_limit",
)  # fmt: skip
#: Those that are given or not.
FLAGS = ("purge", "task_events", "without_gossip", "without_heartbeat", "without_mingle")

NO_BROKER = """\
the broker memory:// is Celery's own within a process, which Celeriac cannot reach. Give the tests a broker of their own, \
say a database of a Redis that is empty:

    @pytest.fixture(scope="session")
    def celery_config():
        return {"broker_url": "redis://localhost:6379/15", "result_backend": "redis://localhost:6379/15"}"""
NO_RESULTS = """\
the results at {url} stay in the process that stores them, which with the pool prefork is not that of the tests: use the \
pool solo or threads, or another result_backend"""


class Worker:
    """A worker in a thread of this process, for one app."""

    def __init__(
        self,
        app: Celery,
        hostname: Optional[str] = None,
        pool: str = "solo",
        concurrency: int = 1,
        loglevel: Union[str, int] = WORKER_LOGLEVEL,
        logfile: Optional[str] = None,
        shutdown_timeout: float = 10.0,
        **parameters: Any,
    ):
        self.app = app
        self.hostname: str = hostname or anon_nodename()
        self.pool = pool
        self.loglevel, self.logfile = loglevel, logfile
        self.shutdown_timeout = shutdown_timeout
        level = logging.getLevelName(loglevel) if isinstance(loglevel, int) else loglevel
        self.arguments = [
            "--quiet", "worker", "--hostname", self.hostname, "--pool", pool, "--concurrency", str(concurrency),
            "--loglevel", level, *([] if logfile is None else ["--logfile", logfile]), *options_of(parameters),
        ]  # fmt: skip
        #: What is closed to end it.
        self.line: Optional[socket.socket] = None
        self.thread: Optional[threading.Thread] = None
        #: That it is ready, or has ended.
        self.told = threading.Event()
        self.code: Optional[int] = None
        #: What the tracer in this process knew before.
        self.localized: list[Any] = []

    def start(self) -> None:
        """Returns when it consumes.

        :raises RuntimeError: it has ended, or does not get there.
        """
        check(self.app, self.pool)
        setup_app_for_worker(self.app, self.loglevel, self.logfile)
        # Whether there is a broker at all is told by its own exception.
        with self.app.connection_for_read() as connection:
            connection.connect()
        self.localized, self.code = list(trace._localized), None
        self.told.clear()
        self.line, theirs = socket.socketpair()
        options = split(self.arguments, {})
        # None is given here, but those with a default have it.
        options.user, options.arguments = user_options.take(self.app, options.arguments)
        preparation = Preparation(self.app, options)
        self.thread = threading.Thread(
            target=self.run, args=(preparation, theirs.detach()), name="celeriac-worker", daemon=True
        )
        signals.worker_ready.connect(self.on_ready, weak=False)
        with printing_as_before(self.app):
            self.thread.start()
            is_told = self.told.wait(START)
        signals.worker_ready.disconnect(self.on_ready)
        _set_task_join_will_block(False)
        if not is_told or self.code is not None:
            how = "is not ready" if self.code is None else f"has ended with exit code {self.code}"
            self.stop()
            raise RuntimeError(f"Celeriac's worker {how}: standard error says why")

    def run(self, preparation: Preparation, line: int) -> None:
        """Its life, in its thread."""
        code = 1
        try:
            code = cli.serve(preparation, beat.Preparation(self.app, preparation.options), "celeriac", line)
        finally:
            self.code = code
            self.told.set()

    def on_ready(self, sender: Any, **_: Any) -> None:
        if sender.hostname == self.hostname:
            self.told.set()

    def stop(self) -> None:
        """Finishes what runs, gives back what waits, and returns.

        :raises RuntimeError: a task takes longer than the ``shutdown_timeout``.
        """
        if self.thread is None or self.line is None:
            return
        # A process that was forked meanwhile may have a copy, so that to close it were not enough.
        self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()
        self.thread.join(self.shutdown_timeout)
        if self.thread.is_alive():
            raise RuntimeError(
                f"Celeriac's worker has not ended within {self.shutdown_timeout} s: "
                "raise the shutdown_timeout if its tasks take longer"
            )
        self.thread = self.line = None
        trace._localized[:] = self.localized

    def reload(self, *_: Any, **__: Any) -> None:
        """Begins anew, with the tasks that there are now."""
        self.stop()
        self.start()


@contextmanager
def start_worker(
    app: Celery,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: Union[str, int] = WORKER_LOGLEVEL,
    logfile: Optional[str] = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **parameters: Any,
) -> Iterator[Worker]:
    """Runs a worker for the app, as ``celery.contrib.testing.worker.start_worker`` does."""
    parameters = {"without_heartbeat": True, "without_mingle": True, "without_gossip": True, **parameters}
    worker = Worker(
        app,
        pool=pool,
        concurrency=concurrency,
        loglevel=loglevel,
        logfile=logfile,
        shutdown_timeout=shutdown_timeout,
        **parameters,
    )
    worker.start()
    try:
        if perform_ping_check:
            ping(app, ping_task_timeout)
        yield worker
    finally:
        worker.stop()


def ping(app: Celery, timeout: float) -> None:
    """Has the worker run a task."""
    # Declared when it is imported, for every app.
    import celery.contrib.testing.tasks  # noqa: F401

    with allow_join_result():
        assert app.tasks["celery.ping"].delay().get(timeout=timeout) == "pong"


def options_of(parameters: dict[str, Any]) -> list[str]:
    """The words of a command line that say the same."""
    words = []
    for name, value in parameters.items():
        if name not in OPTIONS and name not in FLAGS:
            there_are = ", ".join(sorted({*OPTIONS, *FLAGS}))
            raise TypeError(f"Celeriac's worker has no parameter {name}: there are {there_are}, and those of start_worker")
        option = f"--{name.replace('_', '-')}"
        if name in FLAGS:
            words += [option] if value else []
        elif value is not None:
            value = ",".join(map(str, value)) if isinstance(value, (list, tuple, set, frozenset)) else value
            words += [option, str(value)]
    return words


def check(app: Celery, pool: str) -> None:
    """Refuses what stays in a process where this worker is not."""
    if app.connection_for_read().transport_cls == "memory":
        raise ImproperlyConfigured(NO_BROKER)
    results = str(app.conf.result_backend)
    if pool in ("prefork", "processes") and results.startswith("cache+memory"):
        raise ImproperlyConfigured(NO_RESULTS.format(url=results))


@contextmanager
def printing_as_before(app: Celery) -> Iterator[None]:
    """What tasks print is the tests' to see, and no line of a log."""
    before, app.conf.worker_redirect_stdouts = app.conf.worker_redirect_stdouts, False
    try:
        yield
    finally:
        app.conf.worker_redirect_stdouts = before
