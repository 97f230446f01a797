"""Flower, a stock worker and ours with the same work to do: what it shows of one it must show of the other."""

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request

from client import Caller
from faults import DEADLINE, HERE, Faulty, RustWorker, StockWorker, eventually
from support import ROOT, Port

PYTHON = os.environ.get("CELERIAC_FLOWER") or ROOT / ".build" / "venv-flower" / "bin" / "python"
STOCK, OURS = "stock@test", "ours@test"
QUEUES = {STOCK: "stock-queue", OURS: "our-queue"}
LATER = 3600  # Seconds, for what is not to begin.
MISSED = "Inspect method"  # What it logs of a question that nobody has answered in time.
SETTINGS = {
    "task_track_started": True, "task_acks_late": True, "worker_cancel_long_running_tasks_on_connection_loss": False,
}


class StockNode(StockWorker):
    """One that tells of itself."""

    quiet = ()


class Flower(Faulty):
    """Flower, answering."""

    def __init__(self, broker, folder):
        self._own_port = Port()
        port = self._own_port.number
        env = {
            "STOCK_BROKER": broker.url, "STOCK_BACKEND": broker.result_url, "STOCK_TRANSPORT_OPTIONS": "{}",
            "PYTHONPATH": str(HERE), "FLOWER_UNAUTHENTICATED_API": "1",
        }
        options = ["--address=127.0.0.1", f"--port={port}", f"--db={folder / 'flower'}", "--inspect-timeout=5000"]
        super().__init__([PYTHON, "-m", "celery", "-A", "flowered", "flower", *options], env)
        self.url = f"http://127.0.0.1:{port}"
        self.output.wait_for("Visit me at", timeout=DEADLINE)
        # It has begun to ask all, and shows what they say when five seconds are over: after what it asks later of one.
        self.get("/api/workers", refresh=1)

    def ask(self, path, body=None, **parameters):
        """The status and the body of what answers these parameters, or this body."""
        body = (body or urllib.parse.urlencode(parameters)).encode()
        return self._open(urllib.request.Request(self.url + path, body, method="POST"))

    def _open(self, request):
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def page(self, path):
        """The status and the body of a page."""
        return self._open(urllib.request.Request(self.url + path))

    def get(self, path, **parameters):
        """The page's JSON."""
        status, body = self.page(path + "?" + urllib.parse.urlencode(parameters))
        assert status == 200, (path, status, body)
        return json.loads(body)

    def say(self, path, **parameters):
        """What Flower says of a command that a worker has obeyed."""
        status, body = self.ask(path, **parameters)
        assert status == 200, (path, status, body)
        return json.loads(body)["message"]

    def workers(self):
        """What the list shows of each."""
        return {worker["hostname"]: worker for worker in self.get("/workers", json=1)["data"]}

    def worker(self, node):
        """What `inspect` has answered, asked anew."""
        # Whoever asks while it is inspecting gets the answers to that, which may be older: those to the second are not.
        self._inspected(node)
        return eventually(lambda: self._inspected(node), lambda: f"every answer of {node}: {self.output.text()}")

    def _inspected(self, node):
        """What it shows when it has asked; nothing where it waited in vain for an answer, and shows the one before."""
        missed = self.output.text().count(MISSED)
        answers = self.get("/api/workers", refresh=1, workername=node)
        return self.output.text().count(MISSED) == missed and answers.get(node)

    def task(self, task_id):
        """What it knows of the task; nothing when it has not heard of it."""
        status, body = self.page(f"/api/task/info/{task_id}")
        return json.loads(body) if status == 200 else {}

    def told(self, task_id, state, when):
        """What it knows of the task when it is in that state, and has heard when it got there."""
        task = {}

        def is_there():
            nonlocal task
            task = self.task(task_id)
            return task.get("state") == state and task[when]

        eventually(is_there, lambda: f"{state}, {when}: {task}")
        return task


class Fleet:
    """A stock worker and ours with two places each, and Flower that hears of both."""

    def __init__(self, broker, folder):
        self.broker, self.app, self.workers = broker, broker.application(), {}
        self._start(QUEUES, folder, "-c", "2")
        self.flower = Flower(broker, folder)
        # What was told before it listened is lost: it has heard the regular ones, which say how much is done.
        eventually(self._is_listed, lambda: f"{self.flower.workers()}\n{self.flower.output.text()}")

    def _start(self, queues, folder, *options):
        """A stock worker and ours, each on its queue."""
        stock, ours = queues
        self.workers[stock] = StockNode(self.broker, queues[stock], {}, "-P", "prefork", "-n", stock, "-E", *options, **SETTINGS)
        transport = {"unacked_mutex_expire": 1}
        self.workers[ours] = RustWorker(self.broker, folder, queues[ours], transport, "-n", ours, "-E", *options, **SETTINGS)

    def more(self, name, folder, *options):
        """Another stock worker and another of ours; their nodes."""
        queues = {f"{name}-{node}": f"{name}-{queue}" for node, queue in QUEUES.items()}
        self._start(queues, folder, *options)
        return list(queues)

    def _is_listed(self):
        workers = self.flower.workers()
        return all(workers.get(node, {}).get("processed") is not None for node in QUEUES)

    def caller(self, node):
        return Caller(self.app, self.broker, QUEUES[node])

    def close(self):
        for process in [self.flower, *self.workers.values()]:
            if not process.is_stopped:
                process.kill()
        self.app.close()


# Each fate of a task: the state that a monitor shows, and the field that says when it got there.
FATES = {
    "succeeded": ("SUCCESS", "succeeded"),
    "failed": ("FAILURE", "failed"),
    "retried": ("SUCCESS", "succeeded"),
    "rejected": ("FAILURE", "rejected"),
    "unregistered": ("FAILURE", "failed"),
    "expired": ("REVOKED", "revoked"),
    "revoked": ("REVOKED", "revoked"),
    "scheduled": ("RECEIVED", "received"),
    "running": ("STARTED", "started"),
    "running too": ("STARTED", "started"),
    "reserved": ("RECEIVED", "received"),
}


def send_everywhere(fleet):
    """The ids of one task of each fate, by node."""
    flower = fleet.flower
    sent = {node: send_what_ends(fleet.caller(node)) for node in QUEUES}
    for tasks in sent.values():
        flower.told(tasks["revoked"], "RECEIVED", "received")
        assert flower.say(f"/api/task/revoke/{tasks['revoked']}") == f"Revoked '{tasks['revoked']}'"
    for tasks in sent.values():
        for fate, task_id in tasks.items():
            flower.told(task_id, *FATES[fate])
    # Two that run take both places, and the third waits for one.
    for fate in ("running", "running too", "reserved"):
        for node, tasks in sent.items():
            tasks[fate] = fleet.caller(node).send("sleep", LATER).id
        for tasks in sent.values():
            flower.told(tasks[fate], *FATES[fate])
    return sent


def send_what_ends(tasks):
    """And one that waits for its time."""
    sent = {
        "succeeded": tasks.send("add", 1, 2, z=3),
        "failed": tasks.send("fail", "ValueError", "bad <b>value</b>"),
        "retried": tasks.send("flaky", "key", 1),
        "rejected": tasks.send("reject"),
        "unregistered": tasks.send("nobody_knows_this"),
        # It has come in before it expires, and has expired when its time comes.
        "expired": tasks.send_with("add", (1, 2), countdown=6, expires=5),
        # Long enough to be revoked meanwhile; and not longer, for a stock worker says that it is when its time has come.
        "revoked": tasks.send_with("add", (7, 8), countdown=10),
        "scheduled": tasks.send_with("add", (5, 6), countdown=LATER),
    }
    return {fate: result.id for fate, result in sent.items()}


# What is another in every run, or names who it is of.
MASKS = [
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( UTC|\+00:00)?", "<time>"),
    (r"\b\d+\.\d\d (ms|s)\b", "<duration>"),
    (r"\b\d{10}\.\d+", "<timestamp>"),
    (r"clock:\d+", "clock:<number>"),
    *((re.escape(node), "<node>") for node in QUEUES),
    *((re.escape(queue), "<queue>") for queue in QUEUES.values()),
]


def masked(text):
    for pattern, instead in MASKS:
        text = re.sub(pattern, instead, text)
    return text


def same(answers):
    """What is said of the stock worker, of which is said the same of ours."""
    assert answers[OURS] == answers[STOCK]
    return answers[STOCK]
