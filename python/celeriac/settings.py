"""The app's settings, for Rust."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from celery.app.defaults import DEFAULTS

from celeriac import backend


def of(app) -> dict[str, Any]:
    """The settings that differ from Celery's defaults, under their lower-case names and in plain types."""
    found = {}
    for name, default in DEFAULTS.items():
        value = app.conf.get(name)
        if value is None or (type(value) is type(default) and value == default):
            continue
        found[name] = plain(value)
    if backend.known(app) is None:
        # Python stores what its tasks come to, as the serializer that only it has writes it.
        found.pop("result_backend", None)
        found.pop("result_serializer", None)
    if found.get("task_serializer") not in backend.SERIALIZERS:
        # What tasks send is sent in their processes.
        found.pop("task_serializer", None)
    return found


def plain(value: Any) -> Any:
    """A value without what only Python knows, as far as that goes."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value
