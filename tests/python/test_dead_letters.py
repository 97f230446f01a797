"""`dead-letters list | show | requeue | purge`, on the broker alone."""

import base64
import gc
import json
import subprocess
import uuid

import pytest

import client
from client import Caller
from faults import eventually
from conftest import KINDS
from support import DEAD_LETTERS, EXAMPLE_WORKER, SECONDS

QUEUE = "letters"
UNREAD = "nobody reads this"


@pytest.fixture(scope="module")
def server(kind, folder):
    """A broker of this suite's own: nobody else's letters."""
    server = KINDS[kind](folder)
    yield server
    gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.
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
    settled(server)
    server.forget(DEAD_LETTERS)

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


def settled(server):
    """Who looks into a queue of RabbitMQ has its messages meanwhile; they are back soon after it has ended."""
    if server.kind == "rabbitmq":
        eventually(lambda: server.held() == 0, "all that was looked at is back")


def count(server):
    """How many letters there are."""
    settled(server)
    return server.length(DEAD_LETTERS)


def ids_in(server, *queues):
    """Of all messages, the next one first."""
    settled(server)
    return [envelope["headers"]["id"] for queue in queues for envelope in server.waiting(queue)]


def wait_for_letters(server, expected):
    eventually(lambda: count(server) == expected, f"{expected} dead letters")


def push_bytes(server, queue, raw):
    """What is no message of Celery's."""
    if server.kind == "rabbitmq":
        body = base64.b64encode(raw).decode()
        raw = {"body": body, "headers": None, "properties": {"body_encoding": "base64"}}
    server.push(queue, raw)


def test_an_empty_queue(command):
    assert command("list") == (0, f"No dead letters in {DEAD_LETTERS}.\n", "")
    assert command("list", "--json") == (0, "", "")
    assert command("requeue", "--all") == (0, "Requeued 0 dead letters.\n", "")
    assert command("purge", "-f") == (0, "Purged 0 dead letters.\n", "")


def test_letters_are_listed(command, bury, server):
    ids = [bury("missing", 1), bury("nowhere", 2), bury("missing", 3)]
    push_bytes(server, QUEUE, b"\xffno message")
    wait_for_letters(server, 4)
    code, out, _ = command("list")
    heading, *rows = out.splitlines()
    assert code == 0 and heading.split() == ["ID", "TASK", "QUEUE", "REASON", "TIME", "(UTC)"]
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
    push_bytes(server, QUEUE, raw)
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
    letter = server.take(DEAD_LETTERS)
    letter["headers"]["task"] = "rust.add"
    server.push(DEAD_LETTERS, letter)
    assert command("requeue", "--all", "--task", "rust.add") == (0, "Requeued 1 dead letter.\n", "")
    eventually(lambda: app.AsyncResult(result.id).state == "SUCCESS", "the task has run")
    assert app.AsyncResult(result.id).get(timeout=SECONDS) == 5
    assert count(server) == 0


def unread_letters(server, count, queue=UNREAD):
    """So many letters of a queue that nobody consumes, in order; their ids."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    letters = []
    for nth, task_id in enumerate(ids):
        note = {"letter": f"{nth:012}", "reason": "a test", "queue": queue, "exchange": "ex", "routing_key": "a.b"}
        letters.append({
            "body": "W1tdLHt9LHt9XQ==", "content-type": "application/json", "content-encoding": "utf-8",
            "headers": {"task": f"task.{nth % 2}", "id": task_id, "x-celeriac-death": note, "x-celeriac-handed-back": 5},
            "properties": {"body_encoding": "base64", "delivery_tag": task_id, "custom": [1],
                           "delivery_info": {"exchange": "", "routing_key": DEAD_LETTERS}},
        })
    server.push(DEAD_LETTERS, *letters)
    return ids


def test_letters_go_back_in_order_to_where_they_came_from(command, server):
    server.forget(UNREAD)
    ids = unread_letters(server, 501)
    assert command("requeue", "--all", "--task", "task.1") == (0, "Requeued 250 dead letters.\n", "")
    assert command("requeue", ids[0], ids[4], "nobody")[:2] == (1, "Requeued 2 dead letters.\n")
    assert command("requeue", "nobody")[:2] == command("purge", "-f", "nobody")[:2] == (1, "")
    settled(server)
    messages = server.waiting(UNREAD)
    assert [message["headers"]["id"] for message in messages] == [*ids[1::2], ids[0], ids[4]]
    for message in messages:
        assert set(message["headers"]) == {"task", "id"}
        if server.kind == "redis":
            assert message["properties"]["delivery_info"] == {"exchange": "ex", "routing_key": "a.b"}
            assert message["properties"]["custom"] == [1]
    assert ids_in(server, DEAD_LETTERS) == [task_id for nth, task_id in enumerate(ids) if nth % 2 == 0 and nth not in (0, 4)]


def test_no_letter_is_lost_or_doubled_when_the_command_is_killed(command, server):
    ids = unread_letters(server, 3000)
    server.forget(UNREAD)
    for nth in range(6):
        running = subprocess.Popen([EXAMPLE_WORKER, "-b", server.broker_url, "dead-letters", "requeue", "--all"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = server.length(UNREAD)
        while running.poll() is None and server.length(UNREAD) < before + 300:
            pass
        running.kill()
        running.wait()
    there = ids_in(server, DEAD_LETTERS, UNREAD)
    assert 0 < server.length(UNREAD)
    assert set(there) == set(ids)
    # RabbitMQ takes the letter and the message that it becomes in two steps: none is lost, but what was under way at a
    # kill is there twice.
    assert len(there) == len(ids) or server.kind == "rabbitmq" and len(there) <= len(ids) + 6 * 500


def test_several_who_put_back_leave_nothing_and_double_nothing(command, server):
    ids = unread_letters(server, 3000)
    server.forget(UNREAD)
    commands = [
        subprocess.Popen([EXAMPLE_WORKER, "-b", server.broker_url, "dead-letters", "requeue", "--all"],
                         stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [running.communicate(timeout=SECONDS)[0] for running in commands]
    assert count(server) == 0, said
    there = ids_in(server, UNREAD)
    assert sorted(there) == sorted(ids)
    assert sum(int(line.split()[1]) for line in said) == 3000


def test_what_is_no_letter_stays(command, server):
    push_bytes(server, DEAD_LETTERS, b"garbage")
    server.push(DEAD_LETTERS, {"body": "", "headers": {"id": "x", "task": "t"}, "properties": {}})
    code, out, error = command("requeue", "--all")
    assert (code, out) == (1, "Requeued 0 dead letters.\n") and "not dead letters" in error
    assert "not a dead letter" in command("list")[1]
    assert count(server) == 2


def test_a_queue_that_cannot_take_it_keeps_the_letter(command, server):
    if server.kind == "redis":
        server.broker.set("takes none", "x")  # No list.
    else:
        server.vhost.declare("takes none", **{"x-max-length": 0, "x-overflow": "reject-publish"})
    unread_letters(server, 2, queue="takes none")
    code, out, error = command("requeue", "--all")
    assert out == "Requeued 0 dead letters.\n" or (code, out) == (1, "") and "did not take the message" in error
    assert count(server) == 2


def test_purging_asks(command, server):
    ids = unread_letters(server, 5)
    for answer in ["", "n\n", "no\n", "what\n"]:
        code, out, error = command("purge", input=answer)
        assert code == 1 and "no undo" in out and DEAD_LETTERS in out and "aborted" in error
    assert count(server) == 5
    assert "Purged 1 dead letter." in command("purge", ids[0], input="y\n")[1]
    assert command("purge", "-f", "--task", "task.1") == (0, "Purged 2 dead letters.\n", "")
    assert "Purged 2 dead letters." in command("purge", input="yes\n")[1]
    assert count(server) == 0


def test_another_queue_and_wrong_usage(command, server, tmp_path):
    assert command("-Q", "other", "list") == (0, "No dead letters in other.\n", "")
    (tmp_path / "celeriac.toml").write_text('dead_letter_queue = "configured"\n')
    assert command("list") == (0, "No dead letters in configured.\n", "")
    assert command("requeue")[0] == 2
    assert command("requeue", "x", "--all")[0] == 2
    (tmp_path / "celeriac.toml").write_text('dead_letter_queue = ""\n')
    assert command("list")[0] == 2
