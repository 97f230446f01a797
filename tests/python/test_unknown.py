"""Tasks that the worker does not know, with `unknown_tasks = "hand-back"`, beside a stock worker that does."""

import json
import time

import pytest
from celery.exceptions import NotRegistered

from faults import Lines, Messages, RustWorker, StockWorker, eventually, options
from support import DEAD_LETTERS

HEADER = "x-celeriac-handed-back"


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

    def start(**settings):
        settings = {"unknown_tasks": "hand-back", **settings}
        workers.append(RustWorker(broker, tmp_path, "mixed", options(3600), **settings))
        return workers[-1]

    def stock():
        workers.append(StockWorker(broker, "mixed", options(3600)))
        return workers[-1]

    start.stock = stock
    yield start
    for worker in workers:
        if not worker.is_stopped:
            assert worker.stop() == 0, worker.output.text()


def test_a_peer_runs_what_is_handed_back(broker, app, start, tmp_path):
    start()
    lines = Lines(tmp_path)
    results = [app.send_task("stock.append", [str(lines.path), str(nth)], queue="mixed") for nth in range(20)]
    ours = [app.send_task("rust.add", [nth, 1], queue="mixed") for nth in range(20)]
    assert [result.get(timeout=60) for result in ours] == list(range(1, 21))
    stock = start.stock()
    lines.wait_for(20)
    assert sorted(lines.all(), key=lambda line: int(line.split()[0])) == [f"{nth} by stock" for nth in range(20)]
    for result in results:
        result.get(timeout=60)
    eventually(lambda: broker.left("mixed", DEAD_LETTERS) == (0, 0, 0, 0), lambda: broker.left("mixed", DEAD_LETTERS))
    assert stock.stop() == 0, stock.output.text()


@pytest.mark.only("redis", "on RabbitMQ nobody sees a message that is held")
def test_workers_that_all_lack_it_do_not_pass_it_round_without_rest(broker, app, start):
    sent = time.monotonic()
    result = app.send_task("rust.missing", [1], queue="mixed")
    workers = [start(), start()]

    def handed_back():
        """How often, as who holds it has it; 0 where nobody does."""
        entries = [json.loads(value)[0] for value in broker.client.hvals("unacked")]
        return max((entry["headers"].get(HEADER, {}).get("count", 0) for entry in entries), default=0)

    eventually(lambda: handed_back() >= 4, handed_back)
    assert not result.ready()
    for worker in workers:
        assert worker.stop() == 0
    assert broker.left("mixed", DEAD_LETTERS) == (0, 0, 1, 0)
    (message,) = broker.waiting("mixed")
    assert message["headers"][HEADER]["retries"] == 0 and message["headers"][HEADER]["count"] >= 4
    # It was held before each time, for at least half of 50 ms, of 100, and so on up to four seconds.
    held = sum(min(0.05 * 2**nth, 4) / 2 for nth in range(message["headers"][HEADER]["count"]))
    assert held <= time.monotonic() - sent


@pytest.mark.parametrize(["times", "gives_up"], [(1200, True), (1199, False)])
def test_after_the_bound_it_is_given_up(broker, app, start, times, gives_up):
    worker = start()
    task_id, text = Messages(broker, app, "rust.missing").message("mixed", 1)
    message = json.loads(text)
    message["headers"][HEADER] = {"count": times, "retries": 0}
    broker.push("mixed", json.dumps(message))
    if not gives_up:
        worker.output.wait_for("ready")
        eventually(lambda: broker.held() == 1, "it is held")
        assert worker.stop() == 0
        assert broker.left("mixed", DEAD_LETTERS) == (0, 0, 1, 0)
        return
    eventually(lambda: broker.left(DEAD_LETTERS)[2] == 1, "a dead letter")
    assert type(app.AsyncResult(task_id).result) is NotRegistered


def test_by_default_it_fails_at_once(broker, app, start):
    start(unknown_tasks="fail")
    result = app.send_task("rust.missing", queue="mixed")
    assert type(result.get(timeout=60, propagate=False)) is NotRegistered
    eventually(lambda: broker.left(DEAD_LETTERS)[2] == 1, "a dead letter")
