"""Fixtures for pytest: ``celeriac_worker`` and ``celeriac_session_worker``, where Celery has ``celery_worker`` and
``celery_session_worker``.

The fixtures that configure them are Celery's own, which come along: ``celery_config``, ``celery_parameters``,
``celery_includes``, ``celery_class_tasks``, ``celery_worker_pool``, ``celery_worker_parameters``, and the apps.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from celery import Celery

from celeriac.contrib.testing import Worker, start_worker

pytest_plugins = ("celery.contrib.pytest",)


@pytest.fixture
def celeriac_worker(
    celery_app: Celery,
    celery_includes: Sequence[str],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[Worker]:
    """A worker for the app of this test, until the test returns."""
    for module in celery_includes:
        celery_app.loader.import_task_module(module)
    with start_worker(celery_app, pool=celery_worker_pool, **celery_worker_parameters) as worker:
        yield worker


@pytest.fixture(scope="session")
def celeriac_session_worker(
    celery_session_app: Celery,
    celery_includes: Sequence[str],
    celery_class_tasks: Sequence[Any],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[Worker]:
    """A worker that lives as long as the tests do."""
    for module in celery_includes:
        celery_session_app.loader.import_task_module(module)
    for task in celery_class_tasks:
        celery_session_app.register_task(task)
    with start_worker(celery_session_app, pool=celery_worker_pool, **celery_worker_parameters) as worker:
        yield worker
