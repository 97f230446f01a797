"""Canvases of every kind, run by the worker as stock Celery runs them.

Each case is asked of a stock worker first. Then the worker must pass it as well, and publish and store the same: metas
byte by byte, messages value by value, with the ids masked.
"""

import gc

import pytest
from celery import Celery

import faults
from canvas import Canvas
from canvas_cases import CASES
from records import Recorder

# So that it shows in the broker when all has been done.
SETTINGS = {"task_acks_late": True, "task_track_started": False, "task_default_queue": "tasks"}


class Side:
    """One worker with a Redis of its own."""

    def __init__(self, folder, start, **settings):
        self.broker = faults.Broker(folder)
        self.app = Celery("canvas", broker=self.broker.url, backend=self.broker.result_url, set_as_current=False)
        self.app.set_default()
        self.folder, self.records = folder, {}
        self.worker = start(self.broker, folder, **SETTINGS, **settings)
        self.recorder = Recorder(self.broker, ["tasks"])

    def record(self, name):
        """Runs the case, and returns what it published and stored; once."""
        if name not in self.records:
            self.recorder.take()
            canvas = Canvas(self.app, self.broker, ["tasks"], self.folder)
            CASES[name](canvas)
            canvas.settle()
            assert self.worker.is_running(), self.worker.output.text()
            self.records[name] = self.recorder.take()
        return self.records[name]

    def stop(self):
        try:
            assert self.worker.stop() == 0, self.worker.output.text()
        finally:
            gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.
            self.recorder.close()
            self.app.close()
            self.broker.process.kill()


def start_stock(broker, _folder, **settings):
    return faults.StockWorker(broker, "tasks", faults.options(3600), "-P", "threads", "-c", "8", **settings)


def start_ours(broker, folder, **settings):
    return faults.RustWorker(broker, folder, "tasks", faults.options(3600), **settings)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Starts a side where it is asked for; so that each can be looked at alone."""
    started = {}

    def side(name):
        if name not in started:
            start = {"stock": start_stock, "ours": start_ours}[name]
            started[name] = Side(tmp_path_factory.mktemp(name), start)
        return started[name]

    yield side
    for one in started.values():
        one.stop()


@pytest.mark.parametrize("name", CASES)
def test_what_stock_celery_does(sides, name):
    sides("stock").record(name)


@pytest.mark.parametrize("name", CASES)
def test_what_the_worker_does(sides, name):
    expected = sides("stock").record(name)
    found = sides("ours").record(name)
    difference = expected.difference(found)
    assert not difference, difference
