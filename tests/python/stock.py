"""A stock Celery worker's application: `celery -A stock worker`. It has Python tasks of the example worker's names.

What it appends to a file ends in ` by stock`, so that a test sees who ran a message.
"""

import json
import os
import threading

from celery import Celery

app = Celery("stock", broker=os.environ["STOCK_BROKER"], backend=os.environ["STOCK_BACKEND"])
app.conf.update(
    broker_transport_options=json.loads(os.environ["STOCK_TRANSPORT_OPTIONS"]), task_track_started=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
hangs = "STOCK_HANGS" in os.environ


def write(path, line):
    if hangs:
        threading.Event().wait()  # Until the process is killed.
    with open(path, "a") as file:
        file.write(f"{line} by stock\n")


@app.task(name="rust.append")
def append(path, line, pause=0):
    write(path, line)


@app.task(name="rust.append_late", acks_late=True)
def append_late(path, line, pause=0):
    write(path, line)


@app.task(name="stock.append")
def stock_append(path, line):
    """One that Rust workers do not have."""
    write(path, line)
