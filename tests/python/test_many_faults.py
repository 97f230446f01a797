"""Many tasks on two workers, one of which is killed every two seconds; on RabbitMQ the node is killed five times too.

How often tasks ran is printed: `pytest -rP tests/python/test_many_faults.py`.
"""

import collections
import random
import threading
import time

import pytest

from faults import Lines, Messages, RustWorker, eventually, options

SEED = 20261123
COUNT = 100_000
VISIBILITY_TIMEOUT = 3
EVERY = 2
RESTARTS = 5
DEADLINE = 600


@pytest.fixture
def broker(new_broker, tmp_path):
    broker = new_broker(tmp_path, durable=new_broker.kind == "rabbitmq")
    yield broker
    broker.close()


def fill(broker, messages, path, count):
    send = broker.push if broker.kind == "redis" else broker.vhost.send
    for start in range(0, count, 1000):
        numbers = range(start, start + 1000)
        send("load", *(messages.message("load", path, str(n))[1] for n in numbers))


class Fleet:
    """Two workers."""

    def __init__(self, start):
        self._start, self._rng, self.kills = start, random.Random(SEED), 0
        self.workers = [start(), start()]

    def kill_one(self, meanwhile=lambda: None):
        """Kills one of them, and starts another."""
        victim = self._rng.randrange(len(self.workers))
        self.workers[victim].kill()
        meanwhile()
        self.workers[victim] = self._start()
        self.kills += 1


def restart(broker):
    """As if the machine had failed."""
    broker.node.kill()
    broker.vhost.disconnect()
    broker.start()


@pytest.mark.parametrize("queue_type", [
    "classic", pytest.param("quorum", marks=pytest.mark.only("rabbitmq", "Redis has one type of queues")),
])
def test_a_hundred_thousand_late_tasks_survive_a_kill_every_two_seconds(broker, queue_type, tmp_path):
    lines, settings = Lines(tmp_path), {"task_create_missing_queue_type": queue_type}

    def start():
        return RustWorker(broker, tmp_path, "load", options(VISIBILITY_TIMEOUT), "-c", "50", **settings)

    messages = Messages(broker, broker.application(), "rust.append_late")
    fleet, restarts = Fleet(start), 0
    if broker.kind == "rabbitmq":
        restarts = RESTARTS
        # Refused if they have declared another.
        broker.vhost.channel().queue_declare("load", durable=True, auto_delete=False,
                                             arguments={"x-queue-type": queue_type})
    sender = threading.Thread(target=fill, args=(broker, messages, str(lines.path), COUNT), daemon=True)
    begun, times = time.monotonic(), 0
    sender.start()
    while sender.is_alive() or broker.left("load") != (0, 0, 0):
        assert time.monotonic() - begun < DEADLINE, f"left: {broker.left('load')}, lines: {lines.count()}"
        sender.join(EVERY)  # Not to wait for anything: these are the faults.
        time.sleep(max(0, begun + EVERY * (fleet.kills + 1) - time.monotonic()))
        is_time = times < restarts and lines.count() >= COUNT * (times + 1) // (restarts + 1)
        times += is_time
        fleet.kill_one(*([lambda: restart(broker)] if is_time else []))
    eventually(lambda: broker.left("load") == (0, 0, 0), lambda: f"left: {broker.left('load')}")
    took = time.monotonic() - begun
    runs = collections.Counter(collections.Counter(lines.all()).values())
    print(f"{COUNT} tasks in {took:.0f} s, {fleet.kills} kills, {times} restarts of the node; "
          f"times that tasks ran: {dict(sorted(runs.items()))}")
    assert sum(runs.values()) == COUNT and set(map(int, lines.all())) == set(range(COUNT))
    assert fleet.kills >= 3 and times == restarts, "too fast to prove anything"
    for worker in fleet.workers:
        assert worker.stop() == 0, worker.output.text()
