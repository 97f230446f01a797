"""OpenTelemetry's instrumentation in a project's Python tasks: the spans of a stock worker, in one trace."""

import json
import os
import sys

import pytest
from celery import Celery

from support import ROOT, SECONDS, Process
from test_prefork import HERE

pytestmark = pytest.mark.only("redis", "what is told does not depend on the broker")

#: What is another time something else.
VARYING = {"messaging.message.id", "messaging.conversation_id", "celery.reply_to", "celery.hostname", "celery.delivery_info"}
RUN, SENT, OWN, FAILED = "run/telemetered.parent", "apply_async/telemetered.failing", "of its own", "run/telemetered.failing"


def told(server, folder, kind):
    """The spans of a worker of that kind, by their names, when a task sends another that fails."""
    path = folder / kind
    env = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), HERE]), "TELEMETERED_FILE": str(path),
        "TELEMETERED_BROKER": server.broker_url, "TELEMETERED_RESULTS": server.result_url,
    }
    worker = Process([sys.executable, "-m", kind, "-A", "telemetered", "worker", "-l", "info", "-c", "1"], env)
    worker.output.wait_for(r"ready\.", timeout=4 * SECONDS)
    client = Celery("client", broker=server.broker_url, backend=server.result_url, set_as_current=False)
    sent = client.send_task("telemetered.parent", ("bad",), queue="telemetered").get(timeout=SECONDS)
    failed = client.AsyncResult(sent)
    with pytest.raises(ValueError):
        failed.get(timeout=SECONDS)
    client.close()
    assert worker.stop() == 0, worker.output.text()
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(span["name"] for span in spans) == sorted([RUN, SENT, OWN, FAILED]), worker.output.text()
    return {span["name"]: span for span in spans}


@pytest.fixture(scope="module")
def spans(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("telemetry")
    return {kind: told(server, folder, kind) for kind in ("celeriac", "celery")}


def masked(span):
    attributes = {key: value for key, value in span["attributes"].items() if key not in VARYING}
    events = [(event["name"], event["attributes"].get("exception.type")) for event in span["events"]]
    return span["kind"], attributes, span["attributes"].keys(), span["status"], events


@pytest.mark.parametrize("name", [RUN, SENT, OWN, FAILED])
def test_it_tells_what_it_tells_of_a_stock_worker(spans, name):
    assert masked(spans["celeriac"][name]) == masked(spans["celery"][name])


@pytest.mark.parametrize("side", ["celeriac", "celery"])
def test_its_spans_link_who_sends_and_who_runs(spans, side):
    run, sent, own, failed = (spans[side][name] for name in (RUN, SENT, OWN, FAILED))
    assert len({span["context"]["trace_id"] for span in (run, sent, own, failed)}) == 1
    assert run["parent_id"] is None
    assert [own["parent_id"], sent["parent_id"], failed["parent_id"]] == [
        span["context"]["span_id"] for span in (run, own, sent)
    ]
    assert failed["events"][0]["attributes"]["exception.message"] == "bad"
