"""Orders that change a worker, sent by stock's own command line, to a stock worker and to ours: what is answered, and what
comes of it. The answers are the same to the letter.

What is meant to differ is not in the answers: a pool of ours that is all in use can shrink too (stock has no idle process
to end then, and says so), and it keeps one place, where stock ends its last process and then says that it cannot.
"""

import json

import pytest
from kombu import Exchange, Queue

from command_lines import Both
from faults import Held, RustWorker, StockWorker, answering, eventually
from support import SECONDS

STOCK, RUST = "stock@steering", "rust@steering"

ORDERS = [
    "pool_grow", "pool_grow 2", "pool_shrink 2", "pool_shrink", "pool_shrink 100", "autoscale", "autoscale 3 1", "pool_restart",
    "add_consumer extra", "add_consumer extra", "add_consumer other exchange topic other.#", "cancel_consumer extra",
    "cancel_consumer nobodys", "cancel_consumer extra",
]
SCALED = ["pool_grow", "pool_shrink", "autoscale", "autoscale 4 2", "autoscale 3", "autoscale 6 1"]


@pytest.fixture(scope="module")
def both(each_broker):
    both = Both(each_broker)
    yield both
    both.end()


@pytest.fixture
def start(each_broker, folder, app):
    """Starts workers, which hear what is ordered, and kills those that are left."""
    workers = []

    def start(kind, queue, name, *options, **settings):
        if kind == "stock":
            worker = StockWorker(each_broker, queue, {}, "-P", "prefork", "-n", name, *options, **settings)
        else:
            worker = RustWorker(each_broker, folder, queue, {}, "-n", name, *options, **settings)
        workers.append(worker)
        answering(app, name)
        return worker

    yield start
    for worker in workers:
        if not worker.is_stopped:
            worker.kill()


def order(both, name, command, run=None):
    """What stock's command line, or another, says that the node has answered."""
    method, *arguments = command.split()
    ended = (run or both.stock)("control", "-d", name, "-t", str(SECONDS), "-j", method, *arguments)
    assert ended.code == 0, (ended.out, ended.err)
    [answer] = json.loads(ended.out)
    return answer[name]


def consumed(both, name):
    """What the node says that it consumes, by name."""
    ended = both.stock("inspect", "-d", name, "-t", str(SECONDS), "-j", "active_queues")
    assert ended.code == 0, (ended.out, ended.err)
    return {queue["name"]: queue for queue in json.loads(ended.out)[name]}


def same(both, commands):
    for command in commands:
        stock, rust = (order(both, name, command) for name in (STOCK, RUST))
        assert rust == stock, command


def test_what_is_ordered_is_answered_as_stock_answers(both, start):
    start("stock", "stock", STOCK)
    start("rust", "rust", RUST, "-c", "2")
    same(both, ORDERS)
    stock, rust = (consumed(both, name) for name in (STOCK, RUST))
    assert (stock.keys(), rust.keys()) == ({"stock", "other"}, {"rust", "other"})
    assert rust["other"] == stock["other"]


def test_what_is_ordered_of_a_pool_that_scales_is_answered_as_stock_answers(both, start):
    start("stock", "stock", STOCK, "--autoscale", "5,1")
    rust = start("rust", "rust", RUST, "--autoscale", "5,1")
    same(both, SCALED)
    rust.output.wait_for(r"INFO/.* Scaling up 1 processes\.")


def sleepers(app, queue, count, seconds):
    """Tasks that take so long."""
    return [app.send_task("rust.sleep", (seconds,), queue=queue) for _ in range(count)]


def started(results):
    return sum(result.state in ("STARTED", "SUCCESS") for result in results)


@pytest.fixture
def app(each_broker):
    with each_broker.application() as app:
        yield app


def test_a_pool_is_as_large_as_it_is_told(both, start, app):
    start("rust", "pool", RUST, "-c", "1", task_track_started=True)
    results = sleepers(app, "pool", 3, 60)
    eventually(lambda: started(results) == 1, "one runs")
    assert order(both, RUST, "pool_grow 1") == {"ok": "pool will grow"}
    eventually(lambda: started(results) == 2, "two run")
    assert order(both, RUST, "pool_shrink 1") == {"ok": "pool will shrink"}
    running = [result for result in results if result.state == "STARTED"]
    app.control.terminate(running[0].id)
    eventually(lambda: running[0].state == "REVOKED", "one is ended")
    assert sum(result.state == "STARTED" for result in results) == 1, "no other has begun in its place"
    app.control.terminate(running[1].id)
    eventually(lambda: sum(result.state == "STARTED" for result in results) == 1, "the last one runs")


def test_a_worker_is_stopped_from_afar(both, start, app, tmp_path):
    worker = start("rust", "stopped", RUST, "-c", "1", task_track_started=True)
    held = Held(tmp_path)
    running, waiting = (app.send_task("rust.append", (str(held.path), "let go"), queue="stopped") for _ in range(2))
    eventually(lambda: started([running]) == 1, "it runs")
    ended = both.stock("control", "-d", RUST, "-t", "0.3", "shutdown")
    assert ended.code == 69, "nobody answers, as from a stock worker"
    assert "WARNING/" in worker.output.wait_for(r".*Got shutdown from remote").group(), worker.output.text()
    with held.let_go():
        assert worker.ended() == 0, worker.output.text()
    eventually(lambda: running.state == "SUCCESS", "what ran has ended")
    assert waiting.state == "PENDING"


def test_a_queue_is_bound_as_the_client_says(both, start, app):
    """Through its exchange, which only a binding leads from."""
    start("rust", "bound", RUST, "-c", "2")
    order(both, RUST, "add_consumer by.topic topics topic jobs.#")
    bound = Queue("by.topic", Exchange("topics", "topic"), routing_key="jobs.#")
    sent = app.send_task("rust.add", (1, 1), exchange="topics", routing_key="jobs.small", declare=[bound])
    assert sent.get(timeout=SECONDS) == 2


@pytest.mark.only("rabbitmq", "on Redis nothing is declared that another could have declared otherwise")
def test_a_queue_that_the_broker_refuses_harms_no_other(both, start, app, each_broker):
    each_broker.vhost.declare("limited", **{"x-max-length": 3})
    worker = start("rust", "unharmed", RUST, "-c", "2")
    order(both, RUST, "add_consumer limited")
    worker.output.wait_for("ERROR/.* cannot consume from limited: .*PreconditionFailed")
    assert app.send_task("rust.add", (1, 2), queue="unharmed").get(timeout=SECONDS) == 3
    assert worker.output.text().count("ready.") == 1, "over the same connection"


def looked_for(result):
    """What a task came to, without its being told: the client whose subscription is cut as it begins hears nothing."""
    eventually(result.ready, f"{result} to be ready")
    return result.result


def test_a_queue_is_consumed_from_when_it_is_added_until_it_is_cancelled(both, start, app, each_broker):
    """By our own command line, for stock's is one process here, whose connections are cut too. This is the last, for that."""
    worker = start("rust", "kept", RUST, "-c", "2")
    waiting = app.send_task("rust.add", (1, 2), queue="more")
    assert order(both, RUST, "add_consumer more", both.ours) == {"ok": "add consumer more"}
    assert waiting.get(timeout=SECONDS) == 3
    worker.output.wait_for("INFO/.* Started consuming from more")
    since = worker.output.mark()
    assert each_broker.cut() >= 1
    worker.output.wait_for(r"ready\.", since)
    assert looked_for(app.send_task("rust.add", (2, 2), queue="more")) == 4
    assert order(both, RUST, "cancel_consumer more", both.ours) == {"ok": "no longer consuming from more"}
    worker.output.wait_for("INFO/.* Canceling queue more", since)
    stays = app.send_task("rust.add", (3, 2), queue="more")
    assert looked_for(app.send_task("rust.add", (4, 2), queue="kept")) == 6
    since = worker.output.mark()
    assert each_broker.cut() >= 1
    worker.output.wait_for(r"ready\.", since)
    assert looked_for(app.send_task("rust.add", (5, 2), queue="kept")) == 7
    assert stays.state == "PENDING" and len(each_broker.waiting("more")) == 1
    order(both, RUST, "add_consumer more", both.ours)
    assert looked_for(stays) == 5
