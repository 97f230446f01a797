"""The pools `threads` and `solo`, which run Python tasks in the worker's own process; pools that are not there; and which
settings are not honoured."""

import uuid

import pytest

from support import SECONDS
from test_prefork import Celeriac, environment, error, shelf, start, value  # noqa: F401: fixtures are found by their names

pytestmark = pytest.mark.only("redis", "results are handed to the worker for Redis alone")


@pytest.fixture(scope="module")
def threads(shelf, start):
    return start("-Q", "threads", "-P", "threads", "-c", "3", "-n", "threads@test")


def test_threads_run_at_once_in_one_process(shelf, threads, tmp_path):
    meeting = [shelf.meet.apply_async((str(tmp_path), number, 3), queue="threads") for number in range(3)]
    assert [value(one) for one in meeting] == [3, 3, 3]
    request = value(shelf.request.apply_async(queue="threads"))
    assert (request["pid"], request["hostname"]) == (threads.pid, "threads@test")
    error(shelf.fail.apply_async(("bad",), queue="threads"), shelf.Misplaced)
    assert value(shelf.query.apply_async(queue="threads")) == [42, ["shelf"]]
    text = uuid.uuid4().hex
    value(shelf.shout.apply_async((text,), queue="threads"))
    threads.output.wait_for(f"WARNING/MainProcess] {text}")


def test_nobody_ends_a_thread(shelf, threads):
    text = uuid.uuid4().hex
    task = shelf.sleep.apply_async((1, text), queue="threads", soft_time_limit=0.1, time_limit=0.2)
    threads.output.wait_for(text)
    shelf.add.app.control.revoke(task.id, terminate=True)
    threads.output.wait_for("does not implement kill_job")
    assert value(task) == 1


def test_solo_runs_one_at_a_time_and_is_not_deaf(shelf, start, tmp_path):
    worker = start("-Q", "solo", "-P", "solo", "-c", "4", "-n", "solo@test", "-l", "debug")
    worker.output.wait_for(f"heard worker_process_init of solo@test in {worker.pid}")
    first = shelf.meet.apply_async((str(tmp_path), 0, 2), queue="solo")
    second = shelf.request.apply_async(queue="solo")
    worker.output.wait_for(rf"Task accepted: .*{first.id}")
    worker.output.wait_for(rf"{second.id}\] received")
    # The one that runs ends when this is answered.
    assert shelf.add.app.control.ping(destination=["solo@test"], timeout=SECONDS, limit=1) == [{"solo@test": {"ok": "pong"}}]
    assert not second.ready()
    (tmp_path / "1").touch()
    assert (value(first), value(second)["pid"]) == (2, worker.pid)


@pytest.mark.parametrize("side", ["threads", "solo", "prefork"])
def test_no_task_waits_for_another(shelf, start, side):
    start("-Q", f"no-{side}", "-P", side, "-c", "1", "-n", f"no-{side}@test")
    said = error(shelf.waits_for_another.apply_async(queue=f"no-{side}"), RuntimeError)
    assert "Never call result.get() within a task" in str(said)


def test_a_cold_shutdown_does_not_wait_for_a_thread(shelf, server, start):
    worker = start("-Q", "left", "-P", "threads", "-c", "1")
    text = uuid.uuid4().hex
    shelf.sleep.apply_async((600, text), queue="left")
    worker.output.wait_for(text)
    worker._process.send_signal(3)
    worker.is_stopped = True
    assert worker._process.wait(SECONDS) == 0, worker.output.text()


@pytest.mark.parametrize("pool, said", [
    ("gevent", "the pool gevent is not there: use threads, or async def tasks in prefork"),
    ("eventlet", "the pool eventlet is not there: use threads, or async def tasks in prefork"),
    ("mine", "the pool mine is not there: use prefork, threads or solo"),
])
def test_a_pool_that_is_not_there_is_refused(server, pool, said):
    for options, settings in [(["-P", pool], {}), ([], {"CELERY_WORKER_POOL": pool})]:
        refused = Celeriac("-A", "shelf", "worker", *options, env=environment(server, **settings))
        refused.is_stopped = True
        assert refused._process.wait(SECONDS) == 2
        assert refused.output.whole() == f"Error: {said}\n"


def check(server, **settings):
    checked = Celeriac("-A", "shelf", "config", "check", env=environment(server, **settings))
    checked.is_stopped = True
    code = checked._process.wait(SECONDS)
    return code, checked.output.whole()


def test_settings_that_are_not_honoured_are_named(server):
    assert check(server) == (0, "All settings are honoured.\n")
    code, said = check(
        server, CELERY_WORKER_AUTOSCALER="shelf:Autoscaler", CELERY_WORKER_PROC_ALIVE_TIMEOUT=9,
        CELERY_WORKER_DIRECT=True, CELERY_BROKER_TRANSPORT_OPTIONS={"max_connections": 3},
    )
    assert (code, said.splitlines()) == (1, [
        "broker_transport_options.max_connections: not supported yet",
        "worker_autoscaler: a part of Celery's own worker, which does not run here",
        "worker_direct: not supported yet",
    ])


def test_settings_that_celery_does_not_have_are_read_from_the_project_too(server):
    assert check(server, CELERY_DEAD_LETTER_QUEUE="dead", CELERY_WORKER_HTTP="127.0.0.1:9809")[0] == 0
    code, said = check(server, CELERY_UNKNOWN_TASKS="nonsense")
    assert code == 1 and said.startswith("Error: ") and "unknown_tasks" in said, said
