"""A stock Celery result backend that counts chords as it is told: JSON lines in, JSON lines out.

What it would publish is reported instead; a publication that is to be held waits for `release`.
"""

import json
import sys
import threading

from celery import Celery, signature
from celery.app.task import Context
from celery.canvas import Signature
from celery.result import AsyncResult, GroupResult
from kombu.utils.json import dumps, loads

settings = json.loads(sys.argv[1])
app = Celery("peer", broker="memory://", backend=settings.pop("backend"))
app.conf.update(settings)
app.set_current()
app.set_default()
backend = app.backend

reports = []
held, released = threading.Event(), threading.Event()
holds = False


def publish(self, results):
    if holds:
        held.set()
        released.wait()
    reports.append({"published": results})


def fail(callback, exc=None):
    cause = exc.__cause__
    reports.append({"failed": str(exc), "cause": None if cause is None else repr(cause)})


Signature.delay = publish
backend.chord_error_from_stack = fail


def part(order):
    result = order["result"]
    if order["state"] == "FAILURE":
        result = ValueError(*result)
    body = signature("body", app=app)
    body["chord_size"] = order.get("size")
    request = Context({"id": order["id"], "group": order["group"], "group_index": order["index"], "chord": dict(body)})
    backend.on_chord_part_return(request, order["state"], result)


def header(order):
    def result(value):
        if isinstance(value, list):
            return GroupResult(value[0], [result(member) for member in value[1]], app=app)
        return AsyncResult(value, app=app)
    group = result([order["group"], order["members"]])
    backend.apply_chord((group.id, group.results), None)


def run(order):
    if order["do"] == "start":
        backend.set_chord_size(order["group"], order["size"])
    elif order["do"] == "add":
        backend.add_to_chord(order["group"], None)
    elif order["do"] == "header":
        header(order)
    elif order["do"] == "store":
        backend.store_result(order["id"], order["result"], "SUCCESS")
    elif order["do"] == "part":
        part(order)


def report():
    print(dumps({"reports": reports}), flush=True)
    reports.clear()


report()
running = None
for line in sys.stdin:
    order = loads(line)
    if order["do"] == "release":
        released.set()
        running.join()
    elif order.get("hold"):
        holds = True
        held.clear(), released.clear()
        running = threading.Thread(target=run, args=(order,), daemon=True)
        running.start()
        assert held.wait(60)
        holds = False
    else:
        run(order)
    report()
