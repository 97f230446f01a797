"""A Django project's Python tasks in Celeriac: `celeriac -A shelf worker` in place of `celery -A shelf worker`.

The extension must be where the package is: `scripts/extension.sh` builds it.
"""

import gc
import asyncio
import importlib
import json
import os
import re
import signal
import sys
import time
import uuid

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import Celery, chain, chord, group
from celery.exceptions import Reject, TaskRevokedError
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

from faults import current, eventually
from support import ROOT, SECONDS, Process

HERE = os.path.dirname(__file__)
NODE = "shelf@test"


class Celeriac(Process):
    """The command `celeriac`, with the project on its path."""

    def __init__(self, *arguments, env=None):
        path = os.pathsep.join([str(ROOT / "python"), HERE])
        super().__init__([sys.executable, "-m", "celeriac", *arguments], {"PYTHONPATH": path, **(env or {})})


def environment(server, **settings):
    names = {"SHELF_BROKER": server.broker_url, "SHELF_RESULTS": server.result_url}
    return names | ({"SHELF_SETTINGS": json.dumps(settings)} if settings else {})


@pytest.fixture(scope="module")
def shelf(server):
    """The project as a client has it: that was imported once, and is a client of each server in turn."""
    os.environ.update(environment(server))
    tasks = importlib.import_module("shelf.tasks")
    app = Celery("shelf", set_as_current=False)
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.conf.update(broker_url=server.broker_url, result_backend=server.result_url)
    with current(app):
        yield tasks
    gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.
    app.close()


@pytest.fixture(scope="module")
def start(server):
    workers = []

    def start(*options, app="shelf", **settings):
        # Each under a name of its own: of two with the same name both answer, and the later answer is taken for the next one's.
        options = ["-n", f"shelf{len(workers)}@test", "-l", "info", *options]
        workers.append(Celeriac("-A", app, "worker", *options, env=environment(server, **settings)))
        # Django is imported first, which takes its time where the machine is busy.
        workers[-1].output.wait_for(r"ready\.", timeout=4 * SECONDS)
        return workers[-1]

    yield start
    for worker in workers:
        if not worker.is_stopped:
            assert worker.stop() == 0, worker.output.text()


@pytest.fixture(scope="module")
def worker(shelf, start):
    return start("-n", NODE, "-c", "2", "-E")


def value(result):
    return result.get(timeout=SECONDS)


def error(result, kind):
    with pytest.raises(kind) as raised:
        value(result)
    return raised.value


def test_a_django_projects_tasks_run(shelf, worker):
    assert value(shelf.add.delay(2, y=3)) == 5
    assert value(shelf.query.delay()) == [42, ["shelf"]]
    assert value(shelf.counted.delay()) is True
    assert value(shelf.surrogate.delay()) == "\ud800"
    worker.output.wait_for(r"INFO/ForkPoolWorker-\d\] Task shelf.tasks.add\[.*\] succeeded in \S+s: 5")
    # Django's fixup closes what a task has opened: it found all that it looks for.
    assert "Signal handler" not in worker.output.text()


def test_progress_is_seen_while_the_task_runs(shelf, worker, tmp_path):
    path = tmp_path / "seen"
    told = shelf.progresses.delay(str(path))
    if "rpc" not in told.backend.as_uri():
        eventually(lambda: told.state == "PROGRESS" and told.info == {"done": 1}, "the progress")
    path.touch()
    assert value(told) is True


def test_what_the_tracer_lets_pass_is_a_failure(shelf, worker):
    assert str(error(shelf.cancelled.delay(), asyncio.CancelledError)) == "left alone"


def test_a_signal_that_there_is_not_harms_nobody(shelf, worker, tmp_path):
    path = tmp_path / "seen"
    told = shelf.progresses.delay(str(path))
    eventually(lambda: told.state == "PROGRESS", "the progress")
    shelf.add.app.control.revoke(told.id, terminate=True, signal=99, destination=[NODE], reply=True)
    path.touch()
    assert value(told) is True
    assert value(shelf.add.delay(1, 1)) == 2


def test_the_request_is_complete(shelf, worker):
    task = shelf.request.apply_async(headers={"x-custom": {"a": [1, None]}})
    request = value(task)
    pid = request.pop("pid")
    assert request == {
        "id": task.id, "hostname": NODE, "called_directly": False, "routing_key": "shelf", "correlation_id": task.id,
        "custom": {"a": [1, None]}, "args": "()",
    }
    worker.output.wait_for(rf"heard worker_process_init of {NODE} in {pid}\b")


def test_exceptions_are_the_projects_own(shelf, worker):
    task = shelf.fail.delay("é")
    assert error(task, shelf.Misplaced).args == ("é",)
    assert "in fail" in task.traceback
    error(shelf.unwritable.delay(), EncodeError)
    worker.output.wait_for(r"ERROR/ForkPoolWorker-\d\] Task shelf.tasks.fail\[.*\] raised unexpected: Misplaced")


def test_retries_and_other_endings(shelf, server, worker):
    assert value(shelf.flaky.delay(2)) == 2
    assert error(shelf.flaky.delay(9), KeyError).args == ("not yet",)
    assert value(shelf.replace.delay(1)) == 2
    task = shelf.progress.delay()
    assert value(task) == task.id
    assert error(shelf.rejected.delay(), Reject).reason == "not for us"
    assert server.dead_letter()["headers"]["task"] == "shelf.tasks.rejected"
    task = shelf.ignored.delay()
    worker.output.wait_for(rf"{task.id}\] ignored")
    server.holds_nothing()
    assert not server.results.keys(f"*{task.id}")


def test_canvases(shelf, worker):
    assert value(chain(shelf.add.s(1, 2), shelf.add.s(3), shelf.add.s(4))()) == 10
    assert value(group(shelf.add.s(i, 1) for i in range(20))()) == list(range(1, 21))
    assert value(chord((shelf.add.s(i, i) for i in range(20)), shelf.total.s())()) == 380
    failing = chain(shelf.fail.s("first"), shelf.add.s(1))()
    error(failing, shelf.Misplaced)


def test_what_revokes_a_chords_body_says_first_why(shelf, worker):
    for _ in range(5):
        body = group(shelf.add.si(1, 1), shelf.add.si(2, 2))
        error(chain(group(shelf.fail.s("first"), shelf.add.s(1, 1)), body)(), shelf.Misplaced)


def test_ignored_results_are_not_stored(shelf, server, worker, tmp_path):
    before = set(server.results.keys())
    lines = tmp_path / "lines"
    for number in range(500):
        shelf.note.delay(str(lines), number)
    deadline = time.monotonic() + SECONDS
    while not lines.exists() or len(lines.read_text().split()) < 500:
        assert time.monotonic() < deadline, lines.exists() and lines.read_text()
        time.sleep(0.01)
    assert sorted(map(int, lines.read_text().split())) == list(range(500))
    # What was there may have expired meanwhile.
    assert not set(server.results.keys()) - before


def test_limits(shelf, worker):
    error(shelf.sleep.apply_async((60,), soft_time_limit=0.3), SoftTimeLimitExceeded)
    assert error(shelf.sleep.apply_async((60,), time_limit=0.3), TimeLimitExceeded).args == (0.3,)
    worker.output.wait_for(r"Hard time limit \(0.3s\) exceeded for shelf.tasks.sleep")
    assert value(shelf.add.delay(1, 1)) == 2


@pytest.mark.parametrize("task, args, how", [
    ("die", (), r"signal 9 \(SIGKILL\) Job: \d+"),
    ("vanish", (3,), r"exitcode 3 Job: \d+"),
    ("leave", (4,), "exitcode 4"),
])
def test_a_lost_process_is_one_lost_task(shelf, worker, task, args, how):
    others = [shelf.sleep.delay(0.2) for _ in range(2)]
    lost = getattr(shelf, task).delay(*args)
    text = error(lost, WorkerLostError).args[0]
    assert re.fullmatch(rf"Worker exited prematurely: {how}\.", text), text
    assert [value(other) for other in others] == [0.2, 0.2]


def test_a_late_task_whose_process_is_lost_runs_again(shelf, worker, tmp_path):
    assert value(shelf.die_once.delay(str(tmp_path / "died"))) == "survived"


def test_terminate(shelf, worker):
    text = uuid.uuid4().hex
    task = shelf.sleep.delay(60, text)
    worker.output.wait_for(text)
    shelf.add.app.control.revoke(task.id, terminate=True)
    assert error(task, TaskRevokedError).args == ("terminated",)
    assert value(shelf.add.delay(1, 1)) == 2


def test_content_is_accepted_as_the_project_says(shelf, server, worker):
    assert value(shelf.add.apply_async((1, 2), serializer="yaml")) == 3
    assert value(shelf.add.apply_async((1, 2), compression="gzip")) == 3
    server.forget("celeriac.dead-letters")
    error(shelf.add.apply_async((1, 2), serializer="msgpack"), ContentDisallowed)
    assert server.dead_letter()["headers"]["task"] == "shelf.tasks.add"


def test_pickle_is_accepted_where_the_project_accepts_it(shelf, start):
    start("-Q", "pickled", "-c", "1", CELERY_ACCEPT_CONTENT=["json", "pickle"])
    assert value(shelf.total.apply_async(({1, 2},), serializer="pickle", queue="pickled")) == 3


class Reads:
    """What calls a function when it is unpickled."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        function, *args = self.call
        return function, tuple(args)


@pytest.mark.parametrize("accepted", [["json", "pickle"], ["pickle"]], ids="-".join)
def test_a_body_that_is_never_read_is_limited_as_its_task_is(shelf, start, accepted):
    queue = "unread " + "-".join(accepted)
    worker = start("-Q", queue, "-c", "1", CELERY_ACCEPT_CONTENT=accepted)

    def call(*read, **options):
        return shelf.add.apply_async((Reads(*read), 1), serializer="pickle", queue=queue, **options)

    assert value(call(int, 6)) == 7
    assert error(call(time.sleep, 60, time_limit=0.3), TimeLimitExceeded).args == (0.3,)
    worker.output.wait_for(r"Hard time limit \(0.3s\) exceeded for shelf.tasks.add")
    assert "SoftTimeLimitExceeded" in str(error(call(time.sleep, 60, soft_time_limit=0.3), DecodeError))
    # Once: it is acknowledged as what its task would be.
    lost, text = call(os._exit, 3), r"Worker exited prematurely: exitcode 3 Job: \d+\."
    assert re.fullmatch(text, error(lost, WorkerLostError).args[0])
    assert value(call(int, 6)) == 7
    worker.output.wait_for("pid:.* exited with 'exitcode 3'")
    assert len(re.findall("pid:.* exited with 'exitcode 3'", worker.output.text())) == 1


def test_what_a_task_prints_is_logged(shelf, worker):
    text = uuid.uuid4().hex
    value(shelf.shout.delay(text))
    worker.output.wait_for(rf"WARNING/ForkPoolWorker-\d\] {text}")


def test_a_process_ends_after_its_tasks(shelf, start):
    worker = start("-Q", "few", "-c", "1", "--max-tasks-per-child", "2")
    pids = [value(shelf.request.apply_async(queue="few"))["pid"] for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4], pids
    worker.output.wait_for(f"heard worker_process_shutdown of {pids[0]}: 155")


def test_a_pool_grows(shelf, start, tmp_path):
    worker = start("-Q", "grown", "-c", "1", "-n", "grown@test")
    meeting = [shelf.meet.apply_async((str(tmp_path), number, 2), queue="grown") for number in range(2)]
    worker.output.wait_for(f"{meeting[1].id}\\] received")
    [answer] = shelf.add.app.control.pool_grow(1, destination=["grown@test"], reply=True, timeout=SECONDS)
    assert answer == {"grown@test": {"ok": "pool will grow"}}
    # Each waits for the other, so that there are two processes.
    assert [value(one) for one in meeting] == [2, 2]


def test_nothing_outlives_a_worker_that_is_killed(shelf, start):
    worker = start("-Q", "killed", "-c", "2")
    pid = value(shelf.request.apply_async(queue="killed"))["pid"]
    worker.kill()
    deadline = time.monotonic() + SECONDS
    while is_alive(pid):
        assert time.monotonic() < deadline, "a child outlives its worker"
        time.sleep(0.01)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("app, reason", [
    ("nowhere", "The module nowhere was not found."),
    ("shelf.settings:nothing", "nothing"),
])
def test_an_app_that_cannot_be_loaded_is_told_of(server, app, reason):
    told = Celeriac("-A", app, "worker", env=environment(server))
    told.output.wait_for(f"Unable to load celery application.\n.*{reason}")
    told.stop()


def test_settings_are_told_as_the_project_has_them(shelf, worker):
    inspect = shelf.add.app.control.inspect(destination=[NODE], timeout=SECONDS)
    told = inspect.conf()[NODE]
    assert "shelf.tasks" in told["include"] and "worker_hijack_root_logger" not in told
    # One that only Python has a use for.
    assert inspect.conf(with_defaults=True)[NODE]["worker_hijack_root_logger"] is True


def test_without_an_app_there_is_celerys_default_one(server):
    told = Celeriac("worker", "-n", "default@test", "-l", "info", env={"CELERY_BROKER_URL": server.broker_url})
    told.output.wait_for(r"app: +default:", timeout=4 * SECONDS)
    told.output.wait_for(r"default@test ready\.")
    assert told.stop() == 0


def test_ctrl_c_ends_it_as_a_stock_worker(shelf, start):
    worker = start("-Q", "interrupted", "-c", "1")
    assert worker.stop(signal.SIGINT) == 1
    said = worker.output.whole()
    assert "worker: Warm shutdown (MainProcess)" in said and "Traceback" not in said


def test_a_warm_shutdown_finishes_what_runs(shelf, start):
    worker = start("-Q", "warm", "-c", "1")
    text = uuid.uuid4().hex
    task = shelf.sleep.apply_async((1, text), queue="warm")
    worker.output.wait_for(text)
    assert worker.stop() == 0
    assert value(task) == 1
