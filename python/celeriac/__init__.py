"""The Celery worker in Rust, for a project whose tasks are in Python.

``celeriac -A proj worker`` takes the place of ``celery -A proj worker``: the tasks run as they are, through Celery's own
tracer, in processes that are forked with the project imported.
"""

__all__ = ()
