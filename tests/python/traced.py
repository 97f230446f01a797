"""A stock worker's application whose tasks OpenTelemetry's or Sentry's integration traces: `celery -A traced worker`.

`TRACED_BY` says which. Spans go nowhere: tasks return where they are in their trace.
"""

import os

import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

from stock import app

BY_SENTRY = os.environ["TRACED_BY"] == "sentry"


class Nowhere(Transport):
    """Sentry's events are not sent."""

    def capture_envelope(self, envelope):
        pass


if BY_SENTRY:
    sentry_sdk.init(
        dsn="http://nobody@127.0.0.1:9/1", transport=Nowhere, traces_sample_rate=1.0, default_integrations=False,
        integrations=[CeleryIntegration()],
    )
else:
    trace.set_tracer_provider(TracerProvider())
    CeleryInstrumentor().instrument()


def place():
    """The trace, the span that this run is, and the span that sent it."""
    if BY_SENTRY:
        run = sentry_sdk.get_current_scope().transaction
        return {"trace": run.trace_id, "span": run.span_id, "parent": run.parent_span_id}
    run = trace.get_current_span()
    parent = run.parent and f"{run.parent.span_id:016x}"
    return {"trace": f"{run.context.trace_id:032x}", "span": f"{run.context.span_id:016x}", "parent": parent}


@app.task(name="traced.where")
def where(*_):
    return place()


@app.task(name="traced.start")
def start(name, args, queue):
    """Sends another task, which has a trace from here on."""
    sent = app.send_task(name, args, queue=queue)
    return {"place": place(), "sent": sent.id}
