"""A stock Celery worker's application: `celery -A stock worker`. It has Python tasks of the example worker's names.

They say what the example worker's tasks must do, for stock workers of every version that stands in a mixed fleet. What
it appends to a file ends in ` by stock`, so that a test sees who ran a message.
"""

import builtins
import json
import os
import threading
import time

from celery import Celery
from celery.exceptions import Ignore, Reject

if os.environ["STOCK_BROKER"].startswith("filesystem"):
    import whole_files  # noqa: F401

app = Celery("stock", broker=os.environ["STOCK_BROKER"], backend=os.environ["STOCK_BACKEND"])
app.conf.update(
    broker_transport_options=json.loads(os.environ["STOCK_TRANSPORT_OPTIONS"]), task_track_started=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
app.conf.update(json.loads(os.environ.get("STOCK_SETTINGS", "{}")))
hangs = "STOCK_HANGS" in os.environ


@app.task(name="rust.add")
def add(x, y, z=0):
    return x + y + z


@app.task(name="rust.add_late", acks_late=True)
def add_late(x, y, pause=0):
    time.sleep(pause)
    return x + y


@app.task(name="rust.mul")
def mul(x, y):
    return x * y


@app.task(name="rust.echo")
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task(name="rust.hog")
def hog(seconds):
    time.sleep(seconds)
    return seconds


@app.task(name="rust.identity")
def identity(x):
    return x


@app.task(name="rust.xsum")
def xsum(numbers):
    return sum(numbers)


@app.task(name="rust.fail")
def fail(exc_type, message):
    raise getattr(builtins, exc_type)(message)


@app.task(name="rust.sleep")
def sleep(seconds):
    time.sleep(seconds)
    return seconds


@app.task(name="rust.noop")
def noop():
    pass


@app.task(name="rust.ids", bind=True)
def ids(self, x):
    return [self.request.root_id, self.request.parent_id, x]


@app.task(name="rust.flaky", bind=True, max_retries=10)
def flaky(self, key, failures):
    if self.request.retries < failures:
        raise self.retry(exc=KeyError(key), countdown=2**self.request.retries)
    return self.request.retries + 1


@app.task(name="rust.reject")
def reject(reason="rejected", requeue=False):
    raise Reject(reason, requeue=requeue)


@app.task(name="rust.ignore")
def ignore():
    raise Ignore()


@app.task(name="rust.replace_with", bind=True)
def replace_with(self, sig):
    return self.replace(self.app.signature(sig))


@app.task(name="rust.add_to_chord", bind=True)
def add_to_chord(self, sig):
    self.add_to_chord(self.app.signature(sig))


@app.task(name="rust.note_failure")
def note_failure(request, exc, traceback, path=""):
    """An errback of the newer kind: it is called in place, by whichever worker saw the failure."""
    with open(path, "a") as file:
        file.write(f"{request.id} {type(exc).__name__} {exc.args[0]}\n")


def write(path, line):
    if hangs:
        threading.Event().wait()  # Until the process is killed.
    with open(path, "a") as file:
        file.write(f"{line} by stock\n")


@app.task(name="rust.abort", acks_late=True)
def abort(pause=0):
    """The mended one."""


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
