"""The Python side: stock Celery, with the example worker's tasks declared as a project declares them."""

import json

from celery import Celery, shared_task

from support import SECONDS


@shared_task(name="rust.add")
def add(x, y, z=0):
    """The one that Python can run as well, to compare with."""
    return x + y + z


@shared_task(name="rust.identity")
def identity(x):
    raise NotImplementedError


@shared_task(name="rust.noop")
def noop():
    raise NotImplementedError


class CustomError(Exception):
    """A project's own exception."""


def connect(server):
    app = Celery("client", broker=server.broker_url, backend=server.result_url, set_as_current=False)
    app.conf.update(
        accept_content=["json", "msgpack", "yaml"], result_accept_content=["json"], broker_connection_timeout=5,
        task_routes={"rust.*": {"queue": "tasks"}},
        # A result that is thrown away after Redis has gone would wait for it for ever.
        result_backend_transport_options={"retry_policy": {"max_retries": 1}},
    )
    return app


class Caller:
    """Calls the tasks of one queue."""

    def __init__(self, app, server, queue):
        self.app, self.server, self.queue = app, server, queue

    def send(self, name, *args, **kwargs):
        """The task by name, as from a project that has not declared it."""
        return self.send_with(name, args, kwargs)

    def send_with(self, name, args=(), kwargs=None, **options):
        return self.app.send_task(f"rust.{name}", args, kwargs or {}, **{"queue": self.queue, **options})

    def call(self, name, *args, **kwargs):
        return self.value(self.send(name, *args, **kwargs))

    def value(self, result):
        return result.get(timeout=SECONDS)

    def error(self, result):
        """The exception that the task failed with."""
        error = result.get(timeout=SECONDS, propagate=False)
        assert isinstance(error, Exception), error
        return error

    def stored(self, name, *args, until="SUCCESS", **options):
        """Every meta that is stored for a call, in order, up to one in that state; and the result."""
        with self.server.results.pubsub(ignore_subscribe_messages=True) as watch:
            watch.psubscribe("celery-task-meta-*")
            watch.get_message(timeout=SECONDS)
            result = self.send_with(name, args, **options)
            metas = []
            while not metas or metas[-1]["status"] != until:
                message = watch.get_message(timeout=SECONDS)
                assert message, f"no {until} was stored after {metas}"
                if message["channel"].decode().endswith(result.id):
                    metas.append(json.loads(message["data"]))
            return metas, result
