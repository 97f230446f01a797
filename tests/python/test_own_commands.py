"""Commands of remote control that are the project's own, and what its receivers make of the worker: as under a stock worker."""

import gc
import json
import os
import subprocess
import sys
import time

import pytest
from celery import Celery
from celery.exceptions import NotRegistered

from faults import answering, eventually
from support import DEAD_LETTERS, ROOT, SECONDS
from test_prefork import Celeriac, HERE
from test_signals import stock

RUNS = {"stock": stock, "ours": Celeriac}


class Commanded:
    """A worker of the project, and a client of it."""

    def __init__(self, kind, server, name, *options, queue=None, **settings):
        self.is_stock = kind == "stock"
        self.node = f"{name}-{kind}@test"
        self.queue = queue or f"{name}-{kind}"
        self.environment = {
            "COMMANDED_BROKER": server.broker_url, "COMMANDED_RESULTS": server.result_url, "COMMANDED_QUEUE": self.queue,
            "COMMANDED_SETTINGS": json.dumps(settings), "DJANGO_SETTINGS_MODULE": "",
        }
        arguments = ["-A", "commanded", "worker", "-n", self.node, "-l", "info", "--without-gossip", *options]
        self.process = RUNS[kind](*arguments, env=self.environment)
        self.process.output.wait_for(r"ready\.", timeout=4 * SECONDS)
        self.app = Celery("client", broker=server.broker_url, backend=server.result_url, set_as_current=False)
        self.app.conf.update(settings)
        answering(self.app, self.node)

    def ask(self, command, **arguments):
        """What the node answers."""
        given = {"destination": [self.node], "reply": True, "timeout": SECONDS, "limit": 1}
        [answer] = self.app.control.broadcast(command, arguments=arguments, **given)
        return answer[self.node]

    def line(self, program, kind, *words):
        """What a command line says."""
        command = [sys.executable, "-m", program, "-A", "commanded", kind, "-d", self.node, "-t", str(SECONDS), "-j", *words]
        path = os.pathsep.join([str(ROOT / "python"), HERE])
        environment = {**os.environ, "PYTHONPATH": path, **self.environment}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=4 * SECONDS)
        assert ended.returncode == 0, (ended.stdout, ended.stderr)
        return json.loads(ended.stdout)

    def send(self, name, *arguments, queue=None):
        return self.app.send_task(f"commanded.{name}", arguments, queue=queue or self.queue)

    def consumed(self):
        return {queue["name"]: queue for queue in self.ask("active_queues")}


@pytest.fixture(scope="module")
def start(server):
    workers = []

    def start(*arguments, **settings):
        workers.append(Commanded(*arguments[:1], server, *arguments[1:], **settings))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.is_stock:
            worker.process.kill()
        elif not worker.process.is_stopped:
            assert worker.process.stop() == 0, worker.process.output.text()
        gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.
        worker.app.close()
    server.forget(DEAD_LETTERS)


@pytest.fixture(scope="module")
def ours(start):
    return start("ours", "own", "-c", "2")


@pytest.fixture(scope="module")
def stocks(start):
    return start("stock", "own", "-c", "2")


COMMANDS = [
    ("current_prefetch_count", {}), ("increase_prefetch_count", {"n": 3}), ("current_prefetch_count", {}),
    ("decrease_prefetch_count", {"n": 100}), ("current_prefetch_count", {}), ("increase_prefetch_count", {}),
    ("current_prefetch_count", {}), ("increase_prefetch_count", {"m": 1}), ("fail", {}), ("fail", {"x": [1]}), ("ping", {}),
    ("no_such_command", {}), ("typed", {"a": 1, "b": None, "c": [1.5], "d": {"e": "é"}}), ("reach_too_far", {"x": 1}),
]  # fmt: skip


def test_commands_are_answered_as_by_a_stock_worker(ours, stocks):
    for command, arguments in COMMANDS:
        assert ours.ask(command, **arguments) == stocks.ask(command, **arguments), command
    for command in ["about", "seen_from_within"]:
        ours_is, stocks_is = (worker.ask(command, a=[1, {"b": 2}]) for worker in (ours, stocks))
        assert "error" not in {**ours_is, **stocks_is}, (ours_is, stocks_is)
        named = ours_is.pop("hostname"), stocks_is.pop("hostname")
        assert (ours_is, named) == (stocks_is, ([ours.node] * 3, [stocks.node] * 3))
    assert ours.ask("consume_more", queue="more") == ["own-ours", f"{ours.node}.dq", "more"]
    assert ours.ask("grow") == stocks.ask("grow") == 3


def test_commands_see_the_tasks_that_the_worker_has(ours, stocks, tmp_path):
    assert seen_by(ours, tmp_path) == seen_by(stocks, tmp_path)


def seen_by(worker, folder):
    """What commands see while as many tasks run as can, and one more waits."""
    running = worker.ask("about")["pool"]
    tasks = [
        worker.app.send_task(
            "commanded.stubborn", (f"{folder}/{number}",), task_id=f"{worker.node}-{number}", queue=worker.queue
        )
        for number in range(running + 1)
    ]  # fmt: skip
    worker.app.control.revoke("never", destination=[worker.node], reply=True, timeout=SECONDS, limit=1)

    def seen():
        told = worker.ask("busy")
        return told if [len(told["known"]), told["total"]] == [running + 1, running] else None

    eventually(seen, "all have come")
    told = json.dumps({name: sorted(map(str, part)) if isinstance(part, list) else part for name, part in seen().items()})
    worker.app.control.revoke([task.id for task in tasks], terminate=True, signal="SIGKILL", destination=[worker.node])
    eventually(lambda: all(task.state == "REVOKED" for task in tasks), "all are ended")
    return told.replace(worker.node, "node").replace(worker.queue, "queue")


@pytest.mark.parametrize("program", ["celery", "celeriac"])
def test_the_command_line_knows_them(ours, program):
    before = ours.ask("current_prefetch_count")["prefetch_count"]
    assert ours.line(program, "control", "increase_prefetch_count", "3") == [{ours.node: {"ok": "prefetch count incremented"}}]
    assert ours.line(program, "inspect", "current_prefetch_count") == {ours.node: {"prefetch_count": before + 3}}


def test_the_window_that_a_command_has_widened_lets_more_come(start, tmp_path):
    worker = start("ours", "wide", "-c", "1", worker_prefetch_multiplier=1)
    first = worker.send("stubborn", str(tmp_path / "told"))
    waiting = [worker.send("add", number, 1) for number in range(5)]
    eventually(lambda: [len(worker.ask(state)) for state in ("active", "reserved")] == [1, 1], "one is reserved")
    worker.ask("increase_prefetch_count", n=2)
    eventually(lambda: len(worker.ask("reserved")) == 3, "three are reserved")
    worker.app.control.revoke(first.id, terminate=True, signal="SIGKILL")
    assert [result.get(timeout=SECONDS) for result in waiting] == [1, 2, 3, 4, 5]


def test_what_goes_wrong_in_a_command_harms_nothing_else(ours):
    ours.app.control.broadcast("hang", destination=[ours.node])
    mark = ours.process.output.mark()
    assert ours.app.control.broadcast("unwritable", destination=[ours.node], reply=True, timeout=1) == []
    ours.process.output.wait_for("Control command error: EncodeError", mark)
    assert "has no 'gossip' here" in ours.ask("reach_too_far")["error"]
    assert ours.ask("fail") == {"error": "KeyError('no such shelf')"}
    ours.process.output.wait_for(r"pidbox command error: KeyError\('no such shelf'\)(.|\n)*Traceback", mark)
    assert ours.send("add", 2, 3).get(timeout=SECONDS) == 5


@pytest.mark.only("redis", "what is done then meets no broker")
def test_a_worker_ends_though_a_command_hangs_and_because_one_wants_it(start):
    worker = start("ours", "leaving", "-c", "1")
    worker.app.control.broadcast("hang", destination=[worker.node])
    worker.app.control.broadcast("leave", destination=[worker.node])
    eventually(lambda: not worker.process.is_running(), "it ends")
    assert worker.process.stop() == 0, worker.process.output.text()


def test_queues_and_settings_of_the_receivers(start):
    workers = [start(kind, "configured", "-Q", "one,unwanted", "-c", "2") for kind in RUNS]
    stocks, ours = ({name.replace(worker.node, "node"): queue for name, queue in worker.consumed().items()} for worker in workers)
    assert list(stocks) == ["one", "node.dq"]
    assert ours.keys() == stocks.keys()
    for worker, found in zip(workers, (stocks, ours)):
        direct = found["node.dq"]
        assert (direct.pop("name"), direct.pop("routing_key")) == (f"{worker.node}.dq",) * 2
        assert direct["exchange"].pop("name") == worker.queue
    assert ours["node.dq"] == stocks["node.dq"]
    for worker in workers:
        assert worker.send("add", 1, 2, queue=f"{worker.node}.dq").get(timeout=SECONDS) == 3
        stats = worker.ask("stats")
        # The command line's word counts, and not that of the receiver, which counts for what the command line leaves open: so
        # Celery's documentation has it, but a stock worker has read this setting before its receivers are called.
        assert stats["pool"]["max-concurrency"] == 2
        assert stats["prefetch_count"] == (10 if worker.node.startswith("configured-ours") else 8)


@pytest.mark.only("redis", "what is written meets no broker")
def test_commands_and_answers_that_are_pickled(start):
    worker = start("ours", "pickled", "-c", "1", task_serializer="pickle", accept_content=["pickle"])
    assert worker.ask("ping") == {"ok": "pang"}
    assert worker.ask("clock")["clock"] > 0
    assert worker.ask("rate_limit", task_name="commanded.add", rate_limit="9/m") == {"ok": "new rate limit set successfully"}
    assert worker.ask("typed", a=(1, 2), b=b"bytes") == {"a": "list", "b": "bytes"}
    assert worker.app.control.inspect([worker.node], timeout=SECONDS, limit=1).active_queues().keys() == {worker.node}
    mark = worker.process.output.mark()
    with worker.app.connection_for_write() as connection:
        worker.app.control.mailbox(connection)._publish("ping", {}, serializer="json")
    worker.process.output.wait_for("Cannot decode message: .*Refusing to deserialize untrusted content of type json", mark)


@pytest.mark.only("redis", "the broker keeps no results")
@pytest.mark.parametrize("which", RUNS)
def test_what_nobody_runs_is_stored_where_only_celery_can(start, server, tmp_path, which):
    results = {"result_backend": f"db+sqlite:///{tmp_path}/results.sqlite", "database_table_names": {"task": "told"}}
    worker = start(which, "shelved", "-c", "1", **results)
    assert worker.process.output.wait_for(r"results: +(\S+)")[1] == worker.app.backend.as_uri()
    unknown = worker.send("nobody")
    with pytest.raises(NotRegistered):
        unknown.get(timeout=SECONDS)
    revoked = worker.app.AsyncResult("nobodys")
    worker.app.control.revoke(revoked.id, destination=[worker.node])
    eventually(lambda: revoked.state == "REVOKED", "it is told")
    assert worker.send("add", 2, 3).get(timeout=SECONDS) == 5


def test_a_task_that_heeds_no_signal_is_ended_by_the_next(ours, tmp_path):
    path = tmp_path / "told"
    task = ours.send("stubborn", str(path))
    eventually(lambda: path.exists() and path.read_text() == "begun", "it has begun")
    ours.app.control.revoke(task.id, terminate=True, destination=[ours.node])
    eventually(lambda: path.read_text() == "heard", "it has heard the signal")
    ours.app.control.revoke(task.id, terminate=True, signal="SIGKILL", destination=[ours.node])
    eventually(lambda: task.state == "REVOKED", "it is ended")
    assert ours.send("add", 2, 3).get(timeout=SECONDS) == 5
