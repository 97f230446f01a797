"""Results: where the worker has the backend too, its connection stores them, and no round trip is waited for."""

import re
import threading

from celery.app import backends
from celery.backends.redis import RedisBackend
from celery.backends.rpc import RPCBackend
from kombu.serialization import dumps
from kombu.utils.encoding import bytes_to_str, str_to_bytes

from celeriac._celeriac import Channel

#: What names the backends that the worker has too. Others are not even imported: some must not be before the project is.
NAMES = ("redis", "rediss", "rpc", "celery.backends.redis", "celery.backends.rpc")
#: The serializers that the worker has too.
SERIALIZERS = ("json", "msgpack", "yaml", "application/json", "application/x-msgpack", "application/x-yaml")


def known(app):
    """The class of the app's backend if the worker has that too, with its settings. Any other is left to Celery."""
    name = app.backend_cls or app.conf.result_backend
    if not isinstance(name, str) or re.split(r"://|\+|:|\.[A-Z]", name)[0] not in NAMES:
        return None
    backend, _ = backends.by_url(name, app.loader)
    if app.conf.result_serializer not in SERIALIZERS:
        return None
    if backend is RedisBackend:
        return backend
    # Celery's works with every broker.
    is_amqp = backend is RPCBackend and app.connection_for_write().transport.driver_type == "amqp"
    return backend if is_amqp else None


def hand_over(app, channel: Channel) -> None:
    """Has what the tracer stores handed to the worker, if that can store it."""
    kind = known(app)
    thread = threading.get_ident()

    def is_ours(backend) -> bool:
        # Only who runs the tasks has the line to the worker, and only what is stored as the worker would is handed over.
        return threading.get_ident() == thread and type(backend) is kind and backend.app is app

    if kind is RedisBackend:
        RedisBackend._store_result = _storing(RedisBackend._store_result, is_ours, channel)
    elif kind is RPCBackend:
        RPCBackend.store_result = _sending(RPCBackend.store_result, is_ours, channel)


def _storing(theirs, is_ours, channel: Channel):
    def _store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        if not is_ours(self):
            return theirs(self, task_id, result, state, traceback=traceback, request=request, **kwargs)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id = bytes_to_str(task_id)
        # The body of a chord may look for its members' results.
        wait = bool(request and getattr(request, "chord", None))
        channel.store(task_id, state, str_to_bytes(self.encode(meta)), wait)
        return result

    return _store_result


def _sending(theirs, is_ours, channel: Channel):
    def store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        if not is_ours(self):
            return theirs(self, task_id, result, state, traceback=traceback, request=request, **kwargs)
        queue, correlation_id = self.destination_for(task_id, request)
        if not queue:
            return None
        meta = self._to_result(task_id, state, result, traceback, request)
        _, _, payload = dumps(meta, serializer=self.serializer)
        channel.store(task_id, state, str_to_bytes(payload), False, queue, correlation_id)
        return result

    return store_result
