"""What the example producer, in Rust, sends to a stock worker, and what it reads of the results."""

import os
import pathlib
import subprocess
import sys

import pytest

from support import EXAMPLE_WORKER, SECONDS, Process

EXPECTED = """\
task: 3
kwargs: 6
countdown: 4
request: List([Bool(true), Null, String("ann"), Int(3)])
linked: 12
ignored: None
chain: 10
its first step: 3
chord: 90
chain with a group in it: 107
chord in a chord: 12
group: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
completed: 20
restored: Some(20)
forgotten: 0
failure: ("ValueError", true, true)
failure in a chain: ("ValueError", true, true)
failure in a group: ("ValueError", true, true)
failure in a chord: ("ValueError", true, true)
timeout: true
many: 249500
"""


def environment(server):
    return {"CELERY_BROKER_URL": server.broker_url, "CELERY_RESULT_BACKEND": server.result_url}


def produce(server):
    command = [pathlib.Path(EXAMPLE_WORKER).with_name("producer")]
    env = {**os.environ, **environment(server)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=8 * SECONDS)


@pytest.fixture(scope="module")
def stock_worker(server):
    command = [sys.executable, "-m", "celery", "-A", "sums", "worker", "-Q", "sums", "-c", "2", "-l", "info"]
    worker = Process(command, {**environment(server), "PYTHONPATH": str(pathlib.Path(__file__).parent)})
    worker.output.wait_for(r"ready\.", timeout=2 * SECONDS)
    yield worker
    worker.stop()


def test_a_stock_worker_runs_what_rust_sends(server, stock_worker):
    produced = produce(server)
    assert produced.stdout == EXPECTED, produced.stderr + stock_worker.output.text()[-3000:]
    assert produced.returncode == 0, produced.stderr


def test_messages_are_those_of_celery(server, stock_worker, app):
    """The one that the producer sends where nobody listens, beside the same call from Python."""
    app.send_task("sums.add", [1, 1], queue="ours")
    stock, rust = (server.take(queue) for queue in ("ours", "nobody"))
    # In AMQP's tables names have no order that means anything.
    order = list if server.kind == "redis" else sorted
    assert list(rust) == list(stock)
    assert order(rust["headers"]) == order(stock["headers"])
    varying = {"id", "root_id", "origin"}
    for name in stock["headers"].keys() - varying:
        assert rust["headers"][name] == stock["headers"][name] or name == "argsrepr", name
    assert rust["body"] == stock["body"]
    # Kombu asks for priority 0 unless it is told None (messaging.py `Producer.publish`): that is what `.delay()` of a known
    # task tells it (celery/app/task.py `Task.priority`) and `send_task` does not. Ours asks RabbitMQ for none in both cases.
    unasked = set() if server.kind == "redis" else {"priority"}
    assert stock["properties"].keys() ^ rust["properties"].keys() == unasked
    assert stock["properties"]["priority"] == 0
    assert rust["headers"]["origin"].startswith("gen")
