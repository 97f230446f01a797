"""How the processes of Python tasks live and end: limits of a child, the process that forks them."""

import os
import pathlib
import resource
import signal
import uuid

import pytest
from billiard.exceptions import TimeLimitExceeded
from celery.exceptions import TaskRevokedError

from faults import eventually
from support import SECONDS
from test_prefork import error, shelf, start, value  # noqa: F401: fixtures are found by their names

pytestmark = pytest.mark.only("redis", "results are handed to the worker for Redis alone")


LARGE = 64 << 20  # Bytes.


def pid_of(task):
    return value(task)["pid"]


def test_a_process_that_needs_too_much_memory_is_replaced(shelf, start, monkeypatch):
    monkeypatch.setenv("MP_LOG", "1")
    worker = start("-Q", "large", "-c", "1", "--max-memory-per-child", "1000")
    pids = [pid_of(shelf.request.apply_async(queue="large")) for _ in range(3)]
    assert len(set(pids)) == 3, pids
    worker.output.wait_for(r"child process exiting after exceeding memory limit \(\d+KiB / 1000KiB\)")
    worker.output.wait_for(f"heard worker_process_shutdown of {pids[0]}: 155")
    assert "exited with" not in worker.output.text()


def test_the_limit_of_memory_is_a_setting_too(shelf, start):
    start("-Q", "ample", "-c", "1", CELERY_WORKER_MAX_MEMORY_PER_CHILD=100_000_000)
    pids = {pid_of(shelf.request.apply_async(queue="ample")) for _ in range(3)}
    assert len(pids) == 1


def test_modules_are_included(shelf, start):
    start("-Q", "more", "-c", "1", "-I", "shelf.more")
    assert value(shelf.add.app.send_task("shelf.more.double", (4,), queue="more")) == 8


def test_a_process_that_does_not_come_up_is_killed(shelf, start):
    worker = start("-Q", "slow", "-c", "1", CELERY_WORKER_PROC_ALIVE_TIMEOUT=0.5, CELERY_SHELF_SLOW_PROCESSES=True)
    worker.output.wait_for(r"Timed out waiting for UP message from <ForkProcess\(ForkPoolWorker-1, started daemon\)>")
    worker.output.wait_for(r"Process 'ForkPoolWorker-1' pid:\d+ exited with 'signal 9 \(SIGKILL\)'")


@pytest.mark.parametrize("limit", [None, 2])
def test_a_task_that_is_ended_by_a_signal_tidies_up(shelf, start, tmp_path, limit):
    queue = f"tidy-{limit}"
    worker = start("-Q", queue, "-c", "1")
    # What its limit ends has a tenth of a second for that, which a busy machine may give to others.
    for _ in range(5 if limit else 1):
        text = uuid.uuid4().hex
        task = shelf.tidy.apply_async((str(tmp_path / "left"), text), queue=queue, time_limit=limit)
        worker.output.wait_for(text)
        if limit is None:
            shelf.add.app.control.revoke(task.id, terminate=True)
        error(task, TimeLimitExceeded if limit else TaskRevokedError)
        if (tmp_path / "left").exists():
            break
    assert (tmp_path / "left").exists()


def the_nursery(worker):
    """The one process that the worker has forked itself."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    [nursery] = parents[worker.pid]
    return nursery


@pytest.mark.parametrize("limit, said", [(4, r"Soft time limit \(4s\) exceeded"), (None, "Terminating")])
def test_a_signal_that_comes_late_comes_to_no_other_task(shelf, start, tmp_path, limit, said):
    queue = f"tardy-{limit}"
    worker = start("-Q", queue, "-c", "1", "-l", "debug")
    running = shelf.meet.apply_async((str(tmp_path), 0, 2), queue=queue, soft_time_limit=limit)
    worker.output.wait_for(rf"Task accepted: .*{running.id}")
    # Who sends signals is held up, until the task that this one is for has ended and another one could begin.
    nursery = the_nursery(worker)
    os.kill(nursery, signal.SIGSTOP)
    try:
        if limit is None:
            shelf.add.app.control.revoke(running.id, terminate=True)
        worker.output.wait_for(rf"{said}.*{running.id}")
        (tmp_path / "1").touch()
        worker.output.wait_for(rf"{running.id}\] succeeded")
        other = shelf.progresses.apply_async((str(tmp_path / "seen"),), queue=queue)
        worker.output.wait_for(rf"{other.id}\] received")
        with pytest.raises(AssertionError):
            eventually(lambda: other.state == "PROGRESS", "the other task to begin", timeout=0.5)
    finally:
        os.kill(nursery, signal.SIGCONT)
    eventually(lambda: other.state == "PROGRESS", "the other task to begin")
    (tmp_path / "seen").touch()
    assert value(other) is True


def resident(pid):
    """How many bytes of memory a process has."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_what_a_large_task_has_needed_is_given_back(shelf, start):
    start("-Q", "huge", "-c", "1")
    pid = pid_of(shelf.request.apply_async(queue="huge"))
    before = resident(pid)
    text = "x" * LARGE
    assert value(shelf.add.apply_async((text, ""), queue="huge")) == text
    # No other task is needed for that.
    eventually(lambda: resident(pid) - before < LARGE // 4, lambda: resident(pid) - before, timeout=SECONDS)


def exit_code(worker):
    worker.is_stopped = True
    return worker._process.wait(2 * SECONDS)


def begun(shelf, queue, worker, task, *args):
    """A task that runs, and two that the worker holds meanwhile."""
    running = task.apply_async(args, queue=queue)
    worker.output.wait_for(rf"Task accepted: .*{running.id}")
    waiting = [shelf.add.apply_async((number, 1), queue=queue) for number in range(2)]
    for other in waiting:
        worker.output.wait_for(rf"{other.id}\] received")
    return running, waiting


def test_a_worker_whose_nursery_is_killed_gives_back_what_waits_and_ends(shelf, server, start):
    worker = start("-Q", "orphaned", "-c", "1", "-l", "debug")
    running, waiting = begun(shelf, "orphaned", worker, shelf.sleep, 60, uuid.uuid4().hex)
    os.kill(the_nursery(worker), signal.SIGKILL)
    assert exit_code(worker) == 1, worker.output.text()
    worker.output.wait_for("Unrecoverable error: the process that forks the others is gone")
    assert "WorkerLostError" in worker.output.text()
    assert server.held() == 0
    start("-Q", "orphaned", "-c", "1")
    assert [value(other) for other in waiting] == [1, 2]


def test_a_worker_whose_nursery_is_stuck_lets_tasks_end_and_ends(shelf, server, start, tmp_path):
    worker = start("-Q", "stuck", "-c", "1", "-l", "debug")
    running, waiting = begun(shelf, "stuck", worker, shelf.meet, str(tmp_path), 0, 2)
    os.kill(the_nursery(worker), signal.SIGSTOP)
    worker.output.wait_for("the process that forks the others has not answered for 10 s", timeout=2 * SECONDS)
    (tmp_path / "1").touch()
    assert value(running) == 2
    assert exit_code(worker) == 1, worker.output.text()
    worker.output.wait_for("Unrecoverable error: the process that forks the others does not answer")
    assert server.held() == 0
    start("-Q", "stuck", "-c", "1")
    assert [value(other) for other in waiting] == [1, 2]
