"""Results: where the worker knows the backend, its connection stores them, and no round trip is waited for."""

import threading

from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str, str_to_bytes

from celeriac._celeriac import Channel

#: Backends of which the worker has its own.
KNOWN = (RedisBackend,)


#: The line to the worker of each thread that runs tasks.
channels = threading.local()


def hand_over(app, channel: Channel) -> None:
    """Has what the tracer stores in this thread handed to the worker, if that can store it. Any other backend is left
    alone."""
    if type(app.backend) not in KNOWN:
        return
    channels.own = channel
    with _patching:
        if not getattr(RedisBackend._store_result, "is_ours", False):
            RedisBackend._store_result = _handing(app, RedisBackend._store_result)


_patching = threading.Lock()


def _handing(app, theirs):
    def _store_result(self, task_id, result, state, traceback=None, request=None, **kwargs):
        # Only who runs the tasks has the line to the worker, and only what is stored as the worker would is handed over.
        channel = getattr(channels, "own", None)
        if channel is None or type(self) not in KNOWN or self.app is not app:
            return theirs(self, task_id, result, state, traceback=traceback, request=request, **kwargs)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id = bytes_to_str(task_id)
        # The body of a chord may look for its members' results.
        wait = bool(request and getattr(request, "chord", None))
        channel.store(task_id, state, str_to_bytes(self.encode(meta)), wait)
        return result

    _store_result.is_ours = True
    return _store_result
