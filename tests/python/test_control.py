"""Stock Celery's remote control against the example worker: revoking, terminating, limiting, pinging."""

import base64
import json
import shelve
import subprocess
import sys
import time
import uuid

import pytest
from billiard.exceptions import TimeLimitExceeded
from celery import Celery
from celery.exceptions import TaskRevokedError

from client import Caller
from faults import eventually
from support import SECONDS, Process, Worker

NODE = "control@test"
NARROW = "narrow@test"


@pytest.fixture(scope="module")
def worker(start_worker):
    return start_worker("control", "-n", NODE, task_track_started=True)


@pytest.fixture
def tasks(app, server, worker):
    return Caller(app, server, "control")


@pytest.fixture
def narrow(app, server, start_worker):
    """A worker that runs one task at a time."""
    worker = start_worker("narrow", "-n", NARROW, "-c", "1", task_track_started=True)
    yield Caller(app, server, "narrow"), worker
    worker.stop()


def ask(app, method, node=NODE, **arguments):
    """The node's answer."""
    replies = app.control.broadcast(method, arguments=arguments, destination=[node], reply=True, timeout=SECONDS)
    assert len(replies) == 1 and list(replies[0]) == [node], replies
    return replies[0][node]


def revoked(result):
    """What the exception says that the result is revoked with."""
    with pytest.raises(TaskRevokedError) as raised:
        result.get(timeout=SECONDS)
    assert result.state == "REVOKED"
    return str(raised.value)


def meta(server, result):
    return json.loads(server.results.get(f"celery-task-meta-{result.id}"))


# Asking.


def test_ping(app, worker):
    assert app.control.ping(destination=[NODE], timeout=SECONDS) == [{NODE: {"ok": "pong"}}]
    assert app.control.inspect([NODE], timeout=SECONDS).ping() == {NODE: {"ok": "pong"}}


def test_nodes_are_matched(app, worker):
    def replies(pattern, matcher):
        return app.control.broadcast("ping", pattern=pattern, matcher=matcher, reply=True, limit=1, timeout=SECONDS)

    assert replies("control@*", "glob") == [{NODE: {"ok": "pong"}}]
    assert replies(r"con\w+@", "pcre") == [{NODE: {"ok": "pong"}}]
    since = worker.mark()
    assert app.control.broadcast("ping", pattern="x@*", matcher="glob", reply=True, timeout=0.5) == []
    assert app.control.broadcast("ping", pattern="x", matcher="nonsense", reply=True, timeout=0.5) == []
    worker.wait_for(r"Control command error: MatcherNotInstalled\('No matcher installed for nonsense'\)", since)


def test_the_command_line_pings(server, worker):
    command = [sys.executable, "-m", "celery", "-b", server.broker_url, "inspect", "ping", "-d", NODE, "-t", str(SECONDS)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert printed.returncode == 0, printed.stderr
    assert f"{NODE}: OK" in printed.stdout and "pong" in printed.stdout


def test_what_cannot_be_done_is_answered_as_celery_answers(app, worker):
    """Recorded from a stock worker, 5.7.0."""
    missing = "TypeError(\"revoke() missing 1 required positional argument: 'task_id'\")"
    uppercase = "TypeError('signal name must be uppercase string.')"
    invalid = "Invalid rate limit string: ValueError(\"could not convert string to float: 'abc'\")"
    since = worker.mark()
    assert ask(app, "nocmd") == {"error": "KeyError('nocmd')"}
    worker.wait_for(r"pidbox command error: KeyError\('nocmd'\)", since)
    assert ask(app, "revoke") == {"error": missing}
    assert ask(app, "revoke", task_id="zz", terminate=True, signal="bad") == {"error": uppercase}
    assert ask(app, "revoke", task_id="zz", terminate=True) == {"ok": "terminate: tasks unknown"}
    assert ask(app, "rate_limit", task_name="rust.add", rate_limit="abc") == {"error": invalid}
    assert ask(app, "rate_limit", task_name="rust.none", rate_limit="1/s") == {"error": "unknown task"}
    assert ask(app, "time_limit", task_name="rust.none", soft=1) == {"error": "unknown task"}
    # The log comes after the answer: the next test is to see nothing of this.
    worker.wait_for("Change time limit attempt for unknown task", since)


def test_what_monitors_ask_for_is_no_error_in_the_log(app, worker):
    since = worker.mark()
    inspected = ["active", "reserved", "scheduled", "registered", "stats", "conf", "active_queues", "revoked", "objgraph"]
    for command in inspected:
        answer = ask(app, command)
        assert ("error" in answer) == (command == "objgraph"), answer
    assert ask(app, "ping") == {"ok": "pong"}
    assert "ERROR" not in worker.output.text(since) and "WARNING" not in worker.output.text(since)


def test_nodes_tell_each_other_what_was_revoked(app, server, tasks, worker):
    ids = [str(uuid.uuid4()) for _ in range(3)]
    ask(app, "revoke", task_id=ids[0])
    assert ask(app, "hello", from_node=NODE) is None
    answer = ask(app, "hello", from_node="other@test", revoked=ids[1:2])
    assert answer["revoked"][-2:] == ids[:2] and answer["clock"] > 0
    ask(app, "hello", from_node="old@test", revoked={ids[2]: 123.5})
    for id in ids:
        assert revoked(tasks.send_with("add", (1, 2), task_id=id)) == "revoked"


def test_garbage_is_survived(app, server, worker):
    since = worker.mark()
    properties = {"delivery_tag": "x", "delivery_info": {}, "body_encoding": "base64"}
    types = {"content-type": "application/json", "content-encoding": "utf-8"}
    empty = {"body": "bnVsbA==", "headers": {}, **types, "properties": properties}
    pickled = {**empty, "content-type": "application/x-python-serialize"}
    for message in [*server.NO_COMMANDS, empty, pickled]:
        server.broadcast("celery.pidbox", message)
    assert ask(app, "ping") == {"ok": "pong"}
    worker.wait_for("Cannot decode message", since)
    worker.wait_for("Control command error: AttributeError", since)


@pytest.mark.only("redis", "on RabbitMQ commands come over the connection that tasks come over")
def test_a_lost_subscription_is_made_again_and_tasks_go_on(app, server, tasks, worker):
    since = worker.mark()
    running = tasks.send("sleep", 0.5)
    server.broker.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    worker.wait_for("pidbox: commands are not heard, subscribing again", since)
    eventually(lambda: app.control.ping(destination=[NODE], timeout=0.5), "the node answers again")
    assert tasks.value(running) == 0.5
    assert "Connection to broker lost" not in worker.output.text(since)


@pytest.mark.only("redis", "on RabbitMQ vhosts keep fleets apart")
def test_prefixes(server, start_worker):
    options = {"global_keyprefix": "pre:", "fanout_prefix": "own-{db}."}
    settings = {f"broker_transport_options.{name}": value for name, value in options.items()}
    start_worker("prefixed", "-n", "prefixed@test", control_exchange="mine", **settings)
    other = Celery("prefixed", broker=server.broker_url, backend=server.result_url, set_as_current=False)
    other.conf.update(broker_transport_options=options, control_exchange="mine")
    assert other.control.ping(destination=["prefixed@test"], timeout=SECONDS) == [{"prefixed@test": {"ok": "pong"}}]
    other.close()


def test_remote_control_can_be_off(app, server, start_worker):
    start_worker("deaf", "-n", "deaf@test", worker_enable_remote_control=False)
    assert app.control.ping(destination=["deaf@test"], timeout=0.5) == []


# Revoking.


def test_revoked_before_it_came(app, server, tasks, worker):
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    answer = ask(app, "revoke", task_id=ids)
    assert answer == {"ok": f"tasks {{'{ids[0]}', '{ids[1]}'}} flagged as revoked"}
    worker.wait_for(f"Tasks flagged as revoked: {ids[0]}, {ids[1]}")
    since = worker.mark()
    result = tasks.send_with("add", (1, 2), task_id=ids[0])
    worker.wait_for(rf"Discarding revoked task: rust\.add\[{ids[0]}\]\n", since)
    assert revoked(result) == "revoked"
    eventually(lambda: server.held() == 0, "it is acknowledged")
    # The other one was stored as soon as it was revoked.
    assert revoked(app.AsyncResult(ids[1])) == "revoked"
    stored = meta(server, app.AsyncResult(ids[1]))
    assert stored.pop("date_done")
    assert stored == {
        "status": "REVOKED", "traceback": None, "children": None, "task_id": ids[1],
        "result": {"exc_type": "TaskRevokedError", "exc_message": ["revoked"], "exc_module": "celery.exceptions"},
    }


def test_a_result_revokes_what_is_held_by_its_eta(app, server, tasks, worker):
    since = worker.mark()
    result = tasks.send_with("add", (1, 2), countdown=3600)
    worker.wait_for(f"{result.id}\\] received", since)
    result.revoke()
    assert revoked(result) == "revoked"
    worker.wait_for(rf"Discarding revoked task: rust\.add\[{result.id}\]", since)
    eventually(lambda: server.held() == 0, "it is acknowledged, and not held for an hour")


def test_a_finished_task_stays_as_it_is(app, tasks):
    result = tasks.send("add", 1, 2)
    assert tasks.value(result) == 3
    ask(app, "revoke", task_id=result.id)
    assert result.state == "SUCCESS"


def test_revoked_and_terminated_while_it_waits_for_a_slot(app, narrow):
    tasks, worker = narrow
    running = tasks.stored("sleep", 60, until="STARTED")[1]
    revoke_it, terminate_it, run_it = (tasks.send("add", 1, 2) for _ in range(3))
    worker.wait_for(f"{run_it.id}\\] received")
    assert "flagged as revoked" in ask(app, "revoke", NARROW, task_id=revoke_it.id)["ok"]
    answer = ask(app, "revoke", NARROW, task_id=terminate_it.id, terminate=True)
    assert answer == {"ok": f"terminate: {terminate_it.id}"}
    assert revoked(revoke_it) == revoked(terminate_it) == "revoked"
    for result in (revoke_it, terminate_it):
        worker.wait_for(rf"Discarding revoked task: rust\.add\[{result.id}\]")
    ask(app, "revoke", NARROW, task_id=running.id, terminate=True)
    assert revoked(running) == "terminated"
    assert tasks.value(run_it) == 3


def test_terminated_while_it_runs(app, server, tasks, worker):
    running = tasks.stored("sleep", 60, until="STARTED")[1]
    assert ask(app, "revoke", task_id=running.id) == {"ok": f"tasks {{'{running.id}'}} flagged as revoked"}
    assert running.state == "STARTED"
    app.control.terminate(running.id, destination=[NODE])
    assert revoked(running) == "terminated"
    worker.wait_for(rf"Terminating {running.id} \(15\)")
    stored = meta(server, running)
    assert (stored["result"]["exc_message"], stored["traceback"], stored["children"]) == (["terminated"], None, [])


def test_terminated_while_it_blocks_its_thread(app, narrow):
    tasks, worker = narrow
    running = tasks.stored("block", 5, until="STARTED")[1]
    waiting = tasks.send("add", 1, 2)
    ask(app, "revoke", NARROW, task_id=running.id, terminate=True, signal="KILL")
    assert revoked(running) == "terminated"
    worker.wait_for(rf"Terminating {running.id} \(9\)")
    worker.wait_for(rf"Task rust\.block\[{running.id}\] is terminated, but its thread cannot be")
    # The thread keeps its place until it returns, and what it returns is thrown away.
    assert tasks.value(waiting) == 3
    assert revoked(running) == "terminated"


def test_late_acknowledged_and_terminated_is_acknowledged(app, server, tasks, folder, worker):
    since = worker.mark()
    running = tasks.send("append_late", str(folder / "never"), "line", 60)
    worker.wait_for(f"{running.id}\\] received", since)
    eventually(lambda: running.state == "STARTED", "it runs")
    ask(app, "revoke", task_id=running.id, terminate=True)
    assert revoked(running) == "terminated"
    eventually(lambda: server.held() == 0, "it is acknowledged")
    assert not (folder / "never").exists()


def test_stamps(app, tasks, worker):
    def stamped(name, args, **stamps):
        headers = {"stamped_headers": list(stamps), "stamps": stamps}
        return tasks.send_with(name, args, headers=headers)

    running = stamped("sleep", (60,), tenant=["a", "b"])
    eventually(lambda: running.state == "STARTED", "it runs")
    assert ask(app, "revoke_by_stamped_headers", headers={"tenant": "x"}) == {
        "ok": "headers {'tenant': 'x'} flagged as revoked, but not terminated"
    }
    since = worker.mark()
    assert revoked(stamped("add", (1, 2), other=["x"], tenant=["y", "x"])) == "revoked"
    worker.wait_for(r"\] \(revoked by header: \{'tenant': 'x'\}\)", since)
    assert tasks.value(stamped("add", (1, 2), tenant="y")) == 3

    def terminated(headers):
        return app.control.revoke_by_stamped_headers(
            headers, terminate=True, destination=[NODE], reply=True, timeout=SECONDS)

    answer = terminated({"tenant": "z"})
    assert answer == [{NODE: {"ok": "headers {'tenant': 'z'} were not terminated"}}]
    answer = terminated({"tenant": ["a"]})
    assert answer == [{NODE: {"ok": "headers defaultdict(<class 'set'>, {'tenant': {'a'}}) revoked"}}]
    assert revoked(running) == "terminated"


# What comes again.


@pytest.mark.only("redis", "on RabbitMQ only the broker says that a message was delivered before")
def test_a_success_that_comes_again_is_not_run_again(app, server, folder, start_worker):
    worker = start_worker("again", "-n", "again@test", worker_deduplicate_successful_tasks=True)
    tasks = Caller(app, server, "again")
    path = folder / "again"

    def deliver_again(result, **embed):
        """As a worker does that was killed after the task and before the acknowledgement."""
        since = worker.mark()
        properties = {"correlation_id": result.id, "delivery_tag": "x", "body_encoding": "base64", "priority": 0}
        properties["delivery_info"] = {"exchange": "", "routing_key": "again", "redelivered": True}
        headers = {"task": "rust.append_late", "id": result.id, "lang": "py", "redelivered": True}
        body = base64.b64encode(json.dumps([[str(path), "line"], {}, embed]).encode()).decode()
        types = {"content-type": "application/json", "content-encoding": "utf-8"}
        server.broker.lpush("again", json.dumps({"body": body, "headers": headers, "properties": properties, **types}))
        return since

    result = tasks.send("append_late", str(path), "line")
    tasks.value(result)
    again = rf"Task rust\.append_late\[{result.id}\] Task already completed successfully\."
    worker.wait_for(again, deliver_again(result))
    # Another process asks the backend. What follows the success was not sent, says the result: it is now, once.
    assert worker.stop() == 0
    worker = start_worker("again", "-n", "again@test", worker_deduplicate_successful_tasks=True)
    link = tasks.app.signature("rust.append", (str(path), "link"), immutable=True, queue="again")
    link.freeze()
    for _ in range(2):
        worker.wait_for(again, deliver_again(result, callbacks=[link]))
    assert tasks.value(app.AsyncResult(link.id)) is None
    assert path.read_text() == "line\nlink\n"
    # What has not succeeded is run.
    result.forget()
    new = app.AsyncResult(str(uuid.uuid4()))
    since = deliver_again(new)
    worker.wait_for(rf"{new.id}\] succeeded in", since)
    assert path.read_text() == "line\nlink\nline\n"
    eventually(lambda: server.held() == 0, "all is acknowledged")


# What a restart remembers.


def test_the_state_file_is_remembered(app, server, folder):
    state = folder / "state-of-remembering@test"
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]

    def start():
        return Worker(server, "state", folder, ["-n", "remembering@test", "-S", folder / "state-of-%n@test"])

    worker = start()
    ask(app, "revoke", "remembering@test", task_id=ids[0])
    ask(app, "revoke_by_stamped_headers", "remembering@test", headers={"tenant": "gone"})
    assert worker.stop() == 0
    worker = start()
    ask(app, "revoke", "remembering@test", task_id=ids[1])
    eventually(lambda: ids[1] in state.read_text(), "it is written at once, not only at the end")
    worker._process.kill()
    worker._process.wait()
    worker = start()
    tasks = Caller(app, server, "state")
    for result in (tasks.send_with("add", (1, 2), task_id=id) for id in ids):
        worker.wait_for(rf"Discarding revoked task: rust\.add\[{result.id}\]")
    headers = {"stamped_headers": ["tenant"], "stamps": {"tenant": "gone"}}
    assert revoked(tasks.send_with("add", (1, 2), headers=headers)) == "revoked"
    assert worker.stop() == 0


def test_the_state_file_of_a_stock_worker_is_refused(server, folder, worker):
    path = folder / "shelve"
    with shelve.open(str(path)) as state:
        state["zrevoked"] = b"x"
    [path] = [file for file in folder.glob("shelve*") if file.suffix != ".bak" and file.stat().st_size][:1]
    command = [worker._process.args[0], "-b", server.broker_url, "worker", "-l", "info", "-S", path]
    refused = Process(command)
    refused.output.wait_for("is not Celeriac's .the files of Celery's own workers cannot be read here.")
    assert refused._process.wait(SECONDS) == 1


# Limits.


def test_a_rate_limit_holds_its_own_task_and_no_other(app, narrow):
    # One at a time: they end in the order in which they begin.
    tasks, worker = narrow
    assert ask(app, "rate_limit", NARROW, task_name="rust.identity", rate_limit="1/h") == {
        "ok": "new rate limit set successfully"
    }
    worker.wait_for(r"New rate limit for tasks of type rust\.identity: 1/h\.")
    first = tasks.send("identity", 0)
    assert tasks.value(first) == 0
    held = [tasks.send("identity", number) for number in range(1, 50)]
    assert [tasks.call("add", number, 1) for number in range(20)] == list(range(1, 21))
    assert {result.state for result in held} == {"PENDING"}
    app.control.revoke(held[0].id, destination=[NARROW])
    assert revoked(held[0]) == "revoked"
    worker.wait_for(rf"Discarding revoked task: rust\.identity\[{held[0].id}\]")
    since = worker.mark()
    assert ask(app, "rate_limit", NARROW, task_name="rust.identity", rate_limit="20/s") == {
        "ok": "new rate limit set successfully"
    }
    assert [tasks.value(result) for result in held[1:]] == list(range(2, 50))
    worker.wait_for(f"{held[-1].id}\\] succeeded", since)
    log = worker.output.text(since)
    places = [log.index(f"{result.id}] succeeded") for result in held[1:]]
    assert places == sorted(places)
    assert ask(app, "rate_limit", NARROW, task_name="rust.identity", rate_limit=0) == {
        "ok": "rate limit disabled successfully"
    }
    worker.wait_for(r"Rate limits disabled for tasks of type rust\.identity\n", since)


def test_limited_tasks_do_not_fill_the_window(app, server, start_worker):
    """Many more of them than the window is wide stand before the others in the queue."""
    limit = ["-n", "window@test", "-c", "2", "--prefetch-multiplier", "1"]
    worker = start_worker("window", *limit, task_default_rate_limit="1/h")
    tasks = Caller(app, server, "window")
    ask(app, "rate_limit", "window@test", task_name="rust.add", rate_limit=0)
    for number in range(500):
        tasks.send("identity", number)
    assert tasks.call("add", 1, 2) == 3
    assert worker.stop() == 0
    # What was not started goes back, in its order.
    eventually(lambda: server.length("window") == 499, "what was not started is back")


def test_a_rate_is_kept(app, tasks):
    ask(app, "rate_limit", task_name="rust.mul", rate_limit="10/s")
    begin = time.monotonic()
    results = [tasks.send("mul", number, 1) for number in range(6)]
    assert [tasks.value(result) for result in results] == list(range(6))
    assert time.monotonic() - begin >= 0.5
    ask(app, "rate_limit", task_name="rust.mul", rate_limit=None)


def test_time_limits_change(app, tasks, worker):
    since = worker.mark()
    assert ask(app, "time_limit", task_name="rust.sleep", hard=0.25) == {"ok": "time limits set successfully"}
    worker.wait_for(r"New time limits for tasks of type rust\.sleep: soft=None hard=0\.25\n", since)
    assert isinstance(tasks.error(tasks.send("sleep", 60)), TimeLimitExceeded)
    # A message's own limit wins; and without any it runs for as long as it likes.
    assert tasks.value(tasks.send_with("sleep", (0.5,), time_limit=30)) == 0.5
    ask(app, "time_limit", task_name="rust.sleep")
    assert tasks.call("sleep", 0.5) == 0.5


# The window.


@pytest.mark.only("redis", "Celery has the option for Redis alone")
@pytest.mark.parametrize("option", ["--disable-prefetch", "worker.disable_prefetch=yes"])
def test_nothing_is_reserved_that_cannot_run(app, server, start_worker, option):
    server.forget("unfetched")
    worker = start_worker("unfetched", "-n", "unfetched@test", "-c", "2", "-O", "fair", option, task_track_started=True)
    tasks = Caller(app, server, "unfetched")
    running = [tasks.stored("sleep", 60, until="STARTED")[1] for _ in range(2)]
    waiting = tasks.send("add", 1, 2)
    # An ETA takes no place among those that run.
    held = tasks.send_with("add", (1, 2), countdown=3600)
    assert ask(app, "ping", "unfetched@test") == {"ok": "pong"}
    assert server.length("unfetched") == 2
    ask(app, "revoke", "unfetched@test", task_id=[result.id for result in running], terminate=True)
    assert tasks.value(waiting) == 3
    worker.wait_for(f"{held.id}\\] received")
    assert worker.stop() == 0


@pytest.mark.only("rabbitmq", "Redis sends nothing ahead")
def test_where_messages_are_sent_ahead_the_option_is_ignored_with_a_warning(app, server, start_worker):
    worker = start_worker("ahead", "-n", "ahead@test", "-c", "1", "--disable-prefetch")
    worker.wait_for("worker_disable_prefetch is only supported for Redis brokers. Current broker transport: amqp")
    tasks = Caller(app, server, "ahead")
    running = tasks.send("sleep", 60)
    ahead = tasks.send("add", 1, 2)
    eventually(lambda: server.held() >= 1 and server.length("ahead") == 0, "the second was sent ahead")
    assert not running.ready() and not ahead.ready()
    ask(app, "revoke", "ahead@test", task_id=running.id, terminate=True)
    assert revoked(running) and tasks.value(ahead) == 3
    assert worker.stop() == 0


def test_no_more_etas_are_held_than_the_limit_says(app, server, start_worker):
    few = ["-n", "few@test", "-c", "1", "--prefetch-multiplier", "1"]
    worker = start_worker("few", *few, worker_eta_task_limit=3)
    tasks = Caller(app, server, "few")
    for _ in range(10):
        tasks.send_with("add", (1, 2), countdown=3600)
    eventually(lambda: server.length("few") == 7, "three are held")
    assert worker.stop() == 0
    eventually(lambda: server.length("few") == 10, "all are back")
