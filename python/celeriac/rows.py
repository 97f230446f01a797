"""Results that are rows of tables: Celery's own code fills in the columns, and the worker stores them."""

import sys
from typing import Any, Optional

from kombu.utils import json
from kombu.utils.encoding import str_to_bytes

from celeriac import libpq, orm

DATABASE = "celery.backends.database"
#: Settings by which a project has Celery's tables otherwise than the worker has them.
OTHERWISE = ("database_engine_callback", "database_table_names", "database_table_schemas")
#: The options of an engine that say how Python's connections are kept.
POOL = ("pool_", "max_overflow", "echo")
#: What the worker knows of URLs: drivers, and options.
DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg", "postgresql+psycopg2")
OPTIONS = {
    "sqlite": {"timeout", "check_same_thread"},
    "postgresql": {"connect_timeout", "application_name", "sslmode", "sslrootcert", "sslcert", "sslkey"},
}


def _class(module: str) -> Optional[type]:
    """A backend's class, if its module has been imported."""
    return getattr(sys.modules.get(module), "DatabaseBackend", None)


def has(kind) -> bool:
    """Whether that class of backends keeps rows that the worker can store."""
    return kind is not None and kind in (_class(DATABASE), _class(orm.DATABASE))


def address(app, kind, url: Optional[str]) -> Optional[str]:
    """The URL by which the worker finds the app's tables; ``None``: only Python does."""
    if not has(kind):
        return None
    if kind is _class(orm.DATABASE):
        return orm.address()
    if not _has_blobs():
        return None
    conf = app.conf
    engine = conf.database_engine_options or {}
    if any(conf.get(name) for name in OTHERWISE) or not all(name.startswith(POOL) for name in engine):
        return None
    return _database(url or conf.database_url)


def _has_blobs() -> bool:
    """Whether results are stored as the serializer writes them; before Celery 5.7 they are pickled once more."""
    from celery.backends.database.models import Task
    from sqlalchemy import PickleType

    return not isinstance(Task.__table__.c.result.type, PickleType) and "children" in Task.__table__.c


def _database(url: Optional[str]) -> Optional[str]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(url)
    except ArgumentError:
        return None
    dialect = url.get_backend_name()
    if url.drivername not in DRIVERS or not set(url.query) <= OPTIONS[dialect]:
        return None
    if dialect == "sqlite":
        is_file = url.database and url.database != ":memory:" and not url.database.startswith("file:")
        return f"db+{url.render_as_string(hide_password=False)}" if is_file else None
    # Without them a driver looks into files and variables of its own.
    if not (url.username and url.password and url.host and url.database):
        return None
    if not libpq.says_all(url.host, url.query, url.query.get("sslmode")):
        return None
    return f"db+{url.render_as_string(hide_password=False)}"


class _Columns:
    """Stands for a row in Celery's own code."""

    children = stamps = None


def row(theirs, backend, task_id: str, result: Any, state: str, traceback: Optional[str], request) -> bytes:
    """The columns of a result, as the worker takes them; ``theirs`` is the backend's own ``_store_result``."""
    if isinstance(backend, _class(orm.DATABASE) or ()):
        return orm.row(theirs, backend, task_id, result, state, traceback, request)
    columns = _Columns()
    columns.task_id = task_id
    backend._update_result(columns, result, state, traceback=traceback, request=request)
    return str_to_bytes(json.dumps(vars(columns)))
