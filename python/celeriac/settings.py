"""The app's settings, for Rust."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta, tzinfo
from typing import Any, Optional

from celery.app.defaults import DEFAULTS
from celery.utils.serialization import jsonify
from kombu.utils.encoding import safe_repr

from celeriac import _celeriac, backend, cached, queues

#: Settings that Celery does not have, or has no default for.
OURS = tuple(name for name in _celeriac.known_settings() if name not in DEFAULTS)
#: Settings that Python honours: here, in the processes of tasks, or where these send.
HONOURED = frozenset(
    {
        "beat_gid", "beat_schedule", "beat_sync_every", "beat_uid", "beat_umask",
        "broker_pool_acquire_timeout", "broker_pool_limit", "imports", "include", "override_backends",
        "result_backend_thread_safe", "result_cache_max", "task_always_eager", "task_eager_propagates",
        "task_reject_on_worker_lost", "task_remote_tracebacks", "task_store_eager_result",
        "worker_hijack_root_logger", "worker_max_memory_per_child", "worker_max_tasks_per_child", "worker_pool",
        "worker_pool_restarts", "worker_proc_alive_timeout", "worker_redirect_stdouts", "worker_redirect_stdouts_level",
        "worker_task_log_datefmt", "worker_task_log_format",
        # Celery has it from 5.7 on.
        *({"task_retry_on_worker_lost"} & DEFAULTS.keys()),
    }
)  # fmt: skip


def of(app) -> dict[str, Any]:
    """The settings that differ from Celery's defaults, under their lower-case names and in plain types."""
    found = {}
    for name, default in DEFAULTS.items():
        if name in HONOURED:
            continue
        value = READERS[name](app) if name in READERS else app.conf.get(name)
        if value is None or (type(value) is type(default) and value == default):
            continue
        found[name] = plain(queues.table(value) if name == "task_queues" else value)
    if backend.known(app) is None:
        # Python stores what its tasks come to, as the serializer that only it has writes it.
        found.pop("result_backend", None)
        found.pop("result_serializer", None)
    else:
        found.update({"result_backend": address} if (address := backend.address(app)) else {})
    # Where it is stands in the address; without one it is Python's alone.
    found.pop("cache_backend", None)
    if found.pop("cache_backend_options", None) and backend.is_memcached(backend.known(app)):
        found["cache_backend_options"] = cached.options(app)
    if found.get("task_serializer") not in backend.SERIALIZERS:
        # What tasks send is sent in their processes.
        found.pop("task_serializer", None)
    for name in OURS:
        if app.conf.get(name) is not None:
            found[name] = plain(app.conf.get(name))
    return found


def zone(app) -> Optional[str]:
    """The name of the zone that the app's settings, or else Django's, name (celery/app/utils.py ``Settings.timezone``).

    :raises ValueError: It has none.
    """
    value = app.conf.timezone
    if not value or isinstance(value, str):
        return value or None
    if not isinstance(value, tzinfo):
        raise ValueError(f"timezone: {value!r} is no time zone")
    # zoneinfo's, pytz's, and dateutil's, which knows the name or else the file.
    name = getattr(value, "key", None) or getattr(value, "zone", None) or getattr(value, "_filename", None)
    try:
        offset = value.utcoffset(None)
    except (AttributeError, TypeError):
        # It depends on the moment.
        offset = None
    if name is not None:
        name = str(name).rpartition("/zoneinfo/")[2]
    elif offset is not None:
        name = _posix(offset)
    else:
        raise ValueError(f"timezone: {value!r} has no name that the time zone database knows; use that of a zone")
    return name


def _posix(offset: timedelta) -> str:
    """A zone that is always so far east of Greenwich, as POSIX writes it in ``TZ``: west of it is positive there."""
    if not offset:
        return "UTC"
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    east, west = ("+", "-") if offset > timedelta() else ("-", "")
    return f"<{east}{hours:02}{minutes:02}>{west}{hours}:{minutes:02}"


def routes(app) -> Optional[list]:
    """The tables among ``task_routes``: what a router says, only Python can ask (celery/app/routes.py ``prepare``)."""
    return [route for route in _listed(app.conf.get("task_routes")) if isinstance(route, (Mapping, list, tuple))] or None


def has_routers(app) -> bool:
    """Whether ``task_routes`` has something that is no table."""
    return len(routes(app) or ()) < len(_listed(app.conf.get("task_routes")))


def annotations(app) -> Optional[list]:
    """The tables among ``task_annotations``, with the attributes that Rust knows: Celery itself has given all of them to
    the tasks (celery/app/annotations.py ``prepare``)."""
    tables = [table for table in _listed(app.conf.get("task_annotations")) if isinstance(table, Mapping)]
    return [{str(task): _known(given) for task, given in table.items()} for table in tables] or None


def _known(given: Any) -> dict[str, Any]:
    return {name: value for name, value in dict(given).items() if name in ANNOTATED and value is not None}


def _listed(value: Any) -> Sequence:
    if value is None:
        return []
    return value if isinstance(value, (list, tuple)) else [value]


#: Settings of which Rust is to know something else than the app's value.
READERS = {"task_annotations": annotations, "task_routes": routes, "timezone": zone}
#: What annotations say that Rust heeds, too.
ANNOTATED = frozenset(_celeriac.known_annotations())


def told(app, with_defaults: bool) -> str:
    """The settings as remote control's ``conf`` tells them, in JSON (celery/worker/control.py ``conf``)."""
    table = app.conf.table(with_defaults=with_defaults)
    return json.dumps(jsonify(table, keyfilter=_is_told, unknown_type_filter=safe_repr))


def _is_told(name) -> bool:
    return isinstance(name, str) and not name.startswith("__")


def plain(value: Any) -> Any:
    """A value without what only Python knows, as far as that goes."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value
