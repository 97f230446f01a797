"""What must be done in Python before a worker begins: the project is imported, and the nursery forked."""

import os
import socket
import warnings
from typing import Any, Optional

from celery import signals
from celery.app import trace

from celeriac import nursery
from celeriac.options import Options

#: What Rust must know of a task.
ATTRIBUTES = (
    "acks_late",
    "acks_on_failure",
    "acks_on_timeout",
    "acks_on_failure_or_timeout",
    "ignore_result",
    "rate_limit",
    "reject_on_worker_lost",
    "send_events",
    "soft_time_limit",
    "store_errors_even_if_ignored",
    "time_limit",
    "track_started",
)


class Preparation:
    """Readies one worker; what it has begun, :meth:`end` ends."""

    def __init__(self, app, options: Options):
        self.app = app
        self.options = options
        self.nursery: Optional[int] = None

    def prepare(
        self,
        hostname: str,
        loglevel: str,
        logfile: Optional[str],
        no_color: bool,
        unread: list[str],
    ) -> tuple[int, Optional[int], list[tuple[str, dict[str, Any]]]]:
        """Imports the project and forks the nursery; returns its socket, and the tasks."""
        for name in unread:
            warnings.warn(f"the setting {name} is not supported yet and has no effect", stacklevel=1)
        app = self.app
        app.loader.init_worker()
        trace.setup_worker_optimizations(app, hostname)
        signals.celeryd_init.send(sender=hostname, instance=None, conf=app.conf, options={})
        include(app, self.options.include)
        signals.worker_init.send(sender=None)
        app.log.setup(
            loglevel, logfile, redirect_stdouts=False, colorize=False if no_color else None, hostname=hostname
        )
        if app.conf.worker_redirect_stdouts:
            # The children do it: this process prints for itself.
            os.environ.update(
                CELERY_LOG_REDIRECT="1", CELERY_LOG_REDIRECT_LEVEL=str(app.conf.worker_redirect_stdouts_level)
            )
        ours, theirs = socket.socketpair()
        self.nursery = nursery.fork(app, hostname, theirs, [ours])
        theirs.close()
        max_tasks = self.options.max_tasks_per_child or app.conf.worker_max_tasks_per_child
        return ours.detach(), max_tasks, [(name, of(task)) for name, task in sorted(app.tasks.items())]

    def end(self) -> None:
        """Waits for the nursery, which ends when its socket closes."""
        if self.nursery is not None:
            os.waitpid(self.nursery, 0)
            self.nursery = None


def include(app, modules: list[str]) -> None:
    """Imports modules of the command line, and has the setting ``include`` name where each task is from
    (celery/worker/worker.py ``WorkController.setup_includes``)."""
    for module in modules:
        app.loader.import_task_module(module)
    homes = {type(task).__module__ for task in app.tasks.values()}
    app.conf.include = tuple({*app.conf.include, *modules, *homes})


def of(task) -> dict[str, Any]:
    """What Rust must know of a task; Celery has put the settings into it already."""
    options = {name: getattr(task, name, None) for name in ATTRIBUTES}
    if options["rate_limit"] is not None:
        options["rate_limit"] = str(options["rate_limit"])
    return options


def default_concurrency() -> int:
    """As many children as this process may use processors."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 2
