"""A project's tests with `celeriac.contrib.pytest`: `test_pytest_plugin.py` runs pytest on them.

`PLUGGED_BROKER` and `PLUGGED_RESULTS` name a broker and where results are.
"""

import os
import threading
from unittest import mock

import pytest
from celery import shared_task

SECONDS = 60


@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": os.environ["PLUGGED_BROKER"], "result_backend": os.environ["PLUGGED_RESULTS"]}


@shared_task
def process():
    return os.getpid()


@shared_task
def parent():
    return os.getppid()


def caught():
    """The signals that this process has a handler for."""
    with open("/proc/self/status") as status:
        return next(line for line in status if line.startswith("SigCgt"))


def test_a_task_is_the_very_object_of_the_test(celery_app, celeriac_worker):
    seen = []

    @celery_app.task
    def remember(word):
        seen.append((word, threading.current_thread()))
        return len(seen)

    celeriac_worker.reload()
    assert remember.delay("a").get(timeout=SECONDS) == 1
    assert remember.delay("b").get(timeout=SECONDS) == 2
    assert [word for word, _ in seen] == ["a", "b"]
    assert threading.main_thread() not in [thread for _, thread in seen]


def test_what_a_test_replaces_is_replaced(celery_app, celeriac_worker):
    with mock.patch("os.getppid", return_value=-7) as replaced:
        assert parent.delay().get(timeout=SECONDS) == -7
    replaced.assert_called_once_with()


def test_it_is_a_worker_of_its_name_and_retries(celery_app, celeriac_worker):
    @celery_app.task(bind=True, max_retries=2)
    def flaky(self):
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return self.request.hostname

    celeriac_worker.reload()
    assert flaky.delay().get(timeout=SECONDS) == celeriac_worker.hostname
    answers = celery_app.control.ping(destination=[celeriac_worker.hostname], timeout=SECONDS, limit=1)
    assert answers == [{celeriac_worker.hostname: {"ok": "pong"}}]


@pytest.mark.celery(result_serializer="yaml", accept_content=["json", "yaml"])
def test_a_marks_settings_are_the_workers(celery_app, celeriac_worker):
    result = process.delay()
    assert result.get(timeout=SECONDS) == os.getpid()
    assert celery_app.conf.result_serializer == "yaml"


class TestPools:
    """With each pool."""

    @pytest.fixture(params=["threads", "prefork"], scope="class")
    def celery_worker_pool(self, request):
        return request.param

    @pytest.fixture(scope="class")
    def celery_worker_parameters(self):
        return {"concurrency": 2, "queues": ["celery", "other"], "shutdown_timeout": SECONDS}

    # The two above are of another scope than what takes them in Celery.
    @pytest.fixture
    def worker(self, celery_app, celery_worker_pool, celery_worker_parameters):
        from celeriac.contrib.testing import start_worker

        with start_worker(celery_app, pool=celery_worker_pool, **celery_worker_parameters) as worker:
            yield worker

    def test_it_is_as_under_the_worker_itself(self, worker, celery_worker_pool):
        pid = process.apply_async(queue="other").get(timeout=SECONDS)
        assert (pid == os.getpid()) == (celery_worker_pool == "threads")


def test_nothing_is_left(celery_session_app):
    before = caught()
    from celeriac.contrib.testing import start_worker

    threads = set(threading.enumerate())
    with start_worker(celery_session_app):
        assert caught() == before
    left = {thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("celeriac-worker")}
    assert not left
    assert celery_session_app.conf.worker_redirect_stdouts is True


def test_what_it_cannot_do_is_told(celery_session_app):
    from celeriac.contrib.testing import start_worker

    with pytest.raises(TypeError, match="no parameter consumer_timeout: there are autoscale, "):
        with start_worker(celery_session_app, consumer_timeout=1):
            pass
