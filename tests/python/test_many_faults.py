"""A hundred thousand tasks on two workers, one of which is killed every two seconds.

How often tasks ran is printed: `pytest -rP tests/python/test_many_faults.py`.
"""

import collections
import random
import threading
import time

from faults import Broker, Lines, Messages, RustWorker, eventually, options

SEED = 20261123
COUNT = 100_000
VISIBILITY_TIMEOUT = 3
EVERY = 2


def fill(broker, messages, path):
    for start in range(0, COUNT, 1000):
        numbers = range(start, start + 1000)
        broker.client.lpush("load", *(messages.message("load", path, str(n))[1] for n in numbers))


def test_a_hundred_thousand_late_tasks_survive_a_kill_every_two_seconds(tmp_path):
    broker, lines, rng = Broker(tmp_path), Lines(tmp_path), random.Random(SEED)

    def start():
        return RustWorker(broker, tmp_path, "load", options(VISIBILITY_TIMEOUT), "-c", "50")

    messages = Messages(broker, broker.application(), "rust.append_late")
    workers = [start(), start()]
    sender = threading.Thread(target=fill, args=(broker, messages, str(lines.path)), daemon=True)
    begun, kills = time.monotonic(), 0
    sender.start()
    while sender.is_alive() or broker.left("load") != (0, 0, 0):
        assert time.monotonic() - begun < 300, f"left: {broker.left('load')}, lines: {lines.count()}"
        sender.join(EVERY)  # Not to wait for anything: these are the faults.
        time.sleep(max(0, begun + EVERY * (kills + 1) - time.monotonic()))
        victim = rng.randrange(2)
        workers[victim].kill()
        workers[victim] = start()
        kills += 1
    eventually(lambda: broker.left("load") == (0, 0, 0), lambda: f"left: {broker.left('load')}")
    took = time.monotonic() - begun
    runs = collections.Counter(collections.Counter(lines.all()).values())
    print(f"{COUNT} tasks in {took:.0f} s, {kills} kills; times that tasks ran: {dict(sorted(runs.items()))}")
    assert sum(runs.values()) == COUNT and set(map(int, lines.all())) == set(range(COUNT))
    assert kills >= 3, "too fast to prove anything"
    for worker in workers:
        assert worker.stop() == 0, worker.output.text()
    broker.process.kill()
