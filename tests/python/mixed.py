"""A project with tasks in Python and in Rust; the latter are those of the example's module."""

import json
import os
import time

import shop_rust
from celery import Celery

app = Celery("mixed", broker=os.environ["MIXED_BROKER"], backend=os.environ["MIXED_RESULTS"])
app.conf.update(task_default_queue="mixed", result_expires=600)
app.conf.update(json.loads(os.environ.get("MIXED_SETTINGS", "{}")))


class OutOfStock(Exception):
    pass


@app.task
def add(x, y):
    return x + y


@app.task
def pid(_=None):
    return os.getpid()


@app.task
def wait_for(path):
    """Keeps its process until the file is there."""
    print(f"waiting for {path}")
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.path.basename(path)


@app.task
def call_rust(numbers):
    """Calls a Rust task as a function, within a process of the pool."""
    return shop_rust.total(numbers)


@app.task
def second(pair, _):
    return pair[1]
