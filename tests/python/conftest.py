"""A broker of each kind and an application for all suites; each suite starts the workers that it needs.

`CELERIAC_WORKER` names the example worker's binary (`cargo build --example worker`).

What takes the fixture `server` or `broker` runs on Redis and on RabbitMQ, unless it says why it does not:
`@pytest.mark.only("redis", why)`.
"""

import gc
import sys

import pytest

pytest.register_assert_rewrite(
    "canvas", "canvas_cases", "capture", "client", "command_lines", "faults", "lives", "memcached", "monitored", "postgres",
    "rabbit", "support", "tracing",
)

import client  # noqa: E402
import mixed_project  # noqa: E402
from capture import Capture  # noqa: E402
from faults import Broker, current  # noqa: E402
from memcached import Memcached  # noqa: E402
from monitored import Fleet, send_everywhere  # noqa: E402
from postgres import Postgres  # noqa: E402
from rabbit import Rabbit, RabbitBroker  # noqa: E402
from support import DEAD_LETTERS, SECONDS, Process, Redis, Worker  # noqa: E402

KINDS = {"redis": Redis, "rabbitmq": Rabbit}
BROKERS = {"redis": Broker, "rabbitmq": RabbitBroker}


def pytest_configure(config):
    config.addinivalue_line("markers", "only(kind, why): runs on one kind of broker alone, and says why")


# They take longest, so they begin first where files run beside each other.
LONG = ["test_chord_faults", "test_old_client", "test_many_faults", "test_faults", "test_poison", "test_eta"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leaves out what is for one kind of broker and would run on another; puts what takes long before the rest."""
    def is_meant(item):
        kind = getattr(item, "callspec", None) and item.callspec.params.get("kind")
        return kind not in list(KINDS) or all(mark.args[0] == kind for mark in item.iter_markers("only"))

    left_out = [item for item in items if not is_meant(item)]
    config.hook.pytest_deselected(items=left_out)
    place = {name: at for at, name in enumerate(LONG)}
    items[:] = sorted(filter(is_meant, items), key=lambda item: place.get(item.module.__name__, len(LONG)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """A test that failed shows what the processes that were running last wrote: most faults are seen nowhere else."""
    report = yield
    if report.failed:
        report.sections += [(f"the last lines of {process.pid}: {process.name[:200]}", process.output.text()[-6000:])
                            for process in Process.running()]
    return report


@pytest.fixture(scope="session", params=KINDS)
def kind(request):
    """The kind of the broker."""
    return request.param


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("celeriac")


@pytest.fixture(scope="session")
def new_broker(kind):
    """Starts a broker for a suite that breaks it."""
    return BROKERS[kind]


@pytest.fixture(scope="session")
def one_server(kind, folder):
    """A broker of our own, for all suites."""
    server = KINDS[kind](folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(one_server):
    """The same, without what workers of another suite held when they were killed."""
    one_server.forget_reserved()
    return one_server


@pytest.fixture(scope="module")
def broker(folder):
    """One of the suite's own."""
    broker = Broker(folder)
    yield broker
    gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.
    broker.shut_down()


@pytest.fixture(scope="module")
def each_broker(folder, new_broker):
    """One of the suite's own, of each kind."""
    broker = new_broker(folder)
    yield broker
    gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.
    broker.close()


@pytest.fixture(scope="session")
def app(one_server):
    """A stock Celery application, as a Django project has one."""
    with current(client.connect(one_server)) as app:
        yield app
    gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.


@pytest.fixture(scope="module")
def capture(app):
    """All events from now on."""
    capture = Capture(app)
    yield capture
    capture.close()


@pytest.fixture(scope="module")
def start_worker(server, folder):
    """Starts example workers, and has them end well when the suite does."""
    server.forget(DEAD_LETTERS)  # Those of another suite.
    workers = []

    def start(queues, *options, **settings):
        workers.append(Worker(server, queues, folder, options, **settings))
        return workers[-1]

    yield start
    for worker in workers:
        if not worker.is_stopped:
            assert worker.is_running(), worker.output.text()
            assert worker.stop() == 0, worker.output.text()


@pytest.fixture(scope="module")
def start_mixed(server):
    """Starts workers of the project `mixed`, ours and stock ones, and has them end well when the suite does."""
    workers = []

    def start(program, *options, app="mixed", **settings):
        command = [sys.executable, "-m", program, "-A", app, "worker", "-l", "info", *options]
        workers.append(Process(command, mixed_project.environment(server, **settings)))
        workers[-1].output.wait_for(r"ready\.", timeout=4 * SECONDS)
        return workers[-1]

    yield start
    for worker in workers:
        assert worker.stop() == 0, worker.output.text()


@pytest.fixture(scope="module")
def memcached():
    """One of the suite's own, for results."""
    server = Memcached()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def postgres():
    """One of the suite's own."""
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def fleet(broker, folder):
    """A stock worker and ours, and Flower that hears of both."""
    fleet = Fleet(broker, folder)
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def sent(fleet):
    """The ids of one task of each fate, by node."""
    return send_everywhere(fleet)
