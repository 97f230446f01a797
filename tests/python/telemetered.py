"""A project that OpenTelemetry instruments as its documentation has it: in each process of the pool. What would be exported
is written to a file.
"""

import os

from celery import Celery
from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

app = Celery("telemetered", broker=os.environ["TELEMETERED_BROKER"], backend=os.environ["TELEMETERED_RESULTS"])
app.conf.task_default_queue = "telemetered"


@worker_process_init.connect(weak=False)
def instrument(**_):
    out = open(os.environ["TELEMETERED_FILE"], "a", buffering=1)  # noqa: SIM115 - for as long as the process lives
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


@app.task
def parent(text):
    """Sends another task, in its own trace."""
    with trace.get_tracer(__name__).start_as_current_span("of its own"):
        return failing.delay(text).id


@app.task
def failing(text):
    raise ValueError(text)
