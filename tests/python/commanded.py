"""A project that teaches its worker commands of its own, and queues: as Celery's documentation shows it."""

import json
import os
import signal
import threading
import time

from celery import Celery, signals
from celery.exceptions import WorkerShutdown
from celery.worker import control, state as worker_state
from celery.worker.control import control_command, inspect_command

app = Celery("commanded", broker=os.environ.get("COMMANDED_BROKER"), backend=os.environ.get("COMMANDED_RESULTS"))
app.conf.task_default_queue = os.environ.get("COMMANDED_QUEUE", "commanded")
app.conf.update(json.loads(os.environ.get("COMMANDED_SETTINGS", "{}")))
released = threading.Event()


@signals.celeryd_init.connect
def configure(sender, conf, **_):
    if sender.startswith("configured"):
        conf.worker_concurrency = 3
        conf.worker_prefetch_multiplier = 5


@signals.celeryd_after_setup.connect
def add_direct_queue(sender, instance, **_):
    # As Celery's documentation has it.
    instance.app.amqp.queues.select_add(f"{sender}.dq")
    if sender.startswith("configured"):
        instance.app.amqp.queues.deselect("unwanted")


@control_command(args=[("n", int)], signature="[N=1]")
def increase_prefetch_count(state, n=1):
    state.consumer.qos.increment_eventually(n)
    return {"ok": "prefetch count incremented"}


@control_command(args=[("n", int)], signature="[N=1]")
def decrease_prefetch_count(state, n=1):
    state.consumer.qos.decrement_eventually(n)
    return {"ok": "prefetch count decremented"}


@inspect_command()
def current_prefetch_count(state):
    return {"prefetch_count": state.consumer.qos.value}


@inspect_command(alias="seen_from_within")
def about(state, **given):
    """What a command can know."""
    consumer = state.consumer
    controller = consumer.controller
    return {
        "given": given, "app": state.app.main, "hostname": [state.hostname, consumer.hostname, controller.hostname],
        "apps": consumer.app is state.app and controller.app is state.app, "pool": consumer.pool.num_processes,
        "copied": sorted(state.tset([2, 1])), "pid": consumer.pid == os.getpid(), "consumer": controller.consumer is consumer,
        "stats": sorted(controller.stats()), "keys": sorted(state),
    }


@inspect_command()
def busy(state):
    """What a command sees of tasks, by itself and through Celery's own."""
    active = state.tset(worker_state.active_requests)
    found = control.active(state)
    for request in found:
        request["began"] = abs(request.pop("time_start") - time.time()) < 60
        request["delivery_info"] = sorted(request["delivery_info"].items())
        del request["worker_pid"]
    return {
        "active": [[request.id, request.name, request.task is app.tasks[request.name]] for request in active],
        "began": [abs(time.time() - request.time_start) < 60 for request in active],
        "reserved": [request["id"] for request in control.reserved(state)], "found": found,
        "known": sorted(worker_state.requests), "total": worker_state.total_count["commanded.stubborn"],
        "revoked": list(worker_state.revoked),
    }


@control_command()
def consume_more(state, queue):
    state.consumer.add_task_queue(queue)
    state.consumer.call_soon(state.consumer.cancel_task_queue, "nobodys")
    inspect = state.consumer.controller.app.control.inspect([state.hostname], timeout=60)
    return [known["name"] for known in inspect.active_queues()[state.hostname]]


@control_command()
def grow(state):
    state.consumer.pool.grow(1)
    return state.consumer.pool.num_processes


@control_command()
def fail(state, **_):
    raise KeyError("no such shelf")


@control_command()
def unwritable(state):
    return object()


@control_command()
def reach_too_far(state):
    return state.consumer.gossip.election


@control_command()
def typed(state, **given):
    return {name: type(value).__name__ for name, value in given.items()}


@control_command()
def hang(state):
    released.wait(600)


@control_command()
def leave(state):
    raise WorkerShutdown(0)


@inspect_command(name="ping")
def my_ping(state, **_):
    return {"ok": "pang"}


@app.task
def add(x, y):
    return x + y


@app.task
def stubborn(path):
    """Ends with no signal but the last."""
    heard = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with open(path, "w") as file:
        file.write("begun")
    while True:
        time.sleep(0.05)
        if heard:
            with open(path, "w") as file:
                file.write("heard")
