"""Tasks that are retried when their process is lost (`retry_on_worker_lost` of Celery 5.7): by a stock worker and by ours.
The same messages are sent, the same states stored, the same events and hooks heard, and nothing is left behind."""

import base64
import json
import os
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import chain, chord

from faults import PYTHON_5_5, answering, eventually
from support import DEAD_LETTERS, ROOT, SECONDS, Process, run
from test_prefork import HERE
from test_python_pool import exit_code, the_nursery

SIDES = ["stock", "ours"]
PROGRAMS = {"stock": "celery", "ours": "celeriac"}
# A stock worker waits for so long for what a lost process may have said.
SETTINGS = {"stock": {"task_send_sent_event": True, "worker_lost_wait": 0.1}, "ours": {"task_send_sent_event": True}}


class Worker(Process):
    """A worker of the project `retried`, and a client of it."""

    def __init__(self, server, app, folder, side, name, *options, python=sys.executable, **settings):
        self.app, self.server, self.side, self.folder = app, server, side, folder / name
        self.folder.mkdir()
        self.queue, self.node = f"{name}-{side}", f"{name}-{side}@test"
        self.environment = {
            "RETRIED_BROKER": server.broker_url, "RETRIED_RESULTS": server.result_url, "RETRIED_FOLDER": str(self.folder),
            "RETRIED_SETTINGS": json.dumps({**SETTINGS[side], "task_default_queue": self.queue, **settings}),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), HERE]), "DJANGO_SETTINGS_MODULE": "",
        }
        command = [python, "-m", PROGRAMS[side], "-A", "retried", "worker", "-n", self.node, "-l", "info", "-c", "2"]
        super().__init__([*command, "-Q", self.queue, "-E", "--without-gossip", "--without-mingle", *options], self.environment)
        self.output.wait_for(r"ready\.", timeout=4 * SECONDS)
        answering(app, self.node)

    def signature(self, name, *args, **kwargs):
        return self.app.signature(f"retried.{name}", args, kwargs, queue=self.queue)

    def send(self, task_id, name, *args, options=None, **kwargs):
        """Sends a task whose id says which it is."""
        return self.signature(name, *args, **kwargs).apply_async(task_id=self.id(task_id), **(options or {}))

    def id(self, task_id):
        """What no other worker of this broker has been sent."""
        return f"{self.queue}-{task_id}"

    def lines(self, task_id):
        """What it has written down."""
        path = self.folder / self.id(task_id)
        return [self.shown(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, task_id, text, times=1):
        def there():
            return sum(text in line for line in self.lines(task_id)) >= times

        eventually(there, lambda: (text, self.lines(task_id), self.output.text()), timeout=SECONDS)

    def shown(self, text):
        """Without what is another time something else."""
        text = re.sub(r"Job: \d+", "Job: N", str(text).replace(self.node, "NODE").replace(self.queue, "QUEUE"))
        text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
        # The lines of a traceback stand in the files of whoever runs the task.
        text = re.sub(r"Traceback \(most.*\n(.*WorkerLostError)", r"Traceback \1", text, flags=re.DOTALL)
        return re.sub(r"gen\d+@[\w.-]+", "ORIGIN", text)

    def let_die(self, task_id):
        """Has a task that waits lose its process, and nobody take what is sent then; returns that message."""
        self.wait_for(task_id, "run 0")
        [answer] = self.app.control.cancel_consumer(self.queue, destination=[self.node], reply=True, timeout=SECONDS, limit=1)
        assert "ok" in answer[self.node], answer
        (self.folder / f"{self.id(task_id)}.told").touch()
        return self.server.take(self.queue)

    def meta(self, task_id):
        """What is stored."""
        meta = json.loads(self.server.results.get(f"celery-task-meta-{self.id(task_id)}") or "{}")
        return {name: self.shown(value) for name, value in meta.items()}


@pytest.fixture(scope="module")
def start(server, app, tmp_path_factory):
    workers = []

    def start(side, name, *options, **settings):
        folder = tmp_path_factory.mktemp(f"retried-{side}")
        workers.append(Worker(server, app, folder, side, name, *options, **settings))
        return workers[-1]

    yield start
    for worker in workers:
        if not worker.is_stopped:
            worker.stop()


def send_all(worker):
    """One task of each fate; all are sent before any is waited for."""
    send, signature = worker.send, worker.signature
    sent = {
        "plain": send("plain", "plain", 1),
        "early": send("early", "early", 1),
        "late": send("late", "late", 2),
        "exited": send("exited", "early", 1, how="exits"),
        "vanished": send("vanished", "late", 1, how="vanishes"),
        "spent": send("spent", "late", 9),
        "spent at once": send("spent at once", "once", 9),
        "without limit": send("without limit", "ever", 5),
        "not retried": send("not retried", "never", 1),
        "hook raises": send("hook raises", "late", 1, how="is heard of"),
        "cannot be sent": send("cannot be sent", "late", 1, how="is refused"),
        "early, cannot be sent": send("early, cannot be sent", "early", 1, how="is refused"),
        "limited": send("limited", "waits", options={"time_limit": 0.5}),
        "linked": send("linked", "early", 1, options={
            "link": signature("noted", worker.id("linked"), "link").set(immutable=True),
            "link_error": signature("noted", worker.id("linked"), "link_error").set(immutable=True),
        }),
        "failed with an errback": send("failed with an errback", "late", 9, options={
            "link_error": signature("noted", worker.id("failed with an errback"), "link_error").set(immutable=True),
        }),
        "chained": chain(signature("early", 1), signature("plus", 5))(),
        "chord": chord([signature("late", 1), signature("early", 1), signature("plus", 1, 1)], signature("total"))(),
        "failed chord": chord([signature("late", 9), signature("plus", 1, 1)], signature("total"))(),
    }
    ignored = send("ignored", "early", 1, options={"ignore_result": True})
    terminated = send("terminated", "waits")
    worker.wait_for("terminated", "run 0")
    worker.app.control.revoke(terminated.id, terminate=True, destination=[worker.node])
    return {**sent, "terminated": terminated}, ignored


def outcomes(worker, capture):
    """What each came to, for its client, for its project, and for who listens to events."""
    sent, ignored = send_all(worker)
    found = {}
    for name, result in sent.items():
        value = result.get(timeout=4 * SECONDS, propagate=False)
        found[name] = [result.state, worker.shown(repr(value))]
    worker.wait_for("ignored", "after_return: SUCCESS")
    worker.wait_for("linked", "link")
    worker.wait_for("failed with an errback", "link_error")
    for name in [*sent, "ignored"]:
        heard_retries(worker, name)
    worker.server.holds_nothing()
    found["ignored"] = [ignored.state, None]
    heard = {}
    for name in [*sent, "ignored"]:
        ends = found[name][0]
        if name not in ("chained", "chord", "failed chord"):
            # The next run begins while hooks are called.
            heard[name] = [sorted(worker.lines(name)), events(worker, capture, name, ends)]
    return found, heard


def heard_retries(worker, name):
    """Waits until the hooks of what was sent again are through: the next run may end before."""
    times = sum(line.startswith("sends ") and not line.endswith(" 0 retries") for line in worker.lines(name))
    worker.wait_for(name, "on_retry" if name == "hook raises" else "task_retry", times)


KEPT = ("type", "exception", "traceback", "result", "retries", "requeue", "signum", "terminated", "expired", "args", "kwargs",
        "root_id", "parent_id", "queue", "exchange", "routing_key")  # fmt: skip
LAST = {"SUCCESS": "task-succeeded", "PENDING": "task-succeeded", "FAILURE": "task-failed", "REVOKED": "task-revoked"}


def events(worker, capture, name, state):
    """What was told of a task, in an order of their own: events of two processes have none."""
    uuid = worker.id(name)
    capture.expect(LAST[state], uuid=uuid)
    told = [{key: worker.shown(event[key]) for key in KEPT if key in event} for event in capture.of(uuid)]
    for event in told:
        # Stock shows only what it has wrapped the exception in.
        if event["type"] == "task-failed":
            del event["exception"], event["traceback"]
    return sorted(told, key=json.dumps)


@pytest.fixture(scope="module")
def told(start, server, capture):
    server.forget(DEAD_LETTERS)  # Those of another suite.

    def of(side):
        worker = start(side, "fates", task_retry_on_worker_lost=True)
        try:
            return outcomes(worker, capture)
        finally:
            print(worker.output.text())  # Shown where the test fails.

    with ThreadPoolExecutor() as both:
        return dict(zip(SIDES, both.map(of, SIDES)))


GONE = "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL) Job: N.')"
EXPECTED = {
    "plain": ["SUCCESS", "1"],
    "early": ["SUCCESS", "1"],
    "late": ["SUCCESS", "2"],
    "exited": ["SUCCESS", "1"],
    "vanished": ["SUCCESS", "1"],
    "spent": ["FAILURE", GONE],
    "spent at once": ["FAILURE", GONE],
    "without limit": ["SUCCESS", "5"],
    "not retried": ["FAILURE", GONE],
    "hook raises": ["SUCCESS", "1"],
    # Given back, as without the setting.
    "cannot be sent": ["SUCCESS", "0"],
    "early, cannot be sent": ["FAILURE", GONE],
    "limited": ["FAILURE", "TimeLimitExceeded(0.5)"],
    "linked": ["SUCCESS", "1"],
    "failed with an errback": ["FAILURE", GONE],
    "chained": ["SUCCESS", "6"],
    "chord": ["SUCCESS", "4"],
    "terminated": ["REVOKED", "TaskRevokedError('terminated')"],
    "ignored": ["PENDING", None],
}


def test_a_client_is_told_what_a_stock_worker_tells(told):
    (ours, _), (stock, _) = told["ours"], told["stock"]
    assert {name: ours[name] for name in EXPECTED} == EXPECTED
    assert ours == stock


# Stock tells of a task that runs into its limit twice.
ONCE = ["limited"]


def test_hooks_and_signals_are_those_of_a_stock_worker(told):
    (_, ours), (_, stock) = told["ours"], told["stock"]
    assert ours["late"][0] == sorted([
        "run 0", "sends retried.late with 1 retries", f"on_retry in run 0: {GONE} [2] {{}}",
        f"task_retry of retried.late in run 0: Retry in 0s: {GONE}",
        "run 1", "sends retried.late with 2 retries", f"on_retry in run 1: {GONE} [2] {{}}",
        f"task_retry of retried.late in run 1: Retry in 0s: {GONE}",
        "run 2", "after_return: SUCCESS 2",
    ])  # fmt: skip
    for name, (lines, _) in ours.items():
        expected = stock[name][0]
        assert (set(lines) == set(expected)) if name in ONCE else (lines == expected), name


def test_events_are_those_of_a_stock_worker(told):
    (_, ours), (_, stock) = told["ours"], told["stock"]
    kinds = [event["type"] for event in ours["spent"][1]]
    assert (kinds.count("task-retried"), kinds.count("task-failed"), kinds.count("task-sent")) == (2, 1, 2)
    for name, (_, heard) in ours.items():
        if name not in ONCE:
            assert heard == stock[name][1], name


def test_only_what_a_stock_worker_throws_away_is_a_dead_letter(told, server):
    """`once` is late-acknowledged, and its failures are not acknowledged."""
    letter = server.dead_letter()
    assert (letter["headers"]["task"], letter["headers"]["id"]) == ("retried.once", "fates-ours-spent at once")
    assert server.length(DEAD_LETTERS) == 0


def sent_again(worker):
    """The message that a lost process is retried with, what it was made from, and what is stored meanwhile."""
    options = {
        "headers": {"x-custom": {"a": [1, None]}}, "priority": 2, "expires": 7200, "time_limit": 4000, "soft_time_limit": 3999,
        "shadow": "shown", "group_id": "a-group", "group_index": 3, "root_id": "a-root", "argsrepr": "(secret,)",
        "link": worker.signature("noted", "x"), "link_error": worker.signature("noted", "y"),
        "chain": [worker.signature("plus", 1)], "chord": worker.signature("total"), "stamped_headers": ["mark"], "mark": "m",
    }
    told = []
    for name, given in [("full", options), ("bare", {})]:
        worker.send(name, "waits", 1, options=given, more=True)
        message = worker.let_die(name)
        eventually(lambda: worker.meta(name).get("status") == "RETRY", worker.output.text, timeout=SECONDS)
        worker.server.holds_nothing()
        told.append([readable(worker, message), worker.meta(name)])
        reply = worker.app.control.add_consumer(worker.queue, destination=[worker.node], reply=True, timeout=SECONDS, limit=1)
        assert reply
    return told


def readable(worker, message):
    """A message whose times are zeros."""
    properties = {**message["properties"], "delivery_tag": None, "reply_to": None}
    # Who has just stopped consuming from Redis may have taken it, and put it back.
    for told in (properties["delivery_info"], message["headers"]):
        told.pop("redelivered", None)
    assert int(properties.get("expiration", "1")) > 0
    properties["expiration"] = "expiration" in properties
    headers = {name: re.sub(r"\d", "0", str(value)) if name in ("eta", "expires") and value else worker.shown(value)
               for name, value in message["headers"].items()}
    body = worker.shown(base64.b64decode(message["body"]).decode())
    properties = {name: worker.shown(value) for name, value in properties.items()}
    return {**message, "properties": properties, "headers": headers, "body": body}


def differences(ours, stocks):
    return {key: (ours.get(key), stocks.get(key)) for key in {*ours, *stocks} if ours.get(key) != stocks.get(key)}


def test_the_same_message_is_sent_and_the_same_state_stored_as_by_a_stock_worker(start):
    with ThreadPoolExecutor() as both:
        stock, ours = both.map(lambda side: sent_again(start(side, "messages")), SIDES)
    for (message, meta), (expected, stored) in zip(ours, stock):
        assert differences(message["headers"], expected["headers"]) == {}
        assert differences(message["properties"], expected["properties"]) == {}
        assert differences(message, expected) == {}
        assert differences(meta, stored) == {}
    (full, _), (bare, meta) = ours
    # It is sent by nobody's run, so that it does not become its own parent.
    assert (bare["headers"]["retries"], bare["headers"]["parent_id"], full["headers"]["root_id"]) == ("1", "None", "a-root")
    assert (meta["status"], meta["children"]) == ("RETRY", "[]")


def test_a_cold_shutdown_is_no_lost_process(start, server):
    worker = start("ours", "cold")
    worker.send("one", "waits")
    worker.wait_for("one", "run 0")
    worker._process.send_signal(signal.SIGQUIT)
    exit_code(worker)
    [message] = server.waiting(worker.queue)
    assert message["headers"]["retries"] == 0
    assert not any("WorkerLostError" in line for line in worker.lines("one")), worker.output.text()
    server.forget(worker.queue)


def test_the_worker_sends_the_retry_itself_when_no_process_is_left_to(start, server):
    worker = start("ours", "orphaned")
    worker.send("one", "waits")
    worker.wait_for("one", "run 0")
    os.kill(the_nursery(worker), signal.SIGKILL)
    assert exit_code(worker) == 1, worker.output.text()
    [message] = server.waiting(worker.queue)
    assert (message["headers"]["retries"], message["headers"]["parent_id"]) == (1, None)
    assert worker.meta("one")["status"] == "RETRY"
    worker.output.wait_for(r"INFO/MainProcess\] Task retried.waits\[orphaned-ours-one\] retry: Retry in 3600s: WorkerLostError\(")
    assert server.held() == 0
    server.forget(worker.queue)


def test_what_happens_is_logged_as_by_a_stock_worker(told, start):
    worker = start("ours", "logged")
    assert worker.send("one", "early", 1, how="is heard of").get(timeout=SECONDS) == 1
    assert worker.send("two", "late", 1, how="is refused").get(timeout=SECONDS) == 0
    lost = r"WorkerLostError\('Worker exited prematurely: signal 9 \(SIGKILL\) Job: \d+\.'\)"
    worker.output.wait_for(rf"ERROR/\S+\] Task retried.early\[logged-ours-one\] is retried, and a hook raised error: ValueError\('of the")
    worker.output.wait_for(r"ERROR/\S+\] Failed to retry task retried.late\[logged-ours-two\] after worker was lost: ConnectionRefusedErr")
    worker.send("three", "early", 1).get(timeout=SECONDS)
    worker.output.wait_for(rf"INFO/\S+\] Task retried.early\[logged-ours-three\] retry: Retry in 0s: {lost}")
    worker.output.wait_for(rf"ERROR/MainProcess\] Task handler raised error: {lost}")
    assert worker.output.text().count("Task handler raised error") == 1


@pytest.mark.only("redis", "what a thread does to its task does not depend on the broker")
def test_a_thread_that_its_task_ends_is_lost_too(start):
    worker = start("ours", "threads", "-P", "threads")
    assert worker.send("one", "early", 1, how="exits").get(timeout=SECONDS) == 1
    worker.wait_for("one", "task_retry of retried.early in run 0: Retry in 0s: WorkerLostError('Worker exited prematurely: exitcode 4.')")


@pytest.mark.only("redis", "what a setting does does not depend on the broker")
def test_before_celery_5_7_there_is_no_such_setting(start):
    worker = start("ours", "older", python=PYTHON_5_5, task_retry_on_worker_lost=True)
    assert worker.send("early", "early", 1).get(timeout=SECONDS, propagate=False).args[0].startswith("Worker exited")
    assert worker.send("late", "late", 1).get(timeout=SECONDS) == 0
    assert worker.lines("early") == ["run 0", f"task_failure of retried.early: {GONE}"]
    worker.output.wait_for("the setting task_retry_on_worker_lost is not supported yet and has no effect")
    checked = Process([PYTHON_5_5, "-m", "celeriac", "-A", "retried", "config", "check"], worker.environment)
    checked.is_stopped = True
    assert checked._process.wait(SECONDS) == 1
    checked.output.wait_for("task_retry_on_worker_lost: Celery has it from version 5.7 on")


@pytest.mark.only("redis", "what a setting does does not depend on the broker")
def test_a_project_is_not_told_that_the_setting_has_no_effect(start):
    worker = start("ours", "checked", task_retry_on_worker_lost=True)
    assert "task_retry_on_worker_lost" not in worker.output.text()
    assert run(worker.environment, "-m", "celeriac", "-A", "retried", "config", "check") == "All settings are honoured.\n"
