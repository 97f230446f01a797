"""Sentry's SDK in a project's Python tasks: it reports what it reports from a stock worker, and its traces hold together."""

import json
import os
import re
import sys

import pytest
from celery import Celery

from support import ROOT, SECONDS, Process
from test_prefork import HERE

pytestmark = pytest.mark.only("redis", "what is reported does not depend on the broker")

#: What is another time something else.
VARYING = {
    "event_id", "timestamp", "start_timestamp", "trace_id", "span_id", "parent_span_id", "modules", "task_id", "id",
    "thread.id", "messaging.message.id", "messaging.message.receive.latency", "breadcrumbs", "sys.argv", "abs_path",
    "measurements", "hostname", "celery_task_id", "sample_rand", "transaction_info", "thread.name", "_meta",
    "req",
}


def masked(value):
    if isinstance(value, dict):
        return {key: masked(item) for key, item in value.items() if key not in VARYING}
    if isinstance(value, list):
        # A stock worker's process asks Redis itself.
        return [masked(item) for item in value if not (isinstance(item, dict) and item.get("op") == "db.redis")]
    # Ids, and where objects are in memory.
    return re.sub(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,32}", "…", value) if isinstance(value, str) else value


def differing(ours, stock, path=()):
    """Where two values differ, and in what."""
    if isinstance(ours, dict) and isinstance(stock, dict):
        keys = sorted(ours.keys() | stock.keys())
        return [found for key in keys for found in differing(ours.get(key), stock.get(key), (*path, key))]
    if isinstance(ours, list) and isinstance(stock, list) and len(ours) == len(stock):
        return [found for at, both in enumerate(zip(ours, stock)) for found in differing(*both, (*path, at))]
    return [] if ours == stock else [(path, ours, stock)]


def reported(server, folder, kind):
    """What is reported by a worker of that kind when a task sends another that fails."""
    path = folder / kind
    path.touch()
    env = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), HERE]), "SENTRIED_FILE": str(path),
        "SENTRIED_BROKER": server.broker_url, "SENTRIED_RESULTS": server.result_url, "SENTRIED_QUEUE": "sentried",
    }
    command = [sys.executable, "-m", kind, "-A", "sentried", "worker", "-l", "info", "-c", "1", "-n", f"{kind}@test"]
    worker = Process(command, env)
    worker.output.wait_for(r"ready\.", timeout=4 * SECONDS)
    client = Celery("client", broker=server.broker_url, backend=server.result_url, set_as_current=False)
    sent = client.send_task("sentried.parent", ("bad",), queue="sentried").get(timeout=SECONDS)
    failed = client.AsyncResult(sent)
    with pytest.raises(ValueError):
        failed.get(timeout=SECONDS)
    client.close()
    worker.stop()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(events) == 3, (events, worker.output.text())
    return sorted(events, key=lambda event: (event.get("type", "error"), event["transaction"]))


@pytest.fixture(scope="module")
def events(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentry")
    return {kind: reported(server, folder, kind) for kind in ("celeriac", "celery")}


def test_it_reports_what_it_reports_from_a_stock_worker(events):
    ours, stock = (masked(events[kind]) for kind in ("celeriac", "celery"))
    assert ours[0]["exception"]["values"][0]["type"] == "ValueError"
    found = differing(ours, stock)
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("side", ["celeriac", "celery"])
def test_its_spans_link_who_sends_and_who_runs(events, side):
    error, failing, parent = events[side]
    assert [event["transaction"] for event in (failing, parent)] == ["sentried.failing", "sentried.parent"]
    traces = {event["contexts"]["trace"]["trace_id"] for event in (error, failing, parent)}
    assert len(traces) == 1
    sending = [span["span_id"] for span in parent["spans"] if span["op"] == "queue.submit.celery"]
    assert failing["contexts"]["trace"]["parent_span_id"] in sending
