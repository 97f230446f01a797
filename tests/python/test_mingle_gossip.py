"""Workers among themselves, stock and ours: what was revoked is told who comes later, who comes and goes is heard, and
one of them is elected."""

import re
import threading
import time
import uuid

import pytest

from client import Caller
from faults import answering, eventually
from support import SECONDS
from test_events import StockWorker

OURS, STOCK = "ours@mingle", "stock@mingle"
DEBUG = ("-l", "debug")
# A heart that beats so often is missed within a second, and is looked for each five.
RESTLESS = ("--heartbeat-interval", "1")
ELECTIONS = 3
# It asks for a second, in which a busy machine may not answer: then another one tries.
TRIES = 5
ALONE = "mingle: all alone"


@pytest.fixture
def start(server, start_worker):
    """Starts a worker of either kind, and ends it with the test."""
    workers = []

    def start(kind, *options, node=None):
        if kind == "stock":
            worker = StockWorker(server, "by-stock", "-P", "threads", *DEBUG, *options, "-n", node or STOCK)
        else:
            worker = start_worker("by-ours", *DEBUG, *options, "-n", node or OURS)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if not worker.is_stopped:
            worker.stop()


def revoke(app, node):
    """The id of a task that this node, which is the only one, knows to be revoked."""
    id = str(uuid.uuid4())
    answering(app, node)
    replies = app.control.revoke(id, reply=True, timeout=SECONDS, destination=[node])
    assert [list(reply) for reply in replies] == [[node]], replies
    return id


def is_discarded(app, server, worker, queue, id):
    """Whether the worker refuses to run the task. Who revoked it has stored that; this is what the worker itself knows."""
    since = worker.output.mark()
    Caller(app, server, queue).send_with("add", (1, 2), task_id=id)
    return "Discarding" in worker.output.wait_for(rf"Discarding revoked task: rust.add\[{id}\]|Task rust.add\[{id}\] succeeded", since)[0]


@pytest.mark.parametrize("first, second", [("stock", "ours"), ("ours", "stock")])
def test_who_comes_later_learns_what_was_revoked_and_each_hears_of_the_other(app, server, start, first, second):
    names = {"stock": STOCK, "ours": OURS}
    before = start(first, *RESTLESS)
    only_there = revoke(app, names[first])
    for _ in range(TRIES):
        since = before.output.mark()
        later = start(second, *RESTLESS)
        if later.output.wait_for(f"mingle: sync with 1 nodes|{ALONE}")[0] != ALONE:
            break
        later.stop()
    later.output.wait_for("(?s)mingle: searching for neighbors.*mingle: sync with 1 nodes.*mingle: sync complete")
    before.output.wait_for(f"sync with {names[second]}", since)
    assert is_discarded(app, server, later, f"by-{second}", only_there)

    before.output.wait_for(f"{names[second]} joined the party", since)
    later.output.wait_for(f"{names[first]} joined the party")
    assert before.stop() == 0, before.output.text()
    later.output.wait_for(f"{names[first]} left")


@pytest.mark.only("redis", "a dead worker is silent, whatever the broker; it takes seconds to notice that")
def test_who_is_killed_is_missed(start):
    ours, stock = start("ours"), start("stock", "--without-mingle")
    killed = [
        start("ours", *RESTLESS, node="killed-ours@mingle"),
        start("stock", "--without-mingle", *RESTLESS, node="killed-stock@mingle"),
    ]
    for expected in ["{} joined the party", "missed heartbeat from {}"]:
        for worker, node in [(ours, "killed-stock@mingle"), (stock, "killed-ours@mingle")]:
            worker.output.wait_for(expected.format(node))
        for worker in killed:
            if not worker.is_stopped:
                worker.kill()
    assert "missed heartbeat from stock" not in ours.output.text()
    assert "missed heartbeat from ours" not in stock.output.text()


def test_logical_clocks_are_adjusted(app, start):
    ours = start("ours")
    app.clock.adjust(1_000_000)
    deadline = time.monotonic() + SECONDS
    with app.events.default_dispatcher(hostname="far@mingle") as dispatcher:
        # From when on it listens is not told to who is far.
        while "far@mingle joined the party" not in ours.output.text():
            assert time.monotonic() < deadline, ours.output.text()
            dispatcher.send("worker-heartbeat", freq=1)
            threading.Event().wait(0.05)
    question = {"arguments": {"from_node": "x@mingle"}, "destination": [OURS]}
    answer = app.control.broadcast("hello", reply=True, timeout=SECONDS, **question)
    assert answer[0][OURS]["clock"] > 1_000_000


def hold_election(app):
    """An election of who sends a task; its id."""
    id = str(uuid.uuid4())
    app.control.election(id, "task", dict(app.signature("rust.add", args=(1, 2), options={"queue": "elected"})))
    return id


def test_one_of_many_is_elected(app, server, start):
    """With two of ours: a stock worker counts when it has as many answers as there are others, and with one other worker
    alone it may have a single request by then, which is the end of it."""
    workers = {node: start("ours", node=node) for node in ("one@mingle", "two@mingle")}
    workers[STOCK] = start("stock")
    for node, worker in workers.items():
        for other in workers.keys() - {node}:
            worker.output.wait_for(f"{other} joined the party")
    for _ in range(ELECTIONS):
        marks = {node: worker.output.mark() for node, worker in workers.items()}
        id = hold_election(app)
        outcome = rf"I won the election '{id}'|node (\S+)\.\d+ elected for '{id}'"
        leaders = {node: worker.output.wait_for(outcome, marks[node])[1] for node, worker in workers.items()}
        [leader] = [node for node, elected in leaders.items() if elected is None]
        assert leader != STOCK and leaders[STOCK] != STOCK, leaders
        assert {leaders["one@mingle"], leaders["two@mingle"]} == {None, leader}, leaders
        assert server.take("elected")["headers"]["task"] == "rust.add"
    assert server.length("elected") == 0
    server.forget("elected")


def test_who_is_alone_says_so_is_elected_and_lives_on(app, server, start):
    """With a stock worker the election is the end of it."""
    ours = start("ours")
    ours.output.wait_for("(?s)INFO/.* mingle: searching for neighbors.*INFO/.* mingle: all alone")
    id = hold_election(app)
    ours.output.wait_for(f"I won the election '{id}'")
    assert server.take("elected")["headers"]["task"] == "rust.add"
    app.control.election("other", "nonsense", None)
    ours.output.wait_for("Unknown election topic 'nonsense'")
    app.control.election("another", "task", {"no": "signature"})
    ours.output.wait_for("Could not call task: a signature has no task name")
    assert app.control.ping(destination=[OURS], timeout=SECONDS) == [{OURS: {"ok": "pong"}}]


@pytest.mark.only("redis", "where answers come to is gone with its connection at RabbitMQ")
def test_who_stops_while_it_asks_leaves_nothing_behind(server, start):
    bindings = "_kombu.binding.reply.celery.pidbox"
    before = server.broker.smembers(bindings)
    for _ in range(TRIES):
        ours = start("ours")
        eventually(lambda: server.broker.smembers(bindings) - before or ALONE in ours.output.text(), "it asks")
        assert ours.stop() == 0, ours.output.text()
        assert server.broker.smembers(bindings) <= before
        if ALONE not in ours.output.whole():
            break
    assert ALONE not in ours.output.text(), "it does not know that"


def test_who_is_to_keep_to_itself_does(app, server, start):
    """Without gossip, heartbeats and task events no events are sent at all, as with a stock worker."""
    other = start("ours", "-Q", "other", node="other@mingle")
    only_there = revoke(app, "other@mingle")
    ours = start("ours", "--without-mingle", "--without-gossip", "--without-heartbeat")
    enabled = app.control.enable_events(destination=[OURS], reply=True, timeout=SECONDS)
    assert enabled == [{OURS: {"ok": "task events already enabled"}}]
    assert not is_discarded(app, server, ours, "by-ours", only_there)
    app.control.election("e", "task", None)
    ours.output.wait_for("this worker does not gossip, and takes no part in the election 'e'")
    assert not re.search("mingle:|joined the party", ours.output.text()), ours.output.text()
    assert OURS not in other.output.text(), other.output.text()
