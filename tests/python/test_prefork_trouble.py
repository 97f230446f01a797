"""Python tasks that harm their process, and projects that cannot be imported: nobody else is harmed, and nothing stays."""

import importlib
import os
import pathlib
import subprocess
import sys
import uuid

import pytest
from billiard.exceptions import TimeLimitExceeded

from faults import Lines, eventually
from support import SECONDS
from test_prefork import HERE, environment, error, shelf, start, value  # noqa: F401

pytestmark = pytest.mark.only("redis", "what a task does to its process does not depend on the broker")


@pytest.fixture(scope="module")
def trouble(shelf):
    return importlib.import_module("shelf.trouble")


@pytest.fixture(scope="module")
def worker(trouble, start):
    return start("-Q", "bad", "-c", "2", CELERY_IMPORTS=["shelf.trouble"])


def send(task, *args, **options):
    return task.apply_async(args, queue="bad", **options)


@pytest.mark.parametrize("task, name, text", [
    ("segfault", "WorkerLostError", "signal 11 (SIGSEGV)"),
    ("unpicklable", "UnpickleableExceptionWrapper", "Local(<unlocked"),
    ("particular", "UnpickleableExceptionWrapper", "Particular('particular')"),
    ("homeless", "UnpickleableExceptionWrapper", "Homeless('lost')"),
])
def test_a_failure_is_that_tasks_alone(shelf, trouble, worker, task, name, text):
    others = [send(shelf.sleep, 0.1) for _ in range(2)]
    raised = error(send(getattr(trouble, task)), Exception)
    assert (type(raised).__name__, text in str(raised)) == (name, True), repr(raised)
    assert [value(other) for other in others] == [0.1, 0.1]


def test_a_task_may_fork_and_start_threads(shelf, trouble, worker):
    # Each of the two stores what it returns, the second one over a connection of its own: whichever comes first is seen.
    assert value(send(trouble.fork)) >= 0
    assert value(send(trouble.threads)) is True
    assert [value(send(shelf.add, 1, number)) for number in range(8)] == list(range(1, 9))


def test_who_hears_no_signal_is_killed(shelf, trouble, worker):
    error(send(trouble.deaf, time_limit=0.5), TimeLimitExceeded)
    assert value(send(shelf.add, 1, 1)) == 2


def test_tasks_that_multiply_are_run(trouble, worker, tmp_path):
    lines = Lines(tmp_path)
    send(trouble.bomb, str(lines.path), 8)
    lines.wait_for(2**9 - 1)
    assert len(lines.all()) == 2**9 - 1


def test_who_prints_without_end_keeps_nobody_up(shelf, trouble, start):
    worker = start("-Q", "flood", "-c", "2", "-n", "flood@test", CELERY_IMPORTS=["shelf.trouble"])
    flood = trouble.flood.apply_async((64,), queue="flood")
    assert shelf.add.apply_async((1, 2), queue="flood").get(timeout=SECONDS) == 3
    assert flood.get(timeout=2 * SECONDS) == 64
    assert worker.stop() == 0
    assert worker.output.whole().count("x") >= 64 << 20


def run(command, marker, env):
    path = os.pathsep.join([HERE, os.path.join(HERE, "..", "..", "python")])
    env = {**os.environ, **env, "PYTHONPATH": path, "SHELF_MARKER": marker}
    return subprocess.run([sys.executable, "-m", *command], env=env, capture_output=True, text=True, timeout=60)


def marked(marker):
    """The processes that have it in their environment."""
    found = []
    for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("app, settings, told", [
    ("nowhere", {}, "The module nowhere was not found."),
    ("shelf.settings:nothing", {}, "nothing"),
    ("broken", {}, "ZeroDivisionError: division by zero"),
    ("shelf", {"CELERY_IMPORTS": ["broken"]}, "ZeroDivisionError: division by zero"),
    ("shelf", {"CELERY_IMPORTS": ["nowhere"]}, "No module named 'nowhere'"),
])
def test_a_project_that_cannot_be_imported(server, app, settings, told):
    marker, env = uuid.uuid4().hex, environment(server, **settings)
    ours, stock = (run([program, "-A", app, "worker"], marker, env) for program in ("celeriac", "celery"))
    assert told in ours.stderr + ours.stdout
    assert told in stock.stderr + stock.stdout
    assert ours.returncode == stock.returncode, (ours, stock)
    eventually(lambda: not marked(marker), lambda: marked(marker))
