"""Events: what a stock receiver hears of a stock worker and of ours, for one task of each fate."""

import json
import pathlib
import sys

import pytest
from celery import states

from client import Caller
from faults import eventually
from support import SECONDS, Process

OURS, STOCK = "ours@test", "stock@test"
SETTINGS = {"task_acks_late": True, "task_send_sent_event": True}

# Where ours differs from stock on purpose: fields whose values are others.
DIFFERENT_VALUES = {
    "sw_ident": "a worker names itself honestly",
    "sw_ver": "and its version",
    "traceback": "a task in Rust has the one that it gives, or none, which is empty text",
}

# How each ends, and the states that a monitor sees in the end.
ENDS = {
    "success": ("task-succeeded", states.SUCCESS),
    "failure": ("task-failed", states.FAILURE),
    "retry": ("task-succeeded", states.SUCCESS),
    "eta": ("task-succeeded", states.SUCCESS),
    "revoked": ("task-revoked", states.REVOKED),
    "terminated": ("task-revoked", states.REVOKED),
    "expired": ("task-revoked", states.REVOKED),
    "rejected": ("task-rejected", states.FAILURE),
    "ignored": ("task-started", states.STARTED),
    "unregistered": ("task-failed", states.FAILURE),
}


class StockWorker(Process):
    """A stock worker of this environment's Celery."""

    def __init__(self, server, queue, *options, **settings):
        env = {
            "STOCK_BROKER": server.broker_url, "STOCK_BACKEND": server.result_url, "STOCK_TRANSPORT_OPTIONS": "{}",
            "STOCK_SETTINGS": json.dumps(settings), "PYTHONPATH": str(pathlib.Path(__file__).parent),
        }
        command = [sys.executable, "-m", "celery", "-A", "stock", "worker", "-l", "info", "-c", "4", "-Q", queue, *options]
        super().__init__(command, env)
        self.output.wait_for(r"ready\.", timeout=4 * SECONDS)


@pytest.fixture(scope="module")
def stock(server, capture):
    worker = StockWorker(server, "stock-events", "-n", STOCK, "-E", **SETTINGS)
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def ours(start_worker, capture):
    return start_worker("our-events", "-n", OURS, "-E", task_track_started=True, **SETTINGS)


def send_all(tasks):
    """One task of each fate."""
    return {
        "success": tasks.send("add", 1, 2),
        "failure": tasks.send("fail", "ValueError", "bad"),
        "retry": tasks.send("flaky", "key", 1),
        "eta": tasks.send_with("add", (1, 2), countdown=1),
        "revoked": tasks.send_with("add", (1, 2), countdown=2),
        "terminated": tasks.send("sleep", 60),
        "expired": tasks.send_with("add", (1, 2), countdown=1, expires=0.5),
        "rejected": tasks.send("reject"),
        "ignored": tasks.send("ignore"),
        "unregistered": tasks.send("nobody_knows_this"),
    }


def fates(app, server, capture, queue, node):
    """The events of one task of each fate."""
    sent = send_all(Caller(app, server, queue))
    capture.expect("task-received", uuid=sent["revoked"].id)
    app.control.revoke(sent["revoked"].id)
    capture.expect("task-started", uuid=sent["terminated"].id)
    app.control.revoke(sent["terminated"].id, terminate=True)
    for fate, (end, _) in ENDS.items():
        capture.expect(end, uuid=sent[fate].id, hostname=node)
    return {fate: capture.of(result.id) for fate, result in sent.items()}


def kind(name, value):
    """What kind of value a field has; of those that are the same for the same task, the value itself."""
    if name not in DIFFERENT_VALUES and name in ("type", "exception", "signum", "terminated", "expired", "requeue", "result", "name", "args", "kwargs"):
        return value
    return type(value).__name__


def shape(event):
    """An event without what differs from one run to the next, its fields in their order."""
    fields = {name: value for name, value in event.items() if name != "local_received"}
    return [(name, kind(name, value)) for name, value in fields.items()]


@pytest.fixture(scope="module")
def both(app, server, capture, stock, ours):
    return (
        fates(app, server, capture, "stock-events", STOCK),
        fates(app, server, capture, "our-events", OURS),
    )


@pytest.mark.parametrize("fate", ENDS)
def test_each_fate_is_told_as_a_stock_worker_tells_it(both, fate):
    stock, ours = ([shape(event) for event in told[fate]] for told in both)
    if fate == "retry":
        # The message of the retry may come in before it is told of: it is sent before.
        stock, ours = sorted(stock), sorted(ours)
    assert ours == stock


def test_what_a_worker_sends_is_told_as_a_stock_worker_tells_it(app, capture, stock, ours):
    def told(queue):
        """The event of a chain's second step, which the first one's worker sends."""
        steps = [app.signature(f"rust.{name}", args, queue=queue) for name, args in [("add", (1, 2)), ("identity", ())]]
        event = capture.expect("task-sent", uuid=(steps[0] | steps[1]).delay().id)
        assert event["hostname"].startswith("gen") and event["queue"] == event["routing_key"] == queue
        return shape(event)

    assert told("our-events") == told("stock-events")


def test_clocks_and_times_increase(capture, both):
    for node in STOCK, OURS:
        clocks = [event["clock"] for event in capture.heard if event["hostname"] == node]
        assert len(clocks) > 20 and len(set(clocks)) == len(clocks)
    for fate in ENDS.keys() - {"retry"}:
        clocks = [event["clock"] for event in both[1][fate]]
        assert clocks == sorted(clocks), fate


def test_the_state_of_the_cluster_is_seen(capture, both):
    """What Flower makes of events (celery/events/state.py `State`)."""
    workers = capture.state.workers
    # So it is for two heartbeats' time after each.
    eventually(lambda: workers[OURS].alive and workers[STOCK].alive, "both to be alive")
    runs = sum(event["type"] == "task-started" and event["hostname"] == OURS for event in capture.heard)
    done = {"hostname": OURS, "type": "worker-heartbeat", "active": 0, "processed": runs}
    assert capture.wait_for(lambda event: done.items() <= event.items())
    assert (workers[OURS].active, workers[OURS].processed) == (0, runs)
    for told in both:
        for fate, (_, state) in ENDS.items():
            task = capture.state.tasks[told[fate][0]["uuid"]]
            assert task.state == state, fate


def test_a_run_counts_as_active_while_it_runs(app, server, capture, ours):
    sleeper = Caller(app, server, "our-events").send("sleep", 60)
    assert capture.wait_for(lambda event: event["hostname"] == OURS and event.get("active") == 1)
    app.control.revoke(sleeper.id, terminate=True)
    capture.expect("task-revoked", uuid=sleeper.id)


def test_the_worker_tells_of_itself_as_a_stock_worker_does(app, capture, stock, ours):
    for type in "worker-online", "worker-heartbeat":
        shapes = [shape(capture.expect(type, hostname=node, freq=2.0)) for node in (STOCK, OURS)]
        assert shapes[0] == shapes[1]
    app.control.broadcast("heartbeat", destination=[STOCK, OURS])
    shapes = [shape(capture.expect("worker-heartbeat", hostname=node, freq=5)) for node in (STOCK, OURS)]
    assert shapes[0] == shapes[1] and not {"active", "processed", "loadavg"} & dict(shapes[1]).keys()
    assert capture.expect("worker-online", hostname=OURS)["sw_ident"] == "celeriac"


def ask(app, method, node):
    [reply] = app.control.broadcast(method, destination=[node], reply=True, timeout=SECONDS, limit=1)
    return reply[node]


def test_a_worker_with_task_events_answers_and_goes_on_as_a_stock_worker_does(app, server, capture, stock, ours):
    for method in "enable_events", "disable_events", "disable_events", "heartbeat":
        assert ask(app, method, OURS) == ask(app, method, STOCK)
    capture.expect("task-succeeded", uuid=Caller(app, server, "our-events").send("add", 1, 2).id)


def test_task_events_come_when_they_are_asked_for_and_the_last_word_is_offline(app, server, capture, start_worker):
    node = "quiet@test"
    worker = start_worker("quiet", "-n", node, "--heartbeat-interval", "0.5")
    tasks = Caller(app, server, "quiet")
    assert tasks.call("add", 1, 2) == 3
    assert ask(app, "enable_events", node) == {"ok": "task events enabled"}
    assert ask(app, "enable_events", node) == {"ok": "task events already enabled"}
    told = tasks.send("add", 1, 2)
    capture.expect("task-succeeded", uuid=told.id, result="3")
    assert ask(app, "disable_events", node) == {"ok": "task events disabled"}
    assert ask(app, "disable_events", node) == {"ok": "task events already disabled"}
    assert tasks.call("add", 1, 2) == 3
    assert worker.stop() == 0
    offline = capture.expect("worker-offline", hostname=node, freq=0.5, processed=3, active=0)
    heard = [event for event in capture.heard if event["hostname"] == node]
    assert heard[-1] == offline and {event.get("uuid") for event in heard} == {None, told.id}
    assert not capture.state.workers[node].alive


def test_a_worker_without_heartbeats_tells_nothing_of_itself(app, server, capture, start_worker):
    node = "silent@test"
    worker = start_worker("silent", "-n", node, "-E", "--without-heartbeat")
    capture.expect("task-succeeded", uuid=Caller(app, server, "silent").send("add", 1, 2).id)
    assert worker.stop() == 0
    types = {event["type"] for event in capture.heard if event["hostname"] == node}
    assert types == {"task-received", "task-started", "task-succeeded"}
