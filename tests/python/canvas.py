"""A canvas of the example tasks, each of which goes to the next of a fleet's queues; and what comes of it."""

import itertools
import json
import uuid

from celery import signature
from celery.canvas import xmap, xstarmap
from celery.exceptions import ChordError

from faults import eventually
from support import SECONDS

__all__ = ["Canvas", "ChordError"]


class Canvas:
    """What a test makes canvases with. `queues` take turns; nothing may be left in `all_queues` where that differs."""

    def __init__(self, app, broker, queues, folder, all_queues=None):
        self.app, self.broker, self.folder = app, broker, folder
        self._all = all_queues or queues
        self._queues = itertools.cycle(queues)

    def queue(self):
        return next(self._queues)

    def s(self, name, *args, **kwargs):
        """A signature, with an id to ask for its result by."""
        return self.app.signature(f"rust.{name}", args, kwargs).set(queue=self.queue())

    def si(self, name, *args, **kwargs):
        """A signature that takes nothing from others."""
        return self.app.signature(f"rust.{name}", args, kwargs, immutable=True).set(queue=self.queue())

    def named(self, sig):
        """A signature and its id: callbacks would otherwise get theirs where nobody sees it."""
        task_id = str(uuid.uuid4())
        return sig.set(task_id=task_id), task_id

    def map(self, name, items):
        return xmap(self.s(name), items, app=self.app).set(queue=self.queue())

    def starmap(self, name, items):
        return xstarmap(self.s(name), items, app=self.app).set(queue=self.queue())

    def path(self):
        return str(self.folder / uuid.uuid4().hex)

    # What came of it.

    def value(self, result):
        """Of a result, or of an id."""
        return self.ended(result).get(timeout=SECONDS)

    def error(self, result):
        error = self.ended(result).get(timeout=SECONDS, propagate=False)
        assert isinstance(error, Exception), error
        return error

    def result(self, result):
        return self.app.AsyncResult(result) if isinstance(result, str) else result

    def ended(self, result):
        """Polled: clients of 5.3 now and then do not hear what `get` waits for."""
        result = self.result(result)
        eventually(result.ready, lambda: f"{result} to be ready, left: {self.broker.left(*self._all)}", SECONDS)
        return result

    def children(self, result):
        """The ids of the tasks that it sent, after it has ended."""
        return [child.id for child in self.ended(result).children]

    def settle(self):
        """Until nothing is waiting, running or unacknowledged: all acknowledge late, so that then all has been done."""
        looks = iter(lambda: [self.broker.left(*self._all) for _ in range(3)], None)
        eventually(lambda: not any(map(any, next(looks))), lambda: f"left: {self.broker.left(*self._all)}", SECONDS)

    def meta(self, task_id):
        """What is stored, or nothing."""
        stored = self.app.backend.client.get(f"celery-task-meta-{task_id}")
        return stored and json.loads(stored)

    def is_nowhere(self, *ids):
        """After all has been done, nothing is stored for them."""
        self.settle()
        for task_id in ids:
            assert self.meta(task_id) is None

    def lines(self, path, count):
        """What errbacks wrote, of which there are so many."""
        self.settle()
        with open(path) as file:
            lines = file.read().splitlines()
        assert len(lines) == count, lines
        return sorted(lines)


def as_dict(sig):
    """A signature as an argument."""
    return json.loads(json.dumps(signature(sig)))
