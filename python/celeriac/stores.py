"""Where beat keeps what ran last: which store ``-S`` or ``beat_scheduler`` means."""

from collections.abc import Callable
from typing import Any, Optional

from celery.utils.imports import load_extension_class_names

from celeriac import _celeriac


def database(app, only_reads: bool) -> Any:
    """django-celery-beat's tables."""
    # Not before the project is loaded: these are its models.
    from celeriac.database import DatabaseStore

    return DatabaseStore(app, only_reads)


#: The stores that are made in Python, by the names of the classes that they stand for, with a dot for the colon. Each is
#: called with the app and with whether it is only read, and returns what Rust asks as a ``celeriac::beat::Store``.
STORES: dict[str, Callable[[Any, bool], Any]] = {"django_celery_beat.schedulers.DatabaseScheduler": database}


def choose(name: str) -> tuple[str, Optional[Callable[[Any, bool], Any]]]:
    """The full name of the store, and what makes it if Python has it; without that it is one of Rust's, if it
    :func:`is_ours`."""
    full = aliases().get(name, name)
    return full, STORES.get(full.replace(":", ".", 1))


def is_ours(name: str) -> bool:
    """Whether there is a store of that full name, and no need for Celery's own beat."""
    return name.replace(":", ".", 1) in STORES or _celeriac.is_known_store(name)


def aliases() -> dict[str, str]:
    """Short names that packages have registered with Celery: ``django``."""
    return dict(load_extension_class_names("celery.beat_schedulers"))
