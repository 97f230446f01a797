"""What must be done in Python before a worker begins: the project is imported, and the nursery forked."""

import json
import math
import os
import signal
import socket
import sys
import time
import warnings
from typing import Any, Optional

from celery import signals
from celery._state import _set_task_join_will_block
from celery.app import trace
from celery.utils.log import get_logger
from celery.worker.request import Request

from celeriac import (
    backend, beat, coroutines, embedded, nursery, panel, parent, queues, renewal, rust_tasks, settings, steps, threads,
)  # fmt: skip
from celeriac.limits import Limits
from celeriac.options import Options, pool, split

logger = get_logger(__name__)

#: For how many seconds the nursery may end when nobody needs it any more.
PARTING = 5.0

#: What Rust must know of a task.
ATTRIBUTES = (
    "acks_late",
    "acks_on_failure",
    "acks_on_timeout",
    "acks_on_failure_or_timeout",
    "ignore_result",
    "rate_limit",
    "reject_on_worker_lost",
    "retry_on_worker_lost",
    "send_events",
    "soft_time_limit",
    "store_errors_even_if_ignored",
    "time_limit",
    "track_started",
)


NUMBERS = (int, float)
#: The largest number of retries that Rust counts to.
MOST = 2**32 - 1


class Preparation:
    """Readies one worker; what it has begun, :meth:`end` ends."""

    def __init__(self, app, options: Options):
        self.app = app
        self.options = options
        self.pool = (options.pool or pool_of(app)) if options.command == "worker" else "prefork"
        self.nursery: Optional[int] = None
        self.threads: Optional[threads.Threads] = None
        self.signals: Optional[parent.Signals] = None
        #: What sends periodic tasks, and goes on doing so, if this worker has one.
        self.beat: Optional[embedded.Embedded] = None
        #: What has the pool's processes replaced, if there are some.
        self.renewal: Optional[renewal.Renewal] = None
        #: The project's commands, once the worker can have some.
        self.panel: Optional[panel.Panel] = None
        #: What stands for the worker, once the project is imported.
        self.worker: Optional[parent.Worker] = None
        #: The settings as they were before the project's receivers could change them.
        self.before: dict[str, Any] = {}
        #: The module of Rust tasks that runs this worker, if there is one.
        self.module: Optional[rust_tasks.RustModule] = None
        #: Why no worker can be run with what was imported.
        self.refusal: Optional[str] = None

    def prepare(
        self,
        hostname: str,
        loglevel: str,
        logfile: Optional[str],
        no_color: bool,
        unread: list[str],
    ) -> Optional[tuple[int, dict[str, Any], list[tuple[str, dict[str, Any]]], parent.Signals, list[str]]]:
        """Imports the project and readies its pool; returns the pool's socket and options, the tasks, and who hears of
        the worker, with the signals that somebody listens to. ``None``: what was imported has Rust tasks, and
        :attr:`module` is to run the worker; or there is a :attr:`refusal`."""
        app = self.app
        if self.worker is None:
            self.worker = self.load(hostname, loglevel, logfile, unread)
            if self.module or self.refusal:
                return None
        worker = self.worker
        self.set_up(worker, no_color)
        if self.options.beat:
            self.beat = embedded.embed(lambda: beat.serve(app, self.options, loglevel, logfile, no_color))
        boot = steps.Steps(worker)
        consumed = queues.Consumed(app, self.options.queues, self.options.exclude_queues)
        signals.celeryd_after_setup.send(sender=hostname, instance=worker, conf=app.conf)
        line, options = self.fork(worker) if self.pool == "prefork" else self.begin(worker)
        options["queues"] = consumed.changes()
        given = {"hostname": hostname, "loglevel": loglevel, "logfile": logfile, "no_color": no_color}
        # Under Celery's own command line the app is named before what is left for this one.
        name = self.options.app or split(sys.argv[1:], os.environ).app
        told = json.dumps([name, self.options.given, given])
        if self.pool == "prefork":
            self.renewal = renewal.Renewal(told)
        if self.beat is not None:
            self.beat.watch(told)
        self.panel = options["panel"] = panel.Panel(worker, self.renewal)
        # What the project's receivers have changed: `celeryd_init` is there for that.
        options["settings"] = {name: value for name, value in settings.of(app).items() if self.before.get(name) != value}
        options["rust_tasks"] = self.runs_rust()
        tasks = [(name, of(task)) for name, task in sorted(app.tasks.items())]
        # A worker that has begun says when it has ended.
        self.signals = parent.Signals(worker, boot)
        boot.start()
        return line, options, tasks, self.signals, self.signals.wanted()

    def runs_rust(self) -> bool:
        """Whether Rust runs the tasks in Rust. It does not where only Celery can store what they come to: then the pool
        runs them as Celery's tasks, which they are as well."""
        url = backend.celerys(self.app) if rust_tasks.modules else None
        if url is not None:
            name = rust_tasks.modules[0].name
            logger.info("Only Python can store results in %s: the pool runs the tasks of %s as Celery's own", url, name)
        return url is None

    def set_up(self, worker: parent.Worker, no_color: bool) -> None:
        """Says that the worker is there, and readies the log and the tasks."""
        app = self.app
        signals.worker_init.send(sender=worker)
        app.log.setup(
            worker.loglevel, worker.logfile, redirect_stdouts=False, colorize=False if no_color else None,
            hostname=worker.hostname,
        )  # fmt: skip
        # What the project has added since the app was finalized is there, too.
        trace.setup_worker_optimizations(app, worker.hostname)
        coroutines.adopt(app.tasks)

    def serve(
        self, line: socket.socket, hostname: str, loglevel: str, logfile: Optional[str], no_color: bool
    ) -> None:
        """Is a nursery that was not forked by the worker, until the worker hangs up."""
        worker = self.load(hostname, loglevel, logfile, [])
        if self.refusal:
            raise SystemExit(self.refusal)
        self.set_up(worker, no_color)
        queues.Consumed(self.app, self.options.queues, self.options.exclude_queues)
        signals.celeryd_after_setup.send(sender=hostname, instance=worker, conf=self.app.conf)
        nursery.settle(self.app)
        nursery.Nursery(self.app, hostname, Limits.of(self.app, self.options), worker.pool, line).serve()

    def fork(self, worker: parent.Worker) -> tuple[int, dict[str, Any]]:
        """Has a nursery forked; returns the socket to it, and the pool's options."""
        conf = self.app.conf
        if conf.worker_redirect_stdouts:
            # The children do it: this process prints for itself.
            os.environ.update(
                CELERY_LOG_REDIRECT="1", CELERY_LOG_REDIRECT_LEVEL=str(conf.worker_redirect_stdouts_level)
            )
        ours, theirs = socket.socketpair()
        limits = Limits.of(self.app, self.options)
        self.nursery = nursery.fork(self.app, worker.hostname, limits, worker.pool, theirs, [ours])
        theirs.close()
        return ours.detach(), {
            "nursery": self.nursery,
            "max_tasks_per_child": limits.max_tasks,
            "alive_timeout": conf.worker_proc_alive_timeout,
        }

    def begin(self, worker: parent.Worker) -> tuple[int, dict[str, Any]]:
        """Has the tasks run in threads of this process."""
        conf = self.app.conf
        if conf.worker_redirect_stdouts:
            self.app.log.redirect_stdouts(conf.worker_redirect_stdouts_level)
        options: dict[str, Any] = {"has_processes": False}
        # Who waited for a result here might keep the thread that is to bring it (celery/worker/components.py `Pool.create`).
        _set_task_join_will_block(True)
        if self.pool == "solo":
            signals.worker_process_init.send(sender=worker.hostname)
        ours, theirs = socket.socketpair()
        self.threads = threads.Threads(self.app, theirs)
        self.threads.start(worker.hostname)
        return ours.detach(), options

    def include(self) -> None:
        """Imports what the command line names (celery/worker/worker.py ``WorkController.setup_includes``)."""
        app, modules = self.app, self.options.include
        for module in modules:
            app.loader.import_task_module(module)
        known = {type(task).__module__ for task in app.tasks.values()}
        app.conf.include = tuple({*app.conf.include, *modules} | known)

    def load(self, hostname: str, loglevel: str, logfile: Optional[str], unread: list[str]) -> parent.Worker:
        """Imports the project, and sees who is to run the worker; returns what stands for that."""
        for name in [name for name in unread if name not in settings.HONOURED]:
            warnings.warn(f"the setting {name} is not supported yet and has no effect", stacklevel=1)
        app, self.before = self.app, settings.of(self.app)
        worker = parent.Worker(app, hostname, self.pool, loglevel, logfile)
        worker.options = self.options.user
        app.loader.init_worker()
        trace.setup_worker_optimizations(app, hostname)
        signals.celeryd_init.send(sender=hostname, instance=worker, conf=app.conf, options=worker.options)
        self.include()
        self.refusal = rust_tasks.refusal() or next((f"the boot step {name}: {why}" for name, why in steps.refused(app)), None)
        self.module = next(iter(rust_tasks.modules), None)
        if self.module and settings.has_routers(app):
            # Celery asks them of all that is sent in Python.
            warnings.warn("task_routes has routers: what follows a task in Rust goes by the tables there alone", stacklevel=1)
        return worker

    def end(self) -> None:
        """Ends what was begun, and says so."""
        if self.beat is not None:
            self.beat.end()
        self.end_nursery()
        if self.renewal is not None:
            self.renewal.end(PARTING)
        if self.signals is not None:
            self.signals.shutdown()
            self.signals = None

    def leaves_threads(self) -> bool:
        """Whether a task, or a command, still runs in this process."""
        is_busy = self.panel is not None and self.panel.is_busy()
        return is_busy or (self.threads is not None and self.threads.is_left())

    def end_nursery(self) -> None:
        """Waits for the nursery, which ends when its socket closes; one that does not is killed."""
        if self.nursery is None:
            return
        nursery, self.nursery = self.nursery, None
        deadline = time.monotonic() + PARTING
        try:
            while os.waitpid(nursery, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(nursery, signal.SIGKILL)
                    os.waitpid(nursery, 0)
                    return
                time.sleep(0.005)
        except ChildProcessError:
            # A project that ignores SIGCHLD leaves nothing to wait for.
            pass


def pool_of(app) -> str:
    """The pool that the settings name."""
    return pool(str(app.conf.worker_pool or "prefork"))


def of(task) -> dict[str, Any]:
    """What Rust must know of a task; Celery has put the settings into it already."""
    options = {name: getattr(task, name, None) for name in ATTRIBUTES}
    if options["rate_limit"] is not None:
        options["rate_limit"] = str(options["rate_limit"])
    # Before 5.7 Celery does not look at it.
    options["retry_on_worker_lost"] = bool(options["retry_on_worker_lost"]) and hasattr(Request, "_retry_worker_lost")
    most, delay = task.max_retries, task.default_retry_delay or 0
    # What is no number, or a larger one than Rust counts to, is no limit.
    options["max_retries"] = math.ceil(max(0, most)) if isinstance(most, NUMBERS) and most <= MOST else None
    options["default_retry_delay"] = max(0, delay) if isinstance(delay, NUMBERS) else None
    return options


def default_concurrency() -> int:
    """As many children as this process may use processors."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 2
