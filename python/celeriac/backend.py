"""Results: where the worker has the backend too, its connection stores them, and no round trip is waited for."""

import re
import threading
from typing import Optional

from celery.app import backends
from celery.backends.base import DisabledBackend
from celery.backends.filesystem import FilesystemBackend
from celery.backends.redis import RedisBackend
from celery.backends.rpc import RPCBackend
from kombu.serialization import dumps
from kombu.utils.encoding import bytes_to_str, str_to_bytes

from celeriac import rows
from celeriac._celeriac import Channel

#: What names the backends that the worker has too. Others are not even imported: some must not be before the project is.
NAMES = (
    "redis", "rediss", "rpc", "file", "db", "database", "celery.backends.redis", "celery.backends.rpc",
    "celery.backends.filesystem", "celery.backends.database",
)  # fmt: skip
#: The serializers that the worker has too.
SERIALIZERS = ("json", "msgpack", "yaml", "application/json", "application/x-msgpack", "application/x-yaml")


def known(app):
    """The class of the app's backend if the worker has that too, with its settings. Any other is left to Celery."""
    name = app.backend_cls or app.conf.result_backend
    if not isinstance(name, str) or re.split(r"://|\+|:|\.[A-Z]", name)[0] not in NAMES:
        return None
    backend, url = backends.by_url(name, app.loader)
    if app.conf.result_serializer not in SERIALIZERS:
        return None
    if backend is RedisBackend:
        return backend
    if backend is FilesystemBackend:
        return backend if url and url.startswith("file://") else None
    if rows.address(app, backend, url):
        return backend
    # Celery's works with every broker.
    is_amqp = backend is RPCBackend and app.connection_for_write().transport.driver_type == "amqp"
    return backend if is_amqp else None


def address(app) -> Optional[str]:
    """What the worker is given for the setting ``result_backend`` where its form is another than Celery's."""
    backend = known(app)
    if not rows.has(backend):
        return None
    _, url = backends.by_url(app.backend_cls or app.conf.result_backend, app.loader)
    return rows.address(app, backend, url)


def celerys(app) -> Optional[str]:
    """The address, without passwords, of a result backend that only Celery has; ``None``: the worker has it, or there is none."""
    if known(app) is not None or isinstance(app.backend, DisabledBackend):
        return None
    return app.backend.as_uri()


#: The line to the worker of each thread that runs tasks.
channels = threading.local()

_patching = threading.Lock()


def hand_over(app, channel: Channel) -> None:
    """Has what the tracer stores in this thread handed to the worker, if that can store it."""
    kind = known(app)
    channels.own = channel
    with _patching:
        if kind in (RedisBackend, FilesystemBackend) and not hasattr(kind._store_result, "theirs"):
            kind._store_result = _storing(app, kind, kind._store_result)
        elif rows.has(kind) and not hasattr(kind._store_result, "theirs"):
            kind._store_result = _listing(app, kind, kind._store_result)
        elif kind is RPCBackend and not hasattr(RPCBackend.store_result, "theirs"):
            RPCBackend.store_result = _sending(app, RPCBackend.store_result)


def _line(backend, kind, app) -> Optional[Channel]:
    # Only who runs the tasks has a line to the worker, and only what is stored as the worker would is handed over.
    return getattr(channels, "own", None) if type(backend) is kind and backend.app is app else None


def _waits(request) -> bool:
    # The body of a chord may look for its members' results.
    return bool(request and getattr(request, "chord", None))


def _storing(app, kind, theirs):
    def _store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        channel = _line(self, kind, app)
        if channel is None:
            return theirs(self, task_id, result, state, traceback=traceback, request=request, **kwargs)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id = bytes_to_str(task_id)
        channel.store(task_id, state, str_to_bytes(self.encode(meta)), _waits(request))
        return result

    _store_result.theirs = theirs
    return _store_result


def _listing(app, kind, theirs):
    def _store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        channel = _line(self, kind, app)
        if channel is None:
            return theirs(self, task_id, result, state, traceback=traceback, request=request, **kwargs)
        row = rows.row(self, theirs, bytes_to_str(task_id), result, state, traceback, request)
        channel.store(bytes_to_str(task_id), state, row, _waits(request))
        return result

    _store_result.theirs = theirs
    return _store_result


def _sending(app, theirs):
    def store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        channel = _line(self, RPCBackend, app)
        if channel is None:
            return theirs(self, task_id, result, state, traceback=traceback, request=request, **kwargs)
        queue, correlation_id = self.destination_for(task_id, request)
        if not queue:
            return None
        meta = self._to_result(task_id, state, result, traceback, request)
        _, _, payload = dumps(meta, serializer=self.serializer)
        channel.store(task_id, state, str_to_bytes(payload), False, queue, correlation_id)
        return result

    store_result.theirs = theirs
    return store_result
