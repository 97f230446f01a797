"""What a process of Python tasks owes the others: it ends when it has nothing more to say, and keeps no call to itself."""

import pathlib

import pytest
from billiard.exceptions import WorkerLostError
from celery.exceptions import TaskRevokedError

from faults import Lines, eventually
from test_prefork import error, shelf, start, value  # noqa: F401: fixtures are found by their names

pytestmark = pytest.mark.only("redis", "what happens between processes does not depend on the broker")


def is_there(pid):
    try:
        # One that has ended and is not waited for is gone, too.
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_process_that_hangs_when_it_ends_is_replaced(shelf, start):
    worker = start("-Q", "hangs", "-c", "1", "--max-tasks-per-child", "1", CELERY_SHELF_HANGING_PROCESSES=True)
    first, second = (value(shelf.place.apply_async(queue="hangs")) for _ in range(2))
    assert first[1] != second[1]
    worker.output.wait_for("ForkPoolWorker-1 has hung up and does not end within 5 s: it is killed")
    assert not is_there(first[1])


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_task_that_closes_the_line_is_lost_with_its_process(shelf, start, tmp_path, seconds):
    queue = f"closes-{seconds}"
    start("-Q", queue, "-c", "1", CELERY_IMPORTS=["shelf.trouble"])
    lines = Lines(tmp_path)
    task = shelf.add.app.send_task("shelf.trouble.close_all", (str(lines.path), seconds), queue=queue)
    error(task, WorkerLostError)
    [pid] = lines.all()
    eventually(lambda: not is_there(pid), lambda: pid)
    assert value(shelf.add.apply_async((1, 2), queue=queue)) == 3


def test_a_process_has_a_place_that_the_next_one_gets(shelf, start, tmp_path):
    start("-Q", "places", "-c", "2", "--max-tasks-per-child", "1")
    assert {value(shelf.place.apply_async(queue="places"))[0] for _ in range(8)} <= {1, 2}


def after_short_ones(shelf, queue, *then):
    """Sends short calls, so that more are expected and some may wait in a process, and then others; all are there before the
    worker begins. Returns the others, and the short ones."""
    short = [shelf.sleep.apply_async((0,), queue=queue) for _ in range(40)]
    return [task.apply_async(args, queue=queue) for task, *args in then], short


def test_nothing_waits_behind_a_long_call_while_a_process_is_idle(shelf, start, tmp_path):
    met = (shelf.meet, str(tmp_path), 0, 2)
    (long, *behind), short = after_short_ones(shelf, "long", *[met, *[(shelf.sleep, 0)] * 20])
    worker = start("-Q", "long", "-c", "2")
    assert [value(each) for each in [*short, *behind]] == [0] * 60
    assert not long.ready(), worker.output.text()
    (tmp_path / "1").touch()
    assert value(long) == 2


def test_what_is_revoked_while_it_waits_in_a_process_does_not_begin(shelf, start, tmp_path):
    path, folder = tmp_path / "begun", tmp_path / "met"
    folder.mkdir()
    (long, doomed, last), short = after_short_ones(
        shelf, "doomed", (shelf.meet, str(folder), 0, 2), (shelf.tidy, str(path), "it has begun"), (shelf.place,)
    )
    worker = start("-Q", "doomed", "-c", "1", "-l", "debug")
    assert [value(each) for each in short] == [0] * 40
    worker.output.wait_for(rf"Task accepted: .*{long.id}")
    shelf.add.app.control.revoke(doomed.id, terminate=True)
    error(doomed, TaskRevokedError)
    (folder / "1").touch()
    assert value(long) == 2
    value(last)
    assert not path.exists()
    told = worker.output.text()
    assert "it has begun" not in told and "exited with" not in told, told
