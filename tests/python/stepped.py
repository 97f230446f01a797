"""A project with boot steps and an option of its own: they write down what is done with them."""

import json
import os
import threading

from celery import Celery, bootsteps, signals
from click import Option

app = Celery("stepped", broker=os.environ.get("STEPPED_BROKER"))
app.conf.task_default_queue = os.environ.get("STEPPED_QUEUE", "stepped")
app.user_options["worker"].add(Option(("--shelf",), default="none", help="Which shelf."))
app.user_options["worker"].add(Option(("--dusty",), is_flag=True))
ticked = threading.Event()


def write_down(*said):
    with open(os.environ["STEPPED_FILE"], "a") as file:
        file.write(json.dumps(said) + "\n")


def tick():
    if not ticked.is_set():
        ticked.set()
        write_down("ticked")


class Written(bootsteps.StartStopStep):
    def __init__(self, parent, shelf=None, dusty=None, **options):
        super().__init__(parent, shelf=shelf, dusty=dusty, **options)
        self.note("made", parent, shelf, dusty)

    def note(self, what, parent, *more):
        write_down(type(self).__name__, what, type(parent).__name__, parent.app is app, parent.hostname, *more)

    def include_if(self, parent):
        return True

    def create(self, parent):
        self.note("created", parent)

    def start(self, parent):
        self.note("started", parent)

    def close(self, parent):
        self.note("closed", parent)

    def stop(self, parent):
        self.note("stopped", parent)

    def terminate(self, parent):
        self.note("terminated", parent)

    def shutdown(self, parent):
        self.note("shut down", parent)


class Base(Written):
    requires = {"celery.worker.components:Timer", "celery.worker.components:Pool"}

    def start(self, worker):
        super().start(worker)
        worker.timer.call_repeatedly(0.05, tick, ())


class Above(Written):
    requires = (Base,)


class Left(Written):
    requires = (Above,)

    def include_if(self, worker):
        return False


class Consuming(Written):
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer):
        super().start(consumer)
        if os.environ.get("STEPPED_FAILS"):
            raise KeyError("no such shelf")


class Service:
    def start(self):
        write_down("service started")

    def stop(self):
        write_down("service stopped")


class Kept(bootsteps.StartStopStep):
    """Keeps what it has created, which is started and stopped."""

    requires = (Above,)

    def create(self, worker):
        return Service()


app.steps["worker"] |= {Base, Above, Left, Kept}
app.steps["consumer"].add(Consuming)


class Own(bootsteps.ConsumerStep):
    def get_consumers(self, channel):
        return []


class Looping(bootsteps.StartStopStep):
    requires = {"celery.worker.components:Hub"}


if os.environ.get("STEPPED_OWN"):
    app.steps["consumer"].add(Own)
    app.steps["worker"].add(Looping)


@signals.worker_ready.connect
def on_ready(**_):
    write_down("ready")


@signals.worker_shutdown.connect
def on_shutdown(**_):
    write_down("shutdown")
