"""``worker -B``: who ends its beat, what holds it, and what the worker does then."""

import os
import signal
import time

import pytest
from celery import Celery

from faults import eventually
from test_beat import FILE, children, is_alive, note, project  # noqa: F401

pytestmark = pytest.mark.only("redis", "beat sends over whatever Celery has, and who runs it is tested elsewhere")
#: For how many seconds a worker waits at its end for a beat that hangs: less is no waiting.
HANGING = 10
ENDED = r"Its keeper, the process {}, ended though nobody stopped it \(signal 9 \(SIGKILL\)\), and the beat with it: nothing"


@pytest.fixture
def given(project, tmp_path):  # noqa: F811
    """A project with one task a second; what its processes have forked ends with the test."""
    forked = tmp_path / "forked"
    yield project(tick=note("second", "tick")).with_(BEATEN_FORKED=str(forked))
    for pid in forked.read_text().split() if forked.exists() else ():
        os.kill(int(pid), signal.SIGKILL)


def worker_of(given, *options):
    worker = given.worker("-B", "-s", str(given.folder / FILE), *options)
    worker.output.wait_for("Sending due task tick")
    return worker


def pair(worker, is_other=False):
    """The keeper and the beat: the first that the worker forked, or that it has started as a program since."""
    found = []

    def look():
        keepers = started(worker) if is_other else children(worker.pid)[:1]
        found[:] = [(keeper, beat) for keeper in keepers for beat in children(keeper)]
        return found

    eventually(look, "there is a keeper, and its beat")
    return found[0]


def started(worker):
    """Keepers that are programs of their own; any thread of the worker may have started them."""
    threads = os.listdir(f"/proc/{worker.pid}/task")
    return [pid for thread in threads for pid in told(worker.pid, thread) if b"celeriac.embedded" in command(pid)]


def told(pid, thread):
    try:
        return [int(child) for child in open(f"/proc/{pid}/task/{thread}/children").read().split()]
    except FileNotFoundError:
        return []


def command(pid):
    try:
        return open(f"/proc/{pid}/cmdline", "rb").read()
    except FileNotFoundError:
        return b""


def kill_pair(worker, is_other=False):
    """Kills both, the keeper first; returns where the output ended then, and the keeper."""
    keeper, beat = pair(worker, is_other)
    since = worker.output.mark()
    os.kill(keeper, signal.SIGKILL)
    os.kill(beat, signal.SIGKILL)
    return since, keeper


def stop_at_once(worker):
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < HANGING


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_keeper_that_is_killed_with_its_beat_is_followed_by_another(given, pool):
    """And that again, by one that was started as a program."""
    worker = worker_of(given, "-P", pool)
    for is_other, pause in enumerate(("1.00 second", "2.00 seconds")):
        since, keeper = kill_pair(worker, is_other)
        ended = f"{ENDED.format(keeper)} periodic is sent until others begin in {pause}"
        worker.output.wait_for(rf"(?s){ended}.*signal beat_embedded_init.*Sending due task tick", since=since)
    keeper, beat = pair(worker, is_other=True)
    stop_at_once(worker)
    assert not is_alive(keeper) and not is_alive(beat)
    assert len({run["id"] for run in given.noted()}) == len(given.noted()) <= given.kept()["tick"]["total_run_count"]


def test_a_worker_that_ends_waits_for_no_keeper_that_imports_the_project(given, tmp_path):
    held = tmp_path / "held"
    worker = worker_of(given.with_(BEATEN_HELD=str(held), BEATEN_FORKED=str(tmp_path / "forked")))
    held.touch()
    since, keeper = kill_pair(worker)
    worker.output.wait_for(ENDED.format(keeper), since=since)
    (other,) = eventually(lambda: started(worker), "another keeper is started")
    stop_at_once(worker)
    assert not is_alive(other)


def test_a_signal_that_ends_the_keeper_alone_is_told_and_no_other_begins(given):
    worker = worker_of(given)
    keeper, beat = pair(worker)
    os.kill(keeper, signal.SIGTERM)
    worker.output.wait_for("beat: a signal has ended it. The worker sends nothing periodic any more")
    # The worker has taken note of it.
    eventually(lambda: not os.path.exists(f"/proc/{keeper}"), "the keeper is waited for")
    assert not is_alive(beat)
    stop_at_once(worker)
    assert "Its keeper" not in worker.output.text()


@pytest.mark.parametrize(("pool", "is_other"), [("prefork", False), ("threads", True)])
def test_what_a_task_has_forked_keeps_no_beat(given, pool, is_other):
    """Not when the worker is killed, and no beat that began later either."""
    worker = worker_of(given, "-P", pool)
    if is_other:
        since, _ = kill_pair(worker)
        worker.output.wait_for("Sending due task tick", since=since)
    Celery(broker=given.server.broker_url).send_task("beaten.fork", queue=given.queue)
    forked = given.folder / "forked"
    eventually(lambda: forked.exists() and forked.read_text(), "the task has forked")
    _, beat = pair(worker, is_other)
    worker.kill()
    eventually(lambda: not is_alive(beat), "the beat is gone")
    assert is_alive(int(forked.read_text()))


def test_the_end_of_a_worker_waits_for_nothing_that_only_holds_the_line(given):
    """A process that was forked by no Python."""
    bare = given.with_(BEATEN_FORKS_BARE="1")
    worker = worker_of(bare)
    assert is_alive(int((given.folder / "forked").read_text()))
    stop_at_once(worker)
