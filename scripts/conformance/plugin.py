"""A plugin for pytest: the worker that the suite's tests speak with is a process of its own, and a line of JSON is
written about each test that has ended.

It is loaded before the suite's conftest.py, which takes the fixture from `celery.contrib.pytest`, and before its tests,
which take `start_worker` from `celery.contrib.testing.worker`.
"""

from __future__ import annotations

import contextlib
import json
import os
from types import SimpleNamespace
from typing import Optional

import celery.contrib.pytest
import celery.contrib.testing.worker
import celery.worker.state
import pytest
from celery.utils.nodenames import anon_nodename

from conformance.names import LIMIT, LINE
from conformance.workers import Worker

#: How often one that Celery calls flaky is run again, and the seconds that each run may take: a hang must not last.
RERUNS = 2
FLAKY_LIMIT = 90


class Session:
    """The worker of this session, and how its tests have ended."""

    worker: Optional[Worker] = None
    has_failed = False
    outcome: Optional[tuple[str, str]] = None


SESSION = Session()


@pytest.fixture(scope="session")
def celery_session_worker(celery_session_app, celery_includes, celery_class_tasks, celery_worker_pool):
    """In place of the one of `celery.contrib.pytest`."""
    for module in celery_includes:
        celery_session_app.loader.import_task_module(module)
    for kind in celery_class_tasks:
        celery_session_app.register_task(kind)
    # The name that the suite asks for, made of the number of the tests' own process.
    worker = Worker(celery_session_app, anon_nodename(), celery_worker_pool, 1, celery_includes, celery_class_tasks)
    worker.start()
    SESSION.worker = worker
    yield worker
    SESSION.worker = None
    worker.stop()


@contextlib.contextmanager
def start_worker(app, concurrency=1, pool="solo", **_options):
    """In place of the one of `celery.contrib.testing.worker`."""
    worker = Worker(app, f"started-{anon_nodename()}", pool, concurrency, ["t.integration.tasks"], [])
    worker.start()
    try:
        yield SimpleNamespace(hostname=worker.node)
    finally:
        worker.stop()


class Stamps(dict):
    """In place of what the worker would remember in this process: which stamps are revoked."""

    def clear(self) -> None:
        """Forgets them: a new worker knows none."""
        if SESSION.worker:
            SESSION.worker.stop()
            SESSION.worker.start()


celery.contrib.pytest.celery_session_worker = celery_session_worker
celery.contrib.testing.worker.start_worker = start_worker
celery.worker.state.revoked_stamps = Stamps()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The suite's own limits are meant for a worker that need not be started again."""
    for item in items:
        flaky = item.get_closest_marker("flaky")
        limit = FLAKY_LIMIT if flaky else float(os.environ[LIMIT])
        item.add_marker(pytest.mark.timeout(limit), append=False)
        if flaky:
            reruns = min(flaky.kwargs.get("reruns", RERUNS), RERUNS)
            item.add_marker(pytest.mark.flaky(**{**flaky.kwargs, "reruns": reruns}), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a failed test has left behind, or a worker that has ended, fails no other."""
    worker = SESSION.worker
    if worker and (SESSION.has_failed or not worker.is_running()):
        worker.stop()
        worker.start()
    SESSION.has_failed = False


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.outcome == "rerun":
        SESSION.has_failed, SESSION.outcome = True, ("rerun", reason(report))
    elif report.failed:
        SESSION.has_failed, SESSION.outcome = True, ("failed", reason(report))
    elif SESSION.outcome is None and (report.skipped or report.when == "call"):
        # What Celery's suite leaves out by itself, for lack of a server or for a reason that it states: it is reported.
        skipped = "xfailed" if hasattr(report, "wasxfail") else "skipped"
        SESSION.outcome = (skipped, reason(report)) if report.skipped else ("passed", "")


def pytest_runtest_logfinish(nodeid: str) -> None:
    outcome, why = SESSION.outcome or ("failed", "it has not ended")
    SESSION.outcome = None
    line = json.dumps({"test": nodeid, "outcome": outcome, "why": why}) + "\n"
    os.write(int(os.environ[LINE]), line.encode())


def reason(report: pytest.TestReport) -> str:
    """The line that says what went wrong."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[-1]
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return text.strip().split("\n")[0][:200]
