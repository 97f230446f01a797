"""Traces that OpenTelemetry's and Sentry's integrations begin go through Rust tasks; log lines as JSON."""

import datetime
import json
import sys

import celery
import pytest
from celery import chain, shared_task
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import faults
from faults import HERE, eventually
from support import EXAMPLE_WORKER, SECONDS, Process



@shared_task(name="rust.send")
def send(signature):
    """Declared, for the integration ends the spans of declared tasks alone."""
    raise NotImplementedError


@pytest.fixture(scope="module")
def rust(broker, folder):
    worker = faults.RustWorker(broker, folder, "rust", faults.options(3600))
    yield worker
    assert worker.stop() == 0, worker.output.text()


@pytest.fixture(scope="module")
def python(broker):
    """Starts a stock worker with an integration; its queue is called after that."""
    started = {}

    def start(integration):
        if integration not in started:
            env = {
                "STOCK_BROKER": broker.url, "STOCK_BACKEND": broker.result_url, "STOCK_TRANSPORT_OPTIONS": "{}",
                "PYTHONPATH": str(HERE), "TRACED_BY": integration,
            }
            quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
            command = [sys.executable, "-m", "celery", "-A", "traced", "worker", "-P", "solo", "-Q", integration]
            started[integration] = faults.Faulty([*command, "-l", "info", *quiet], env)
            started[integration].output.wait_for(r"ready\.", timeout=faults.DEADLINE)
        return integration

    yield start
    for worker in started.values():
        assert worker.stop() == 0, worker.output.text()


@pytest.fixture(scope="module")
def app(broker):
    app = celery.Celery("client", broker=broker.url, backend=broker.result_url, set_as_current=False)
    with faults.current(app):
        yield app


@pytest.fixture
def client():
    """OpenTelemetry in this process: a tracer, and the spans that have ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = CeleryInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        yield provider.get_tracer("test"), exporter
    finally:
        instrumentor.uninstrument()


def published(exporter, name):
    """The trace and the span that a task was sent in."""
    [span] = [span for span in exporter.get_finished_spans() if span.name == f"apply_async/{name}"]
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def traceparent(headers):
    _, trace, span, _ = headers["traceparent"].split("-")
    return trace, span


def test_a_task_that_a_rust_task_sends_is_in_the_trace_of_the_client(app, rust, python, client):
    tracer, exporter = client
    with tracer.start_as_current_span("request") as request:
        where = app.signature("traced.where", queue=python("opentelemetry"))
        sent = app.signature("rust.send", (where,), queue="rust").apply_async()
    child = app.AsyncResult(sent.get(timeout=SECONDS)[0][0]).get(timeout=SECONDS)
    assert child["trace"] == f"{request.get_span_context().trace_id:032x}"
    # Without spans of its own the Rust worker hands on what it was sent.
    assert (child["trace"], child["parent"]) == published(exporter, "rust.send")


def test_a_chain_of_rust_and_python_tasks_is_one_trace(app, broker, rust, python, client):
    tracer, exporter = client
    with tracer.start_as_current_span("request"):
        steps = [
            app.signature("rust.identity", (1,), queue="rust"),
            app.signature("traced.where", queue=python("opentelemetry")),
            app.signature("rust.identity", queue="rust"),
            app.signature("nobody", queue="nowhere"),
        ]
        last = chain(*steps).apply_async()
    where = last.parent.parent.get(timeout=SECONDS)
    trace, span = published(exporter, "rust.identity")
    assert (where["trace"], where["parent"]) == (trace, span)
    headers = message(broker, "nowhere")["headers"]
    trace_of_last, parent_of_last = traceparent(headers)
    assert trace_of_last == trace
    # The third step was sent in the run of the second.
    assert parent_of_last not in (span, where["parent"])


def test_what_follows_a_rust_task_is_in_sentrys_trace(app, broker, rust, python):
    queue = python("sentry")
    where = app.signature("traced.where", queue=queue, link=app.signature("nobody", queue="nowhere"))
    first = app.send_task("traced.start", ("rust.send", (where,), "rust"), queue=queue).get(timeout=SECONDS)
    [[child, _], _] = app.AsyncResult(first["sent"]).get(timeout=SECONDS)
    child = app.AsyncResult(child).get(timeout=SECONDS)
    assert child["trace"] == first["place"]["trace"]
    # The span that sent the Rust task, within the run that did so.
    assert child["parent"] not in (None, child["span"])
    headers = message(broker, "nowhere")["headers"]
    assert headers["sentry-trace"].split("-")[0] == child["trace"]
    assert f"sentry-trace_id={child['trace']}" in headers["baggage"]


def message(broker, queue):
    popped = broker.client.brpop([queue], timeout=SECONDS)
    assert popped, f"nothing came into {queue}"
    return json.loads(popped[1])


@pytest.mark.parametrize("way", ["option", "setting", "environment"])
def test_log_lines_are_json(app, broker, tmp_path, way):
    queue, log, config = f"json-{way}", tmp_path / "worker.log", tmp_path / "celeriac.toml"
    config.write_text('worker_log_lines = "json"\n' if way == "setting" else "")
    command = [EXAMPLE_WORKER, "-q", "-b", broker.url, "--result-backend", broker.result_url, "--config", config]
    command += ["worker", "-l", "info", "-Q", queue, "-f", log, *(["--log-format", "json"] if way == "option" else [])]
    worker = Process(command, {"CELERY_WORKER_LOG_FORMAT": "json"} if way == "environment" else {})
    failed = app.send_task("rust.fail", ("ValueError", 'not "so"\nbut so'), queue=queue)
    assert isinstance(failed.get(timeout=SECONDS, propagate=False), ValueError)
    assert worker.stop() == 0, worker.output.text()
    lines = eventually(lambda: [json.loads(line) for line in log.read_text().splitlines()], "the log")
    for line in lines:
        assert {"time", "level", "logger", "message", "process"} <= line.keys(), line
        assert line["process"] == worker._process.pid
        age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(line["time"])
        assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
    of_task = [line for line in lines if line.get("task_id") == failed.id]
    assert [line["level"] for line in of_task] == ["INFO", "ERROR"], of_task
    assert {line["task_name"] for line in of_task} == {"rust.fail"}
    assert of_task[0]["message"] == f"Task rust.fail[{failed.id}] received"
    assert "raised unexpected: ValueError('not \"so\"\\nbut so')" in of_task[1]["message"]
    assert any(line["message"].endswith("ready.") and "task_id" not in line for line in lines)
