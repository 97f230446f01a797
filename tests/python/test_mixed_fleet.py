"""Canvases whose tasks take turns between stock workers of Celery 5.7 and 5.5 and ours; and on one queue for all."""

import celery
import pytest
from celery import Celery

import faults
from canvas import Canvas
from canvas_cases import CASES, FROM_NEWER_CLIENTS, SINCE_5_7

QUEUES = {"stock": "by-5.7", "older": "by-5.5", "ours": "by-ours"}
ALL = [*QUEUES.values(), "by-any"]
# Which queue the first task goes to, which the second, and so on. The fleet without ours says what is to be expected.
TURNS = {
    "both stock workers": ["by-5.7", "by-5.5"],
    "all three": ["by-ours", "by-5.7", "by-ours", "by-5.5"],
    "one queue": ["by-any"],
}
LEFT_OUT = SINCE_5_7 | (FROM_NEWER_CLIENTS if celery.VERSION < (5, 4) else set())
SETTINGS = {"task_acks_late": True, "task_track_started": False, "task_default_queue": "by-any"}


class Fleet:
    """The three kinds of workers on one broker; each starts when it is needed."""

    def __init__(self, folder, broker):
        self.folder, self.broker, self.workers = folder, broker, {}
        self.app = Celery("fleet", broker=self.broker.url, backend=self.broker.result_url, set_as_current=False)
        # What is sent without a queue: the tasks that Celery itself adds to a canvas.
        self.app.conf.task_default_queue = "by-any"

    def needs(self, *kinds):
        for kind in kinds:
            if kind not in self.workers:
                self.workers[kind] = self._start(kind)

    def _start(self, kind):
        queues, options = f"{QUEUES[kind]},by-any", faults.options(3600)
        if kind == "ours":
            return faults.RustWorker(self.broker, self.folder, queues, options, **SETTINGS)
        python = {"python": faults.PYTHON_5_5} if kind == "older" else {}
        return faults.StockWorker(self.broker, queues, options, "-P", "prefork", "-c", "2", **python, **SETTINGS)

    def stop(self):
        try:
            for worker in self.workers.values():
                assert worker.stop() == 0, worker.output.text()
        finally:
            faults.end(self.broker, self.app)


@pytest.fixture(scope="module")
def fleets(tmp_path_factory, new_broker):
    """One without our worker, and one with it: on the queue for all it would run what stock workers are to show."""
    started = {}

    def fleet(with_ours):
        if with_ours not in started:
            folder = tmp_path_factory.mktemp("fleet")
            started[with_ours] = Fleet(folder, new_broker(folder))
            started[with_ours].needs("stock", "older", *(["ours"] if with_ours else []))
        return started[with_ours]

    yield fleet
    for one in started.values():
        one.stop()


# A fleet of minutes: what canvases do where all kinds of workers take turns is asked of both brokers, the rest of Redis,
# where what the stock workers do alone says what is to be expected.
ON_REDIS = pytest.mark.only("redis", "the same workers and canvases, and no other messages than where all take turns")


@pytest.mark.parametrize("turns", [
    pytest.param(turns, marks=[ON_REDIS] if turns != "all three" else []) for turns in TURNS
])
@pytest.mark.parametrize("name", [name for name in CASES if name not in LEFT_OUT])
def test_canvases_of_a_mixed_fleet(fleets, turns, name):
    fleet = fleets(turns != "both stock workers")
    canvas = Canvas(fleet.app, fleet.broker, TURNS[turns], fleet.folder, all_queues=ALL)
    with faults.current(fleet.app):
        CASES[name](canvas)
        canvas.settle()
    for worker in fleet.workers.values():
        assert worker.is_running(), worker.output.text()
