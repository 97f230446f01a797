"""Folders as the broker, which stock Celery of this environment and our workers share. There is no server."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from celery import Celery, chain

import whole_files  # noqa: F401
from faults import DEADLINE, PYTHON_5_7, Faulty, Lines, Messages, StockWorker, eventually
from support import EXAMPLE_WORKER, ROOT, SECONDS

HERE = os.path.dirname(__file__)
SEED = 20261128
# Stock's broker looks for messages once a second; these tests do not wait so long.
POLLING = 0.05


class Folders:
    """What a broker is elsewhere."""

    kind, url = "filesystem", "filesystem://"

    def __init__(self, folder, **options):
        folder = pathlib.Path(folder)
        self.data, self.results = folder / "data", folder / "results"
        for each in (self.data, self.results):
            each.mkdir()
        self.result_url = f"file://{self.results}"
        self.options = {
            "data_folder_in": str(self.data), "data_folder_out": str(self.data),
            "control_folder": str(folder / "control"), "polling_interval": POLLING, **options,
        }
        self.made = 0

    def application(self):
        """A stock client."""
        app = Celery("client", broker=self.url, backend=self.result_url, set_as_current=False)
        app.conf.update(broker_transport_options=self.options, task_default_queue="load")
        return app

    def environment(self):
        """What the module `stock` reads, whoever's worker has it."""
        return {
            "STOCK_BROKER": self.url, "STOCK_BACKEND": self.result_url, "STOCK_TRANSPORT_OPTIONS": json.dumps(self.options),
            "STOCK_SETTINGS": json.dumps({"task_default_queue": "load"}),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), HERE]),
        }

    def waiting(self, queue):
        return [path for path in self.data.iterdir() if path.name.partition(".")[2] == f"{queue}.msg"]

    def held(self):
        """What is claimed and not settled."""
        return [path for path in self.data.glob(".celeriac/*/*.msg") if path.parent.name != "unreadable"]

    def pop(self, queue):
        for path in self.waiting(queue):
            envelope = json.loads(path.read_text())
            path.unlink()
            return envelope

    def push(self, queue, message):
        """As Kombu names it."""
        self.made += 1
        (self.data / f"{round(time.monotonic() * 1000)}_{self.made:08}.{queue}.msg").write_text(message)


class Rust(Faulty):
    """The example worker."""

    def __init__(self, broker, queues, *arguments):
        config = broker.data.parent / "celeriac.toml"
        options = "".join(f"{name} = {json.dumps(value)}\n" for name, value in broker.options.items())
        config.write_text(f"[broker_transport_options]\n{options}")
        command = [EXAMPLE_WORKER, "-b", broker.url, "--config", config, "worker", "-l", "info", "-Q", queues]
        super().__init__([*command, *arguments])
        self.output.wait_for(r"ready\.", timeout=DEADLINE)


class Mixed(Faulty):
    """Celeriac with the stock worker's own project."""

    def __init__(self, broker, queues, *arguments):
        command = [PYTHON_5_7, "-m", "celeriac", "-A", "stock", "worker", "-l", "info", "-Q", queues, "-c", "2"]
        # Celery heeds this name, too, whoever keeps the results.
        super().__init__([*command, *arguments], {**broker.environment(), "CELERY_RESULT_BACKEND": broker.result_url})
        self.output.wait_for(r"ready\.", timeout=DEADLINE)


class Stock(Faulty):
    """A stock worker of the Celery that this suite runs under."""

    def __init__(self, broker, queues, *arguments):
        command = [sys.executable, "-m", "celery", "-A", "stock", "worker", "-l", "info", "-Q", queues, "-c", "2"]
        super().__init__([*command, "-P", "threads", "-n", "stock@test", *StockWorker.quiet, *arguments], broker.environment())
        self.output.wait_for(r"ready\.", timeout=DEADLINE)


@pytest.fixture
def broker(tmp_path):
    return Folders(tmp_path)


@pytest.fixture
def app(broker):
    with broker.application() as app:
        yield app


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path)


@pytest.fixture
def start(broker):
    """Starts workers, and has them end well."""
    workers = []

    def start(kind, queues, *arguments):
        worker = kind(broker, queues, *arguments)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if not worker.is_stopped:
            assert worker.stop() == 0, worker.output.text()


def command(broker, module, *arguments):
    """What a command of a worker's project answers, by node."""
    done = subprocess.run(
        [PYTHON_5_7 if module == "celeriac" else sys.executable, "-m", module, "-A", "stock", *arguments, "--json"],
        env={**os.environ, **broker.environment()}, capture_output=True, text=True, timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def value(result):
    return result.get(timeout=SECONDS)


def is_idle(broker, queue="load"):
    """Waits until nothing waits and nothing is held."""
    eventually(lambda: not broker.waiting(queue) and not broker.held(), lambda: f"{broker.waiting(queue)} {broker.held()}")


def test_a_stock_producers_tasks_run_in_ours_and_their_results_are_read(broker, app, start):
    worker = start(Mixed, "load")
    assert value(app.send_task("rust.add", (2, 3))) == 5
    assert value(chain(app.signature("rust.add", (1, 2)), app.signature("rust.mul", (4,))).delay()) == 12
    failed = app.send_task("rust.fail", ("KeyError", "no such key"))
    with pytest.raises(KeyError):
        value(failed)
    assert value(app.send_task("rust.flaky", ("key", 1))) == 2
    late = app.send_task("rust.add", (1, 1), countdown=0.5)
    assert value(late) == 2
    is_idle(broker)
    warned = worker.output.text().count("broker filesystem:// is for development")
    assert warned == 1, worker.output.text()


def test_what_ours_sends_runs_in_a_stock_worker(broker, app, start):
    start(Mixed, "load")
    start(Stock, "other")
    other = app.signature("rust.mul", (4,)).set(queue="other")
    assert value(chain(app.signature("rust.add", (1, 2)), other, app.signature("rust.add", (1,)).set(queue="load")).delay()) == 13


def test_a_stock_worker_and_ours_share_a_queue(broker, app, lines, start):
    start(Rust, "load", "-n", "rust@test", "--prefetch-multiplier", "1", "-c", "2")
    start(Stock, "load")
    count = 0

    def are_at_work():
        """Sends some more; whether both have run some of all that."""
        nonlocal count
        for _ in range(20):
            app.send_task("rust.append", (str(lines.path), str(count), 0.01))
            count += 1
        return count >= 200 and len({line.endswith(" by stock") for line in lines.all()}) == 2

    eventually(are_at_work, "both to have run some")
    lines.wait_for(count)
    is_idle(broker)
    assert sorted(int(line.split()[0]) for line in lines.all()) == list(range(count)), "each ran once"


def test_remote_control_goes_both_ways(broker, app, start):
    worker = start(Rust, "load,ours", "-n", "rust@test")
    start(Stock, "load")
    both = {"rust@test", "stock@test"}
    # With so many named, nobody waits for others.
    patience = ("-t", str(SECONDS), "-d", ",".join(both))
    for module in ("celery", "celeriac"):
        assert set(command(broker, module, "inspect", "ping", *patience)) == both
    slow = app.send_task("rust.sleep", (DEADLINE,), queue="ours")

    def active():
        told = app.control.inspect(timeout=SECONDS, destination=sorted(both), limit=2).active()
        return set(told) == both and [task["id"] for tasks in told.values() for task in tasks] == [slow.id]

    eventually(active, "it runs")
    app.control.revoke(slow.id, terminate=True, destination=["rust@test"])
    worker.output.wait_for(f"Terminating {slow.id}")
    for module in ("celery", "celeriac"):
        told = command(broker, module, "control", "enable_events", *patience)
        assert {node for answer in told for node in answer} == both
    is_idle(broker)
    # Nobody's answers are left, nor anybody's place to hear them.
    assert not [path for path in broker.data.iterdir() if "pidbox" in path.name]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_who_is_started_anew_under_the_same_name_is_heard(broker, app, start, how):
    worker = start(Rust, "load", "-n", "rust@test")
    for _ in range(3):
        worker.send(how)
        worker.ended()
        worker = start(Rust, "load", "-n", "rust@test")
        assert app.control.inspect(timeout=SECONDS, limit=1).ping() == {"rust@test": {"ok": "pong"}}


def test_a_message_of_which_a_producer_died_in_the_middle_is_no_obstacle(broker, app, lines, start):
    broker.push("load", '{"body": "W1tdLCB')
    (broker.data / "0_a.load.msg").mkdir()
    worker = start(Rust, "load")
    app.send_task("rust.append", (str(lines.path), "1"))
    lines.wait_for(1)
    eventually(lambda: broker.waiting("celeriac.dead-letters"), "the broken one is kept")
    is_idle(broker)
    assert worker.output.text().count("0_a.load.msg") == 1, worker.output.text()


def test_processed_messages_are_kept_where_kombu_keeps_them(tmp_path, lines):
    broker = Folders(tmp_path, store_processed=True, processed_folder=str(tmp_path / "processed"))
    with broker.application() as app:
        app.send_task("rust.append", (str(lines.path), "1"))
    names = {path.name for path in broker.waiting("load")}
    worker = Rust(broker, "load")
    lines.wait_for(1)
    assert worker.stop() == 0
    assert {path.name for path in (tmp_path / "processed").iterdir()} >= names != set()


def test_ten_thousand_tasks_outlive_workers_that_are_killed(broker, app, lines):
    count, rng = 10_000, random.Random(SEED)
    messages = Messages(broker, app, "rust.append_late")
    for number in range(count):
        broker.push("load", messages.message("load", str(lines.path), str(number), 0.001)[1])
    started = time.monotonic()
    # Two at a time, so that one finds the other dead.
    workers = [Rust(broker, "load", "-n", f"w{nth}@test", "-c", "20") for nth in range(2)]
    for kill, at in enumerate(sorted(rng.sample(range(1, count * 9 // 10), 10))):
        lines.wait_for(at)
        workers[kill % 2].kill()
        workers[kill % 2] = Rust(broker, "load", "-n", f"w{kill % 2}@test", "-c", "20")
    is_idle(broker)
    took = time.monotonic() - started
    seen = [int(line) for line in lines.all()]
    assert set(seen) == set(range(count)), f"missing: {sorted(set(range(count)) - set(seen))[:20]}"
    print(f"{count} tasks in {took:.1f} s; killed 10 times: {len(seen) - count} ran more than once")
    for worker in workers:
        assert worker.stop() == 0, worker.output.text()
    assert not list(broker.data.glob(".celeriac/*/*")), "nothing is left of anybody"
