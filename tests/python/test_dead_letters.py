"""`dead-letters list | show | requeue | purge`, on the broker alone."""

import json
import subprocess
import uuid

import pytest

import client
from client import Caller
from faults import eventually
from support import DEAD_LETTERS, EXAMPLE_WORKER, SECONDS, Redis

QUEUE = "letters"


@pytest.fixture(scope="module")
def server(folder):
    """A Redis of this suite's own: nobody else's letters."""
    server = Redis(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def app(server):
    return client.connect(server)


@pytest.fixture(scope="module")
def tasks(start_worker, app, server):
    start_worker(QUEUE)
    return Caller(app, server, QUEUE)


@pytest.fixture
def command(server, tmp_path):
    """Runs the command; its exit code, standard output and error."""
    server.broker.delete(DEAD_LETTERS, DEAD_LETTERS + "\x06\x163")

    def run(*arguments, input="", binary=False):
        ended = subprocess.run(
            [EXAMPLE_WORKER, "-b", server.broker_url, "dead-letters", *arguments], input=input.encode(), cwd=tmp_path,
            capture_output=True, timeout=SECONDS,
        )
        out = ended.stdout if binary else ended.stdout.decode()
        return ended.returncode, out, ended.stderr.decode()

    return run


@pytest.fixture
def bury(tasks, server):
    """Has a task die, and returns its id when its letter is there."""

    def bury(name, *args, **options):
        before = count(server)
        result = tasks.send_with(name, args, **options)
        wait_for_letters(server, before + 1)
        return result.id

    return bury


def count(server):
    """How many letters there are, of all priorities."""
    return sum(server.broker.llen(DEAD_LETTERS + step) for step in ["", "\x06\x163", "\x06\x166", "\x06\x169"])


def wait_for_letters(server, expected):
    eventually(lambda: count(server) == expected, f"{expected} dead letters")


def test_an_empty_queue(command):
    assert command("list") == (0, f"No dead letters in {DEAD_LETTERS}.\n", "")
    assert command("list", "--json") == (0, "", "")
    assert command("requeue", "--all") == (0, "Requeued 0 dead letters.\n", "")
    assert command("purge", "-f") == (0, "Purged 0 dead letters.\n", "")


def test_letters_are_listed(command, bury, server):
    ids = [bury("missing", 1), bury("nowhere", 2), bury("missing", 3)]
    server.broker.lpush(QUEUE, b"\xffno message")
    wait_for_letters(server, 4)
    code, out, _ = command("list")
    heading, *rows = out.splitlines()
    assert code == 0 and heading.split() == ["ID", "TASK", "QUEUE", "REASON", "TIME"]
    assert [row.split()[0] for row in rows[:3]] == ids
    assert "rust.missing" in rows[0] and QUEUE in rows[0] and "unregistered task" in rows[0]
    listed = [json.loads(line) for line in command("list", "--json")[1].splitlines()]
    assert [letter["id"] for letter in listed] == [*ids, None]
    assert listed[3]["task"] is None and rows[3].startswith(listed[3]["letter"])
    check = lambda *options: [json.loads(line)["id"] for line in command("list", "--json", *options)[1].splitlines()]
    assert check("--task", "rust.missing") == [ids[0], ids[2]]
    assert check("--task", "rust.m*", "--limit", "1") == [ids[0]]
    assert check("--reason", "UNREGISTERED") == ids
    assert check("--reason", "nothing like it") == []


def test_a_letter_is_shown_whole(command, bury, server):
    task_id = bury("missing", 1, "two", kwargs={"x": None}, headers={"mine": "kept"}, priority=3)
    code, out, _ = command("show", task_id)
    assert code == 0
    for part in [task_id, "rust.missing", "(1, 'two')", "{'x': None}", "mine: 'kept'", "NotRegistered", "priority: 3"]:
        assert part in out, part
    letter = json.loads(command("show", task_id, "--json")[1])
    assert (letter["args"], letter["kwargs"], letter["headers"]["mine"]) == ([1, "two"], {"x": None}, "kept")
    assert "x-celeriac-death" not in letter["headers"]
    assert json.loads(command("show", letter["letter"], "--raw")[1])[:2] == [[1, "two"], {"x": None}]
    code, out, error = command("show", "nobody")
    assert (code, out) == (1, "") and "nobody" in error


def test_bytes_that_are_no_message_are_put_back_as_they_were(command, server, tasks):
    raw = b"\xff\x00 no message \n"
    server.broker.lpush(QUEUE, raw)
    wait_for_letters(server, 1)
    letter = json.loads(command("list", "--json")[1])["letter"]
    assert command("show", letter, "--raw", binary=True)[1] == raw
    assert command("show", letter)[0] == 0
    # Back in its queue, and so dead again.
    assert command("requeue", letter) == (0, "Requeued 1 dead letter.\n", "")
    wait_for_letters(server, 1)
    again = json.loads(command("list", "--json")[1])["letter"]
    assert again != letter
    assert command("show", again, "--raw", binary=True)[1] == raw


def test_a_letter_runs_when_it_is_put_back_after_the_fix(command, start_worker, tasks, server, app):
    """The fix: the queue's consumer knows the task now."""
    result = app.send_task("rust.missing", [2, 3], queue=QUEUE)
    wait_for_letters(server, 1)
    raw = server.broker.lindex(DEAD_LETTERS, 0)
    server.broker.lset(DEAD_LETTERS, 0, raw.replace(b'"task": "rust.missing"', b'"task": "rust.add"'))
    assert command("requeue", "--all", "--task", "rust.add") == (0, "Requeued 1 dead letter.\n", "")
    eventually(lambda: app.AsyncResult(result.id).state == "SUCCESS", "the task has run")
    assert app.AsyncResult(result.id).get(timeout=SECONDS) == 5
    assert server.broker.llen(DEAD_LETTERS) == 0


def unread_letters(server, count, queue="nobody reads this"):
    """So many letters of a queue that nobody consumes, in order; their ids."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for nth, task_id in enumerate(ids):
        note = {"letter": f"{nth:012}", "reason": "a test", "queue": queue, "exchange": "ex", "routing_key": "a.b"}
        server.broker.lpush(DEAD_LETTERS, json.dumps({
            "body": "W1tdLHt9LHt9XQ==", "content-type": "application/json", "content-encoding": "utf-8",
            "headers": {"task": f"task.{nth % 2}", "id": task_id, "x-celeriac-death": note, "x-celeriac-handed-back": 5},
            "properties": {"body_encoding": "base64", "delivery_tag": task_id, "custom": [1],
                           "delivery_info": {"exchange": "", "routing_key": DEAD_LETTERS}},
        }))
    return ids


def test_letters_go_back_in_order_to_where_they_came_from(command, server):
    server.broker.delete("nobody reads this")
    ids = unread_letters(server, 501)
    assert command("requeue", "--all", "--task", "task.1") == (0, "Requeued 250 dead letters.\n", "")
    assert command("requeue", ids[0], ids[4], "nobody")[:2] == (1, "Requeued 2 dead letters.\n")
    messages = [json.loads(raw) for raw in server.broker.lrange("nobody reads this", 0, -1)][::-1]
    assert [message["headers"]["id"] for message in messages] == [*ids[1::2], ids[0], ids[4]]
    for message in messages:
        assert set(message["headers"]) == {"task", "id"}
        assert message["properties"]["delivery_info"] == {"exchange": "ex", "routing_key": "a.b"}
        assert message["properties"]["custom"] == [1]
    left = [json.loads(raw)["headers"]["id"] for raw in server.broker.lrange(DEAD_LETTERS, 0, -1)][::-1]
    assert left == [task_id for nth, task_id in enumerate(ids) if nth % 2 == 0 and nth not in (0, 4)]


def test_no_letter_is_lost_or_doubled_when_the_command_is_killed(command, server):
    ids = unread_letters(server, 3000)
    server.broker.delete("nobody reads this")
    for nth in range(6):
        running = subprocess.Popen([EXAMPLE_WORKER, "-b", server.broker_url, "dead-letters", "requeue", "--all"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = server.broker.llen(DEAD_LETTERS)
        while running.poll() is None and server.broker.llen(DEAD_LETTERS) > before - 300:
            pass
        running.kill()
        running.wait()
    assert 0 < server.broker.llen("nobody reads this")
    there = [json.loads(raw)["headers"]["id"] for name in (DEAD_LETTERS, "nobody reads this")
             for raw in server.broker.lrange(name, 0, -1)]
    assert sorted(there) == sorted(ids)


def test_several_who_put_back_leave_nothing_and_double_nothing(command, server):
    ids = unread_letters(server, 3000)
    server.broker.delete("nobody reads this")
    commands = [
        subprocess.Popen([EXAMPLE_WORKER, "-b", server.broker_url, "dead-letters", "requeue", "--all"],
                         stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [running.communicate(timeout=SECONDS)[0] for running in commands]
    assert count(server) == 0, said
    there = [json.loads(raw)["headers"]["id"] for raw in server.broker.lrange("nobody reads this", 0, -1)]
    assert sorted(there) == sorted(ids)
    assert sum(int(line.split()[1]) for line in said) == 3000


def test_what_is_no_letter_stays(command, server):
    server.broker.lpush(DEAD_LETTERS, "garbage", json.dumps({"headers": {"id": "x", "task": "t"}, "properties": {}}))
    code, out, error = command("requeue", "--all")
    assert (code, out) == (1, "Requeued 0 dead letters.\n") and "not dead letters" in error
    assert "not a dead letter" in command("list")[1]
    assert server.broker.llen(DEAD_LETTERS) == 2


def test_a_queue_that_cannot_take_it_keeps_the_letter(command, server):
    server.broker.set("no list", "x")
    unread_letters(server, 2, queue="no list")
    assert command("requeue", "--all")[1] == "Requeued 0 dead letters.\n"
    assert server.broker.llen(DEAD_LETTERS) == 2


def test_purging_asks(command, server):
    ids = unread_letters(server, 5)
    for answer in ["", "n\n", "no\n", "what\n"]:
        code, out, error = command("purge", input=answer)
        assert code == 1 and "no undo" in out and DEAD_LETTERS in out and "aborted" in error
    assert server.broker.llen(DEAD_LETTERS) == 5
    assert "Purged 1 dead letter." in command("purge", ids[0], input="y\n")[1]
    assert command("purge", "-f", "--task", "task.1") == (0, "Purged 2 dead letters.\n", "")
    assert "Purged 2 dead letters." in command("purge", input="yes\n")[1]
    assert server.broker.llen(DEAD_LETTERS) == 0


def test_another_queue_and_wrong_usage(command, server, tmp_path):
    assert command("-Q", "other", "list") == (0, "No dead letters in other.\n", "")
    (tmp_path / "celeriac.toml").write_text('dead_letter_queue = "configured"\n')
    assert command("list") == (0, "No dead letters in configured.\n", "")
    assert command("requeue")[0] == 2
    assert command("requeue", "x", "--all")[0] == 2
    (tmp_path / "celeriac.toml").write_text('dead_letter_queue = ""\n')
    assert command("list")[0] == 2
