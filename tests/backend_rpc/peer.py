"""Stock Celery beside us, with its results at `rpc://`: a worker, or a client that does as it is told.

A client reads one JSON line for each order and answers with one.
"""

import json
import sys
import time

from celery import Celery
from celery.result import AsyncResult, GroupResult
from kombu.common import maybe_declare
from kombu.utils.json import dumps

role, settings = sys.argv[1], json.loads(sys.argv[2])
app = Celery("peer", broker=settings.pop("broker"), backend="rpc://")
app.conf.update(settings)


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="fail")
def fail():
    raise ValueError("bad", 7)


@app.task(name="steps", bind=True)
def steps(self):
    self.update_state(state="PROGRESS", meta={"done": 1})
    return "é"


@app.task(name="again", bind=True)
def again(self):
    if self.request.retries < 1:
        raise self.retry(exc=KeyError("x"), countdown=0)
    return self.request.retries


@app.task(name="ignored", ignore_result=True)
def ignored():
    return 1


def queue():
    """The client's own, declared as before a call."""
    with app.pool.acquire_channel(block=True) as (_, channel):
        maybe_declare(app.backend.binding(channel))
    return app.backend.oid


def outcome(result):
    try:
        return {"returned": result.get(timeout=60)}
    except Exception as exc:
        return {"raised": type(exc).__name__, "module": type(exc).__module__, "args": list(exc.args)}


def state(id, wanted):
    """Polls until the task is in this state; its meta."""
    deadline = time.monotonic() + 60
    while AsyncResult(id, app=app).state != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    info = AsyncResult(id, app=app).info
    return repr(info) if isinstance(info, Exception) else info


def send(name, **options):
    return app.send_task(name, **options).id


def get(id):
    return outcome(AsyncResult(id, app=app))


def group(ids):
    return outcome(GroupResult("group", [AsyncResult(id, app=app) for id in ids], app=app))


if role == "worker":
    app.worker_main(["worker", "-P", "solo", "-n", "w1@test", "--without-mingle", "--without-gossip", "-l", "ERROR"])
else:
    orders = {function.__name__: function for function in (queue, state, send, get, group)}
    for line in sys.stdin:
        order = json.loads(line)
        print(dumps(orders[order.pop("do")](**order)), flush=True)
