"""A Redis and an application for all suites; each suite starts the workers that it needs.

`CELERIAC_WORKER` names the example worker's binary (`cargo build --example worker`).
"""

import gc

import pytest

pytest.register_assert_rewrite("canvas", "canvas_cases", "client", "faults", "support")

import client  # noqa: E402
from faults import Broker, current  # noqa: E402
from support import Redis, Worker  # noqa: E402


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("celeriac")


@pytest.fixture(scope="session")
def server(folder):
    """A Redis of our own."""
    server = Redis(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def broker(folder):
    """One of the suite's own."""
    broker = Broker(folder)
    yield broker
    gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.
    broker.shut_down()


@pytest.fixture(scope="session")
def app(server):
    """A stock Celery application, as a Django project has one."""
    with current(client.connect(server)) as app:
        yield app
    gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.


@pytest.fixture(scope="module")
def start_worker(server, folder):
    """Starts example workers, and has them end well when the suite does."""
    workers = []

    def start(queues, *options, **settings):
        workers.append(Worker(server, queues, folder, options, **settings))
        return workers[-1]

    yield start
    for worker in workers:
        if not worker.is_stopped:
            assert worker.is_running(), worker.output.text()
            assert worker.stop() == 0, worker.output.text()
