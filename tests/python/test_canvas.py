"""Canvases of every kind, run by the worker as stock Celery runs them.

Each case is asked of a stock worker first. Then the worker must pass it as well, and publish and store the same: metas
byte by byte, messages value by value, with the ids masked.
"""

import pytest
from celery import Celery, chord
from celery.exceptions import NotRegistered

import faults
from canvas import Canvas
from canvas_cases import CASES
from records import Recorder
from tracing import TracingRecorder

# So that it shows in the broker when all has been done.
SETTINGS = {"task_acks_late": True, "task_track_started": False, "task_default_queue": "tasks"}


class Side:
    """One worker with a broker of its own."""

    new_canvas = Canvas

    def __init__(self, folder, new_broker, start, **settings):
        self.broker = new_broker(folder)
        self.app = Celery("canvas", broker=self.broker.url, backend=self.broker.result_url, set_as_current=False)
        self.folder, self.records = folder, {}
        self.worker = start(self.broker, folder, **SETTINGS, **settings)
        self.recorder = recorder(self.broker, ["tasks"])

    def record(self, name):
        """Runs the case, and returns what it published and stored; once."""
        if name not in self.records:
            self.recorder.take()
            canvas = self.new_canvas(self.app, self.broker, ["tasks"], self.folder)
            with faults.current(self.app):
                CASES[name](canvas)
                canvas.settle()
            assert self.worker.is_running(), self.worker.output.text()
            self.records[name] = self.recorder.take()
        return self.records[name]

    def stop(self):
        try:
            assert self.worker.stop() == 0, self.worker.output.text()
        finally:
            self.recorder.close()
            self.end()

    def end(self):
        faults.end(self.broker, self.app)


def recorder(broker, queues):
    return Recorder(broker.port, queues) if broker.kind == "redis" else TracingRecorder(broker, queues)


def start_stock(broker, _folder, **settings):
    return faults.StockWorker(broker, "tasks", faults.options(3600), "-P", "threads", "-c", "8", **settings)


def start_ours(broker, folder, **settings):
    return faults.RustWorker(broker, folder, "tasks", faults.options(3600), **settings)


@pytest.fixture(scope="module")
def sides(tmp_path_factory, new_broker):
    """Starts a side where it is asked for; so that each can be looked at alone."""
    started = {}

    def side(name):
        if name not in started:
            start = {"stock": start_stock, "ours": start_ours}[name]
            started[name] = Side(tmp_path_factory.mktemp(name), new_broker, start)
        return started[name]

    yield side
    for one in started.values():
        one.stop()


# Cases whose results are the same, though what is stored is not, and why.
MEANT = {"nothing_is_added_where_there_is_no_chord": "an error of the crate's own has a class of its own"}
# A stock worker says of a task that it does not know, or that Celery adds, that its priority is 0, and of others nothing;
# to RabbitMQ both are the same.
PRIORITY_0 = {
    "a_link_to_a_task_that_nobody_knows", "an_errback_that_nobody_here_knows", "a_task_that_is_replaced_by_a_group",
    "replaced_tasks_in_a_chord",
}


@pytest.mark.parametrize("name", CASES)
def test_what_stock_celery_does(sides, name):
    sides("stock").record(name)


@pytest.mark.parametrize("name", CASES)
def test_what_the_worker_does(sides, name, kind):
    expected = sides("stock").record(name)
    found = sides("ours").record(name)
    difference = expected.difference(found)
    is_meant = name in MEANT or (kind == "rabbitmq" and name in PRIORITY_0)
    assert bool(difference) == is_meant, difference


def chord_with_a_stranger(side):
    """A chord, one of whose members is of a task that nobody has registered."""
    canvas = Canvas(side.app, side.broker, ["tasks"], side.folder)
    with faults.current(side.app):
        result = chord([canvas.s("nobody"), canvas.s("add", 2, 2)])(canvas.s("xsum"))
        assert type(canvas.error(result.parent.children[0])) is NotRegistered
        canvas.settle()
    return canvas, result


def test_stock_celery_leaves_a_chord_with_an_unregistered_member_waiting(sides):
    canvas, result = chord_with_a_stranger(sides("stock"))
    canvas.is_nowhere(result.id)


def test_a_chord_is_told_of_an_unregistered_member(sides):
    canvas, result = chord_with_a_stranger(sides("ours"))
    stranger = result.parent.children[0].id
    assert canvas.error(result).args == (f"Dependency {stranger} raised NotRegistered('rust.nobody')",)
