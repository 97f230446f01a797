"""Where beat keeps what ran last: which store ``-S`` or ``beat_scheduler`` means."""

from collections.abc import Callable
from typing import Any, Optional

from celery.utils.imports import load_extension_class_names

from celeriac import _celeriac

#: The stores that are made in Python, by the names of the classes that they stand for, with a dot for the colon. Each is
#: called with the app, and returns what Rust asks as a ``celeriac::beat::Store``.
STORES: dict[str, Callable[[Any], Any]] = {}


def choose(app, name: str) -> tuple[str, Optional[Any]]:
    """The full name of the store, and the store itself if Python has it; without one it is one of Rust's, if that
    :func:`is_ours`."""
    full = aliases().get(name, name)
    make = STORES.get(full.replace(":", ".", 1))
    return full, make(app) if make is not None else None


def is_ours(name: str) -> bool:
    """Whether there is a store of that full name, and no need for Celery's own beat."""
    return name.replace(":", ".", 1) in STORES or _celeriac.is_known_store(name)


def aliases() -> dict[str, str]:
    """Short names that packages have registered with Celery: ``django``."""
    return dict(load_extension_class_names("celery.beat_schedulers"))
