"""The producer of every benchmark, and the stock Celery worker that it is compared with."""

import os

from celery import Celery

app = Celery("stock_app", broker=os.environ.get("CELERY_BROKER_URL"), backend=os.environ.get("CELERY_RESULT_BACKEND"))


@app.task(name="rust.noop")
def noop():
    """Nothing, under the name that the Rust workers know it by."""


@app.task(name="bench.busy")
def busy(rounds):
    """Keeps a processor for so many rounds."""
    for _ in range(rounds):
        pass
