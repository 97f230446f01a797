"""Results: where the worker has the backend too, its connection stores them, and a round trip is waited for only where
somebody may look for what is stored before the task has ended.
"""

import os
import re
import threading
from typing import Optional

from celery import signals, states
from celery.app import backends
from celery.app.trace import task_has_custom
from celery.backends.base import DisabledBackend
from celery.backends.cache import CacheBackend
from celery.backends.filesystem import FilesystemBackend
from celery.backends.rpc import RPCBackend
from kombu.serialization import dumps
from kombu.utils.encoding import bytes_to_str, str_to_bytes

from celeriac import cached, orm, rows
from celeriac._celeriac import Channel

#: What names the backends that the worker has too. Others are not even imported: some must not be before the project is.
NAMES = (
    "redis", "rediss", "rpc", "file", "db", "database", "django-db", "celery.backends.redis", "celery.backends.rpc",
    "celery.backends.filesystem", "celery.backends.database", "django_celery_results.backends",
    "django_celery_results.backends.database", "cache", "celery.backends.cache",
)  # fmt: skip
#: The serializers that the worker has too.
SERIALIZERS = ("json", "msgpack", "yaml", "application/json", "application/x-msgpack", "application/x-yaml")


def known(app):
    """The class of the app's backend if the worker has that too, with its settings. Any other is left to Celery."""
    name = app.backend_cls or app.conf.result_backend
    if not isinstance(name, str) or re.split(r"://|\+|:|\.[A-Z]", name)[0] not in NAMES:
        return None
    if name.startswith("django") and not orm.is_ready():
        return None
    backend, url = backends.by_url(name, app.loader)
    if app.conf.result_serializer not in SERIALIZERS:
        return None
    if is_redis(backend):
        return backend
    if backend is FilesystemBackend:
        return backend if url and url.startswith("file://") else None
    if rows.address(app, backend, url) or cached.address(app, backend, url):
        return backend
    # Celery's works with every broker.
    is_amqp = backend is RPCBackend and app.connection_for_write().transport.driver_type == "amqp"
    return backend if is_amqp else None


def address(app) -> Optional[str]:
    """What the worker is given for the setting ``result_backend`` where its form is another than Celery's."""
    backend = known(app)
    if not (rows.has(backend) or is_memcached(backend)):
        return None
    _, url = backends.by_url(app.backend_cls or app.conf.result_backend, app.loader)
    return rows.address(app, backend, url) or cached.address(app, backend, url)


def is_redis(kind) -> bool:
    """Whether a class is Celery's for Redis, which is not imported for that: its client need not be installed."""
    return kind is not None and (kind.__module__, kind.__name__) == ("celery.backends.redis", "RedisBackend")


def is_memcached(kind) -> bool:
    """Whether a class is Celery's for a memcached, if it is one that the worker has."""
    return kind is CacheBackend


def celerys(app) -> Optional[str]:
    """The address, without passwords, of a result backend that only Celery has; ``None``: the worker has it, or there is none."""
    if known(app) is not None or isinstance(app.backend, DisabledBackend):
        return None
    return app.backend.as_uri()


#: The line to the worker of each thread that runs tasks, the app, and by the names of tasks that have run whether their
#: successes are heeded.
channels = threading.local()

_patching = threading.Lock()


def hand_over(app, channel: Channel) -> None:
    """Has what the tracer stores in this thread handed to the worker, if that can store it."""
    kind = known(app)
    channels.own, channels.app, channels.heeded = channel, app, {}
    with _patching:
        if (is_redis(kind) or is_memcached(kind) or kind is FilesystemBackend) and not hasattr(kind._store_result, "theirs"):
            kind._store_result = _storing(kind)
        elif rows.has(kind) and not hasattr(kind._store_result, "theirs"):
            kind._store_result = _listing(kind)
        elif kind is RPCBackend and not hasattr(RPCBackend.store_result, "theirs"):
            RPCBackend.store_result = _sending(RPCBackend.store_result)


def make(app) -> None:
    """Makes the app's backend, if the worker has that too, before anything is forked: all processes share its pages, and none
    has to make one before its first task. It connects when it is asked something, and is ready to be forked: stock's main
    process makes one, too, and its later processes have it from there."""
    kind = known(app)
    if is_redis(kind) or is_memcached(kind):
        app.backend  # Asking makes it.


def take_back() -> None:
    """Leaves what is stored in this thread from now on to Celery."""
    channels.own = None


# What a task forks has a copy of the line, which belongs to one process.
os.register_at_fork(after_in_child=take_back)


def _line(backend, kind) -> Optional[Channel]:
    # Only who runs the tasks has a line to the worker, and only what is stored where the worker stores is handed over: a task
    # may have a backend of its own.
    own = getattr(channels, "own", None)
    return own if own is not None and type(backend) is kind and backend is channels.app.backend else None


def _waits(request, state: str) -> bool:
    """Whether it must be stored before anything else happens: somebody may look for it, or end this process."""
    if state == states.FAILURE:
        # Errbacks, and whoever hears of failures, come after this (celery/backends/base.py `Backend.mark_as_failure`).
        return True
    if state == states.SUCCESS and _is_heeded(getattr(request, "task", None)):
        return True
    # The body of a chord may look for its members' results.
    return bool(request and getattr(request, "chord", None))


def _is_heeded(name: Optional[str]) -> bool:
    is_heeded = channels.heeded.get(name)
    if is_heeded is None:
        task = channels.app.tasks.get(name)
        # What is stored for no task is no end of one, with which it could be told.
        is_heeded = channels.heeded[name] = task is None or _hears_of_success(task)
    return is_heeded


def _hears_of_success(task) -> bool:
    """Whether anything of the project is called when the result has been stored (celery/app/trace.py ``trace_task``)."""
    if any(task_has_custom(task, name) for name in ("on_success", "after_return")):
        return True
    receivers = (*signals.task_success._live_receivers(task), *signals.task_postrun._live_receivers(task))
    # Celery's own for Django closes connections.
    return any(type(getattr(each, "__self__", None)).__module__ != "celery.fixups.django" for each in receivers)


def _storing(kind):
    theirs = kind._store_result

    def _store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        channel = _line(self, kind)
        if channel is None:
            return theirs(self, task_id, result, state, traceback=traceback, request=request, **kwargs)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id = bytes_to_str(task_id)
        channel.store(task_id, state, str_to_bytes(self.encode(meta)), _waits(request, state))
        return result

    _store_result.theirs = theirs
    return _store_result


def _listing(kind):
    theirs = kind._store_result

    def _store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        channel = _line(self, kind)
        if channel is None:
            return theirs(self, task_id, result, state, traceback=traceback, request=request, **kwargs)
        row = rows.row(theirs, self, bytes_to_str(task_id), result, state, traceback, request)
        channel.store(bytes_to_str(task_id), state, row, _waits(request, state))
        return result

    _store_result.theirs = theirs
    return _store_result


def _sending(theirs):
    def store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        channel = _line(self, RPCBackend)
        if channel is None:
            return theirs(self, task_id, result, state, traceback=traceback, request=request, **kwargs)
        queue, correlation_id = self.destination_for(task_id, request)
        if not queue:
            return None
        meta = self._to_result(task_id, state, result, traceback, request)
        _, _, payload = dumps(meta, serializer=self.serializer)
        channel.store(task_id, state, str_to_bytes(payload), _waits(request, state), queue, correlation_id)
        return result

    store_result.theirs = theirs
    return store_result
