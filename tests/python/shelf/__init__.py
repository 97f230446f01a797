"""A Django project whose tasks are in Python: `celeriac -A shelf worker`."""

from .celery import app as celery_app

__all__ = ("celery_app",)
