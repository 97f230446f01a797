"""Results in a memcached: when the worker can store them, and where."""

from typing import Any, Optional

from celery.backends import cache

#: Celery's names for a memcached; it has others for what is kept in memory.
SCHEMES = ("memcached", "memcache", "pymemcache", "pylibmc")
#: The options of pymemcache's client that the worker heeds, those that it always behaves by, and two that Celery ignores.
HEEDED = ("timeout", "connect_timeout")
OPTIONS = {*HEEDED, "no_delay", "default_noreply", "behaviors", "binary"}


def address(app, kind, url: Optional[str]) -> Optional[str]:
    """The URL by which the worker finds the app's memcached; ``None``: it is none, or only Celery's client can use it. Which
    of several has a key is that client's to say, and so is what its other options mean."""
    if kind is not cache.CacheBackend:
        return None
    scheme, _, servers = (url or app.conf.cache_backend or "").partition("://")
    named = [server for server in servers.rstrip("/").split(";") if server]
    if scheme not in SCHEMES or len(named) != 1:
        return None
    given = set(app.conf.cache_backend_options or ())
    # Before Celery 5.7 they were those of two other clients.
    known = OPTIONS if hasattr(cache, "DEFAULT_CLIENT_OPTIONS") else set()
    return f"cache+{scheme}://{named[0]}/" if given <= known else None


def options(app) -> dict[str, Any]:
    """What the worker is given for ``cache_backend_options``; waiting for ever is none of it."""
    given = app.conf.cache_backend_options or {}
    return {name: given[name] for name in HEEDED if given.get(name) is not None}
