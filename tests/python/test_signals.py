"""The signals that a project hears in the main process and in the children: as from a stock worker."""

import json
import sys
import time
import uuid

import pytest
from celery import Celery

import heard
from faults import eventually
from support import DEAD_LETTERS, SECONDS, Process
from test_prefork import Celeriac, HERE

pytestmark = pytest.mark.only("redis", "results are handed to the worker for Redis alone")

NODE = "heard@test"
KINDS = ["good", "endless", "failing", "retried", "rejected"]
# What Celery's main process makes of a refused message; here a child of the worker concludes such runs, if anybody does.
REFUSED = ["task_failure", "heard.rejected"]


def stock(*arguments, env):
    return Process([sys.executable, "-m", "celery", *arguments], {"PYTHONPATH": HERE, **env})


class Lines:
    """What was heard."""

    def __init__(self, path):
        self.path = path

    def all(self):
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def wait_for(self, name, times=1):
        deadline = time.monotonic() + SECONDS
        while [line[1] for line in self.all()].count(name) < times:
            assert time.monotonic() < deadline, f"{name} was not heard: {self.all()}"
            time.sleep(0.01)


def live(client, lines, queue):
    """One task of each kind, each to its end."""
    tasks = {name: client.signature(f"heard.{name}", queue=queue) for name in KINDS}
    good = tasks["good"].delay(7)
    assert good.get(timeout=SECONDS) == 7
    # The project's receiver of `celeryd_init` has changed a setting that the main process heeds here.
    assert 0 < client.backend.client.ttl(client.backend.get_key_for_task(good.id)) <= 77
    assert isinstance(tasks["failing"].delay().get(timeout=SECONDS, propagate=False), ValueError)
    assert tasks["retried"].delay().get(timeout=SECONDS) == 1
    tasks["rejected"].delay()
    lines.wait_for("task_postrun", 5)
    revoked = uuid.uuid4().hex
    assert client.control.revoke(revoked, reply=True, destination=[NODE], timeout=SECONDS, limit=1)
    tasks["good"].apply_async((7,), task_id=revoked)
    lines.wait_for("task_revoked")
    tasks["good"].apply_async((7,), expires=-1)
    lines.wait_for("task_revoked", 2)
    endless = tasks["endless"].delay()
    lines.wait_for("task_prerun", 6)
    client.control.revoke(endless.id, terminate=True)
    lines.wait_for("task_revoked", 3)
    lines.wait_for("worker_process_init", 2)
    client.send_task("heard.nobody", queue=queue)
    lines.wait_for("task_unknown")
    with client.producer_pool.acquire() as producer:
        producer.publish({"no": "task"}, exchange="", routing_key=queue, serializer="json", retry=True)
    lines.wait_for("task_rejected")
    lines.wait_for("heartbeat_sent", 2)


def hear(run, server, folder, queue):
    """What is heard in the main process and in its child, and of heartbeats, from start to stop."""
    lines = Lines(folder / f"{queue}.jsonl")
    env = {
        "HEARD_FILE": str(lines.path), "HEARD_QUEUE": queue, "HEARD_BROKER": server.broker_url,
        "HEARD_RESULTS": server.result_url,
    }
    worker = run("-A", "heard", "worker", "-n", NODE, "-c", "1", "-l", "info", "--without-gossip", env=env)
    worker.output.wait_for(r"ready\.", timeout=4 * SECONDS)
    client = Celery("client", broker=server.broker_url, backend=server.result_url, set_as_current=False)
    live(client, lines, queue)
    assert worker.stop() == 0, worker.output.text()
    server.forget(DEAD_LETTERS)
    beats = {(line[2], *line[3]) for line in lines.all() if line[1] == "heartbeat_sent"}
    others = [line for line in lines.all() if line[1] != "heartbeat_sent" and line[1:3] != REFUSED]
    # Stock tells that a task is terminated before its process is replaced, and ours when the process has ended.
    others.sort(key=lambda line: line[-1].get("terminated", False))
    return [[line[1:] for line in others if line[0] == where] for where in ("main", "child")], beats


def test_a_project_hears_what_it_hears_of_a_stock_worker(server, tmp_path):
    expected, beats = hear(stock, server, tmp_path, "of-stock")
    found, our_beats = hear(Celeriac, server, tmp_path, "of-ours")
    assert found == expected
    assert our_beats == beats


#: So many messages more than one are taken in while a receiver of the first is called, at most.
FEW = 8


@pytest.mark.parametrize("run", [stock, Celeriac])
def test_a_slow_receiver_slows_the_intake_and_loses_nothing(server, tmp_path, run):
    queue, lines = f"slow-{uuid.uuid4().hex}", Lines(tmp_path / "heard.jsonl")
    may_go_on = tmp_path / "go-on"
    env = {
        "HEARD_QUEUE": queue, "HEARD_BROKER": server.broker_url, "HEARD_RESULTS": server.result_url,
        "HEARD_FILE": str(lines.path), "HEARD_WAITS": str(may_go_on),
    }
    client = Celery("client", broker=server.broker_url, backend=server.result_url, set_as_current=False)

    def start():
        worker = run("-A", "heard", "worker", "-n", NODE, "-c", "1", "-l", "info", "--without-gossip", env=env)
        worker.output.wait_for(r"ready\.", timeout=4 * SECONDS)
        return worker

    def heard(name):
        return [line[1] for line in lines.all()].count(name)

    worker = start()
    sent = [client.send_task("heard.good", (number,), queue=queue) for number in range(50)]
    lines.wait_for("task_received")
    with pytest.raises(AssertionError):
        eventually(lambda: heard("task_success") > FEW, "more tasks to run", timeout=1)
    worker.terminate()
    worker.output.wait_for("Warm shutdown")
    may_go_on.touch()
    worker.is_stopped = True
    assert worker._process.wait(SECONDS) == 0, worker.output.text()
    # What waits for the receiver has gone back.
    assert heard("task_received") <= 1 + FEW
    worker = start()
    assert [result.get(timeout=SECONDS) for result in sent] == list(range(50))
    assert worker.stop() == 0, worker.output.text()
    assert heard("task_received") >= 50


@pytest.mark.parametrize("name, exception, code", [
    ("worker_ready", "WorkerShutdown", 7), ("worker_ready", "WorkerTerminate", 1), ("task_received", "WorkerShutdown", 0),
    ("task_received", "WorkerShutdown", 3),
])
def test_a_receiver_ends_the_worker_as_it_ends_a_stock_one(server, name, exception, code):
    queue = f"leaves-{uuid.uuid4().hex}"
    client = Celery("client", broker=server.broker_url, set_as_current=False)
    ended = []
    for run in (stock, Celeriac):
        env = {"HEARD_QUEUE": queue, "HEARD_BROKER": server.broker_url, "HEARD_LEAVES": f"{name} {exception} {code}"}
        worker = run("-A", "heard", "worker", "-n", NODE, "-c", "1", "-l", "info", "--without-gossip", env=env)
        if name == "task_received":
            client.send_task("heard.good", (1,), queue=queue)
        ended.append(worker._process.wait(SECONDS))
        worker.is_stopped = True
        server.forget(queue)
    assert ended[1] == ended[0], worker.output.text()
