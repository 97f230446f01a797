"""The same with the worker of a whole session, which all tests share: a worker of one test beside it would take its tasks."""

import os

import pytest
from celery import Task

SECONDS = 60


class Doubled(Task):
    name = "doubled"

    def run(self, x):
        return 2 * x


@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": os.environ["PLUGGED_BROKER"], "result_backend": os.environ["PLUGGED_RESULTS"]}


@pytest.fixture(scope="session")
def celery_includes():
    return ["sums_of_plugged"]


@pytest.fixture(scope="session")
def celery_class_tasks():
    return [Doubled]


@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"queues": ["celery", "other"], "concurrency": 2}


@pytest.mark.parametrize("queue", ["celery", "other"])
def test_the_sessions_worker(celery_session_app, celeriac_session_worker, queue):
    task = celery_session_app.tasks["sums_of_plugged.add"]
    assert task.apply_async((2, 2), queue=queue).get(timeout=SECONDS) == 4


def test_tasks_that_are_classes(celery_session_app, celeriac_session_worker):
    assert celery_session_app.tasks["doubled"].delay(4).get(timeout=SECONDS) == 8
    assert celeriac_session_worker.app is celery_session_app
