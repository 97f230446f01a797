"""Results in django-celery-results' tables: where Django has them, and what it would write there."""

import os
from datetime import datetime, timezone
from typing import Any, Optional
from urllib.parse import quote, urlencode

from kombu.utils import json
from kombu.utils.encoding import str_to_bytes

from celeriac import libpq

DATABASE = "django_celery_results.backends.database"
ENGINES = {"django.db.backends.sqlite3": "sqlite", "django.db.backends.postgresql": "postgresql"}
#: What may stand in ``OPTIONS``, and what of that the worker is told.
OPTIONS = {
    "sqlite": {"timeout": True, "transaction_mode": False},
    "postgresql": dict.fromkeys(("connect_timeout", "application_name", "sslmode", "sslrootcert", "sslcert", "sslkey"), True),
}


def is_ready() -> bool:
    """Whether Django's models can be imported."""
    try:
        from django.apps import apps
    except ImportError:
        return False
    return apps.models_ready


def address() -> Optional[str]:
    """The URL by which the worker finds the tables; ``None``: only Django does, or something else happens when it writes."""
    from django.conf import settings
    from django.db import connections

    # A router may decide each time, and whoever listens to a model is to hear of each row.
    if settings.DATABASE_ROUTERS or _has_listeners():
        return None
    connection = connections["default"]
    told, dialect = connection.settings_dict, ENGINES.get(connection.settings_dict["ENGINE"])
    options = told["OPTIONS"] or {}
    if dialect is None or not options.keys() <= OPTIONS[dialect].keys():
        return None
    query = {name: value for name, value in options.items() if OPTIONS[dialect][name]}
    if connection.timezone_name != "UTC":
        query["time_zone"] = connection.timezone_name
    place = _file(told) if dialect == "sqlite" else _server(told)
    return place and f"django-db+{dialect}://{place}" + (f"?{urlencode(query)}" if query else "")


def _has_listeners() -> bool:
    from django.db.models import signals
    from django_celery_results.models import ChordCounter, TaskResult

    watched = (signals.pre_init, signals.post_init, signals.pre_save, signals.post_save)
    return any(signal.has_listeners(model) for signal in watched for model in (TaskResult, ChordCounter))


def _file(told: dict[str, Any]) -> Optional[str]:
    name = os.fspath(told["NAME"])
    if not name or ":memory:" in name or name.startswith("file:"):
        return None
    return f"/{quote(os.path.abspath(name))}"


def _server(told: dict[str, Any]) -> Optional[str]:
    # Without them the driver looks into files and variables of its own.
    if not all(told[name] for name in ("USER", "PASSWORD", "HOST", "NAME")):
        return None
    options = told["OPTIONS"] or {}
    if not libpq.says_all(told["HOST"], options, options.get("sslmode")):
        return None
    login, host = (":".join(quote(told[name], safe="") for name in names) for names in (("USER", "PASSWORD"), ("HOST",)))
    port = f":{told['PORT']}" if told["PORT"] else ""
    return f"{login}@{host}{port}/{quote(told['NAME'], safe='')}"


class _Recorder:
    """Stands for the backend, and for the manager of its rows, in django-celery-results' own code, and keeps what would be
    written."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self.TaskModel = self._default_manager = self
        self.columns: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def store_result(self, using=None, **columns) -> None:
        self.columns = columns


def row(theirs, backend, task_id: str, result: Any, state: str, traceback: Optional[str], request) -> bytes:
    """The columns of a result, as the worker takes them; ``theirs`` is the backend's own ``_store_result``."""
    recorder = _Recorder(backend)
    theirs(recorder, task_id, result, state, traceback=traceback, request=request)
    # The model's field has its own for the first, and for the second the database is asked (`Now()`).
    now = datetime.now(timezone.utc).isoformat()
    columns = {**recorder.columns, "date_done": now}
    if "date_started" in columns:
        columns["date_started"] = now
    return str_to_bytes(json.dumps(columns))
