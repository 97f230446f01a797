"""A chord of a thousand members, spread over three kinds of workers, one of which is killed three times: twenty times.

What it took is printed: `pytest -rP tests/python/test_chord_faults.py`.
"""

import random
import time

import pytest
from celery import chord

import faults

SEED = 20261124
ROUNDS, MEMBERS, KILLS = 20, 1000, 3
# So long that our third of the members takes two seconds: they must not be done before the first kill.
PAUSE = 0.06
QUEUES = ["by-5.7", "by-5.5", "by-ours"]
# Longer than a claim of a chord by a worker that dies with it, which is five seconds.
OPTIONS = faults.options(2)


@pytest.fixture
def broker(tmp_path):
    broker = faults.Broker(tmp_path)
    yield broker
    broker.process.kill()


def test_a_thousand_members_and_three_kills_twenty_times(broker, tmp_path):
    app, rng = broker.application(**OPTIONS), random.Random(SEED)

    def start_ours():
        return faults.RustWorker(broker, tmp_path, "by-ours", OPTIONS, "-c", "10")

    def stock(queue, **how):
        return faults.StockWorker(broker, queue, OPTIONS, "-P", "threads", "-c", "4", task_track_started=False, **how)

    others = [stock("by-5.7"), stock("by-5.5", python=faults.PYTHON_5_5)]
    ours, took, lines, hit = start_ours(), [], faults.Lines(tmp_path), 0
    for number in range(ROUNDS):
        begun = time.monotonic()
        header = [
            app.signature("rust.add_late", (n, number, PAUSE if queue == "by-ours" else 0)).set(queue=queue)
            for n, queue in zip(range(MEMBERS), QUEUES * MEMBERS)
        ]
        body = app.signature("rust.append_late", (str(lines.path), str(number)), immutable=True).set(queue="by-5.7")
        check = app.signature("rust.xsum").set(queue=rng.choice(QUEUES), link=[body])
        result = chord(header)(check)
        parts = f"celery-taskset-meta-{result.parent.id}.j"
        results = app.backend.client
        for at in sorted(rng.sample(range(MEMBERS // 20, MEMBERS * 2 // 3), KILLS)):
            # Whoever gets no time to look finds it done, and its parts gone.
            there = lambda: results.zcard(parts) >= at  # noqa: E731
            faults.eventually(lambda: there() or result.ready(), lambda: f"{results.zcard(parts)} of {at} parts")
            hit += not result.ready()
            ours.kill()
            ours = start_ours()
        assert result.get(timeout=faults.DEADLINE) == sum(range(MEMBERS)) + MEMBERS * number
        left = lambda: (*broker.left(*QUEUES), lines.count())  # noqa: E731
        faults.eventually(lambda: not any(broker.left(*QUEUES)), lambda: f"left: {left()}")
        assert lines.all() == [f"{round} by stock" for round in range(number + 1)], "the body ran, and once"
        assert not results.exists(parts), "nothing is left of the chord"
        took.append(time.monotonic() - begun)
    assert hit > ROUNDS * KILLS // 2, "most of the kills are in the midst of a chord"
    print(f"{ROUNDS} chords of {MEMBERS}, {ROUNDS * KILLS} kills: the body ran once each; {', '.join(f'{s:.1f}' for s in took)} s")
    for worker in [*others, ours]:
        assert worker.stop() == 0, worker.output.text()
