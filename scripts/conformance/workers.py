"""A worker in a process of its own, for tests that would have it in theirs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from celery import Celery
from celery.app.defaults import DEFAULTS

from conformance.names import CLASSES, COMMAND, FOLDER, INCLUDES, SETTINGS
from harness import die_with_parent

#: Seconds that it may take to begin.
START = 30
#: What a worker may take to finish what runs; nobody waits for that any more.
STOP = 5


class Worker:
    """One worker; it is started again when it has ended, or when a test has failed before it."""

    def __init__(self, app: Celery, node: str, pool: str, concurrency: int, includes: Iterable[str], classes: Iterable):
        self.app, self.node = app, node
        self.arguments = [
            *shlex.split(os.environ[COMMAND]), "-A", "conformance.app", "worker", "--hostname", node, "--pool", pool,
            "--concurrency", str(concurrency), "--loglevel", "info",
            "--without-heartbeat", "--without-mingle", "--without-gossip",
        ]
        self.includes = sorted(includes)
        self.classes = [(kind.__module__, kind.__qualname__) for kind in classes]

    def start(self) -> None:
        """Returns when it answers."""
        environment = {
            **os.environ, SETTINGS: json.dumps(settings(self.app)), INCLUDES: json.dumps(self.includes),
            CLASSES: json.dumps(self.classes),
        }
        with open(Path(os.environ[FOLDER]) / f"worker-{self.node}.log", "ab") as log:
            self.process = subprocess.Popen(
                self.arguments, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + START
        while not self.app.control.inspect(destination=[self.node], timeout=0.5).ping():
            if self.process.poll() is not None:
                raise RuntimeError(f"the worker has ended with exit code {self.process.returncode}: see {log.name}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the worker does not answer: see {log.name}")

    def is_running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """Ends it and all of its children, and what is in its queues."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.app.control.purge()


def settings(app: Celery) -> dict:
    """What differs from Celery's defaults."""
    found = {}
    for name, default in DEFAULTS.items():
        value = app.conf.get(name)
        value = sorted(value) if isinstance(value, (set, frozenset)) else value
        if value != default and is_plain(value):
            found[name] = value
    return found


def is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
