"""Many tasks held for their ETA, by workers that are killed."""

import json
import random
import re
import signal
import time
from datetime import datetime, timezone

import pytest

from faults import Lines, Messages, RustWorker, eventually, options

QUEUE = "held"
COUNT = 20_000


@pytest.fixture(scope="module")
def broker(each_broker):
    return each_broker


@pytest.fixture
def app(broker):
    broker.clear()
    return broker.application()


@pytest.fixture
def start(broker, tmp_path):
    workers = []

    def start(timeout, **settings):
        workers.append(RustWorker(broker, tmp_path, QUEUE, options(timeout), **settings))
        return workers[-1]

    yield start
    for worker in workers:
        if not worker.is_stopped:
            worker.kill()


def push(broker, messages, etas, *args):
    """One message for each ETA; the last argument is its number."""
    batch = []
    for nth, eta in enumerate(etas):
        envelope = json.loads(messages.message(QUEUE, *args, str(nth))[1])
        envelope["headers"]["eta"] = datetime.fromtimestamp(eta, timezone.utc).isoformat()
        batch.append(json.dumps(envelope))
    for at in range(0, len(batch), 1000):
        broker.push(QUEUE, *batch[at:at + 1000])


def test_none_runs_early_and_none_is_lost_though_workers_are_killed(broker, app, start, tmp_path):
    lines = Lines(tmp_path)
    worker = start(3)
    first = time.time() + 30
    etas = [first + random.random() * 5 for _ in range(COUNT)]
    push(broker, Messages(broker, app, "rust.append_late"), etas, str(lines.path))
    # All, unless the first is due before that: then most of them.
    held = 0

    def are_held():
        nonlocal held
        held = broker.held()
        return held == COUNT or time.time() > first

    eventually(are_held, lambda: broker.left(QUEUE))
    worker.kill()
    assert held > COUNT // 2
    worker, killed_again, read = start(3), False, 0
    while time.time() < first + 150:
        written = lines.all()
        # A line that is here now has been due before now.
        now = time.time()
        assert not [(line, etas[int(line)] - now) for line in written[read:] if etas[int(line)] > now]
        read = len(written)
        if read > 1000 and not killed_again:
            worker.kill()
            worker, killed_again = start(3), True
        if read >= COUNT and broker.left(QUEUE) == (0, 0, 0):
            break
    assert killed_again and broker.left(QUEUE) == (0, 0, 0)
    assert set(lines.all()) == {str(nth) for nth in range(COUNT)}
    # What ran while its worker was killed may have run twice: it is acknowledged late.
    assert len(lines.all()) <= COUNT + 1000
    assert worker.stop() == 0


@pytest.mark.only("redis", "RabbitMQ has no visibility timeout")
def test_what_is_held_runs_once_through_three_visibility_timeouts(broker, app, start, tmp_path):
    """Leases are renewed in pieces, while the worker holds more than one piece."""
    lines = Lines(tmp_path)
    # Short enough to wait for, and so long that a holder that stands still for three seconds loses nothing.
    timeout, due = 8, time.time() + 26
    push(broker, Messages(broker, app, "rust.append"), [due] * 5000, str(lines.path))
    holder, idle = start(timeout), start(timeout)
    lines.wait_for(5000)
    eventually(lambda: broker.left(QUEUE) == (0, 0, 0), lambda: broker.left(QUEUE))
    assert sorted(map(int, lines.all())) == list(range(5000))
    assert holder.stop() == 0 and idle.stop() == 0


def test_what_is_held_is_given_back_at_a_stop_and_can_be_revoked(broker, app, start, tmp_path):
    lines = Lines(tmp_path)
    push(broker, Messages(broker, app, "rust.append"), [time.time() + 3600] * 3000, str(lines.path))
    late = [envelope["headers"]["id"] for envelope in broker.waiting(QUEUE)[-2:]]
    worker = start(60)
    eventually(lambda: broker.held() == 3000, lambda: broker.left(QUEUE))
    app.control.revoke(late)
    eventually(lambda: broker.held() == 2998, lambda: broker.left(QUEUE))
    assert app.AsyncResult(late[0]).state == "REVOKED"
    worker.send(signal.SIGTERM)
    assert worker.ended() == 0
    assert re.search("Restoring 2998 unack", worker.output.text())
    # RabbitMQ puts them back in its own time.
    eventually(lambda: broker.left(QUEUE) == (0, 0, 2998), lambda: broker.left(QUEUE))
    given_back = broker.waiting(QUEUE)
    assert all(envelope["headers"]["eta"] for envelope in given_back)
    assert all(envelope["properties"]["delivery_info"]["redelivered"] for envelope in given_back)


def test_a_task_that_is_due_does_not_wait_for_all_that_is_queued(broker, app, start, tmp_path):
    """And the other way round: they take turns, however fast the machine is."""
    lines, messages = Lines(tmp_path), Messages(broker, app, "rust.append")
    # The backlog takes ten seconds at least, so that half of it waits when the others are due.
    push(broker, messages, [time.time() + 5] * 100, str(lines.path))
    worker = start(60, worker_concurrency=2)
    eventually(lambda: broker.held() == 100, lambda: broker.left(QUEUE))
    broker.push(QUEUE, *(messages.message(QUEUE, str(lines.path), "queued", 0.02)[1] for _ in range(1000)))
    lines.wait_for(1100)
    kinds = ["queued" if line == "queued" else "due" for line in lines.all()]
    first, last = kinds.index("due"), len(kinds) - 1 - kinds[::-1].index("due")
    turns = kinds[first:last].count("queued")
    assert 30 < turns < 300 and "queued" in kinds[last:], f"{turns} of the backlog ran between, from {first} to {last}"
    assert worker.stop() == 0
