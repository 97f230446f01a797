"""A message that kills its worker, with `worker_lost_limit`, beside others that do not."""

import signal

import pytest
from celery import chord
from celery.exceptions import ChordError

from faults import Lines, Messages, RustWorker, eventually, options, supervise
from support import DEAD_LETTERS

QUEUE = "poisoned"
TIMEOUT = 1.5  # Of visibility: what a killed worker held is back within it.


@pytest.fixture(scope="module")
def broker(each_broker):
    return each_broker


@pytest.fixture
def app(broker):
    if broker.kind == "rabbitmq":
        eventually(lambda: broker.held() == 0, "what the last killed worker held is back")
    broker.clear()
    return broker.application()


@pytest.fixture
def start(broker, tmp_path):
    workers = []

    def start(limit, queue=QUEUE, **settings):
        if limit:
            settings["worker_lost_limit"] = limit
        workers.append(RustWorker(broker, tmp_path, queue, options(TIMEOUT), **settings))
        return workers[-1]

    yield start
    for worker in workers:
        if not worker.is_stopped:
            worker.kill()


def poison(broker, app, pause=0, queue=QUEUE):
    return Messages(broker, app, "rust.abort").message(queue, pause)


def records(broker):
    """The names of those that say something."""
    if broker.kind == "redis":
        return [key.decode() for key in broker.client.keys("celeriac.notes.*")]
    return [name for name, depth in broker.vhost.depths().items() if name.startswith("celeriac.notes.") and any(depth)]


def told(broker):
    """What they say, where that can be read from outside."""
    return {name: broker.client.dump(name) if broker.kind == "redis" else None for name in records(broker)}


def check_records(broker, *given_up):
    """What was given up has no record any more. One that was settled just before its worker died may have, for a while."""
    left = records(broker)
    assert not [key for key in left for task_id in given_up if task_id in key]
    # Queues are declared so that they expire: a test of the transport's own sees to that.
    assert broker.kind != "redis" or all(broker.client.ttl(key) > 0 for key in left)


def check_given_up(broker, app, task_id, deaths):
    error = app.AsyncResult(task_id).result
    assert type(error).__name__ == "WorkerLostError" and f"{deaths} workers" in str(error)
    (letter,) = broker.waiting(DEAD_LETTERS)
    assert letter["headers"]["id"] == task_id and "killed its worker" in letter["headers"]["x-celeriac-death"]["reason"]


@pytest.mark.parametrize("queue_type", [
    "classic", pytest.param("quorum", marks=pytest.mark.only("rabbitmq", "Redis has one type of queues")),
])
def test_one_poison_among_ten_thousand_good_ones(broker, app, start, queue_type, tmp_path):
    queue = f"{QUEUE}.{queue_type}"
    lines, messages = Lines(tmp_path), Messages(broker, app, "rust.append_late")
    good = [messages.message(queue, str(lines.path), str(nth))[1] for nth in range(10_000)]
    task_id, bad = poison(broker, app, 0.2, queue)
    batch = [*good[:700], bad, *good[700:]]
    if broker.kind == "rabbitmq":
        broker.vhost.declare(queue, **{"x-queue-type": queue_type})
    for at in range(0, len(batch), 1000):
        broker.push(queue, *batch[at:at + 1000])

    def done():
        lines.wait_for(0)
        return broker.left(queue, DEAD_LETTERS) == (0, 0, 0, 1)

    assert supervise(lambda: start(3, queue, task_create_missing_queue_type=queue_type), done) == 3
    assert set(lines.all()) == {str(nth) for nth in range(10_000)}
    check_given_up(broker, app, task_id, 3)
    check_records(broker, task_id)


def test_several_poisons_and_their_slow_neighbours(broker, app, start, tmp_path):
    """Each kills as often as it may; no neighbour is taken for one of them, though they run while others kill."""
    lines, messages = Lines(tmp_path), Messages(broker, app, "rust.append_late")
    good = [messages.message(QUEUE, str(lines.path), str(nth), 0.3)[1] for nth in range(40)]
    bad = [poison(broker, app, 0.3 + 0.1 * nth) for nth in range(3)]
    for nth, (_, message) in enumerate(bad):
        good.insert(nth * 15, message)
    broker.push(QUEUE, *good)
    deaths = supervise(lambda: start(3), lambda: broker.left(QUEUE, DEAD_LETTERS) == (0, 0, 0, 3))
    assert 3 <= deaths <= 9
    assert set(lines.all()) == {str(nth) for nth in range(40)}
    letters = [letter["headers"]["id"] for letter in broker.waiting(DEAD_LETTERS)]
    assert sorted(letters) == sorted(task_id for task_id, _ in bad)
    check_records(broker, *letters)


def test_what_kills_late_is_found_too(broker, app, start):
    """It dies of what it does after it was alone for a second: the next time it is alone for longer."""
    task_id, bad = poison(broker, app, 2.5)
    broker.push(QUEUE, bad)
    deaths = supervise(lambda: start(2), lambda: broker.left(QUEUE, DEAD_LETTERS) == (0, 0, 0, 1))
    check_given_up(broker, app, task_id, deaths)
    assert deaths == 3  # In the second run it was no longer alone.


def test_a_killed_worker_is_one_death_and_a_stopped_one_is_none(broker, app, start, tmp_path):
    lines, messages = Lines(tmp_path), Messages(broker, app, "rust.append_late")
    broker.push(QUEUE, messages.message(QUEUE, str(lines.path), "slow", 3)[1])
    for stop in ["kill", "kill", "cold", "cold", "cold"]:
        before = told(broker)
        worker = start(4)
        worker.output.wait_for("received", timeout=60)
        if stop == "kill":
            worker.kill()
        else:
            worker.send(signal.SIGQUIT)
            worker.ended()
            # What was stopped before it had begun has the deaths of before, and what had begun has none.
            assert told(broker) in ({}, before)
    worker = start(4)
    lines.wait_for(1)
    eventually(lambda: broker.left(QUEUE, DEAD_LETTERS) == (0, 0, 0, 0), lambda: broker.left(QUEUE))
    assert worker.stop() == 0
    assert records(broker) == []


def test_its_chord_is_told(broker, app, start):
    sign = lambda name, *args: app.signature(f"rust.{name}", args, queue=QUEUE)
    task_id = chord([sign("add", 1, 1), sign("abort", 0.5), sign("add", 2, 2)], app=app)(sign("identity")).id
    supervise(lambda: start(2), lambda: broker.left(QUEUE, DEAD_LETTERS) == (0, 0, 0, 1))
    body = app.AsyncResult(task_id)
    eventually(body.ready, "the chord's body has failed")
    assert type(body.result) is ChordError and "WorkerLostError" in str(body.result)


def test_without_a_limit_nothing_is_counted(broker, app, start):
    broker.push(QUEUE, poison(broker, app, 0.5)[1])
    for _ in range(4):
        worker = start(None)
        worker.ended()
        assert records(broker) == []
    assert broker.left(DEAD_LETTERS)[2] == 0
