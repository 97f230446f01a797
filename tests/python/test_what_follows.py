"""What follows a task comes about though the backend is away, or holds what nobody can read; and Celery's own tasks that
see to it where a backend counts no chords."""

import types
import uuid

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import ChordError

from cutting import Proxy, Trap
from support import SECONDS, Worker

pytestmark = pytest.mark.only("redis", "it is about the result backend")

QUEUE = "follows"
META = "celery-task-meta-"
GARBAGE = b"\x80garbage"


@pytest.fixture(scope="module")
def worker(start_worker):
    # Late, so that a message that is not settled comes back, again and again.
    return start_worker(QUEUE, task_acks_late=True)


@pytest.fixture
def sign(app):
    return lambda name, *args, **options: app.signature(f"rust.{name}", args, queue=QUEUE, **options)


def error(result):
    """The exception that it failed with."""
    failure = result.get(timeout=SECONDS, propagate=False)
    assert isinstance(failure, Exception), failure
    return failure


def chord_with_a_broken_chain(sign):
    """A chord with a member that is a chain, whose first task fails; and the id of its last."""
    last = str(uuid.uuid4())
    broken = chain(sign("fail", "ValueError", "bad"), sign("add", 1).set(task_id=last))
    return chord([broken, sign("add", 1, 2)], sign("xsum")), last


def failed_once(server, worker, since, result, last):
    failure = error(result)
    assert type(failure) is ChordError and failure.args == (f"Dependency {last} raised ValueError('bad')",)
    # The line may come after the result, and what is not settled comes again.
    worker.wait_for("raised unexpected: ValueError", since)
    server.holds_nothing()
    assert worker.output.text(since).count("raised unexpected: ValueError('bad')") == 1


def test_a_chain_is_failed_though_nobody_can_read_what_is_stored_of_it(server, sign, worker):
    canvas, last = chord_with_a_broken_chain(sign)
    server.results.set(META + last, GARBAGE)
    since = worker.mark()
    failed_once(server, worker, since, canvas.apply_async(), last)


@pytest.mark.parametrize("late", [False, True], ids=["acknowledged early", "acknowledged late"])
def test_a_chain_is_failed_though_the_backend_is_away_for_a_while(app, server, folder, sign, late):
    canvas, last = chord_with_a_broken_chain(sign)
    # Whether it has failed before is asked when its own failure is stored.
    trap = Trap(lambda words: words[0] == b"GET" and words[1].endswith(last.encode()), after=False)
    proxy = Proxy(server.port, trap)
    trap.act = lambda: setattr(proxy, "refusals", 3)
    urls = types.SimpleNamespace(broker_url=server.broker_url, result_url=f"redis://127.0.0.1:{proxy.port}/1")
    worker = Worker(urls, f"{QUEUE}-away", folder, task_acks_late=late)
    for task in [*canvas.tasks[0].tasks, canvas.tasks[1], canvas.body]:
        task.set(queue=f"{QUEUE}-away")
    trap.is_armed = True
    failed_once(server, worker, 0, canvas.apply_async(), last)
    assert trap.sprang.is_set() and proxy.refusals == 0
    assert worker.stop() == 0, worker.output.text()
    proxy.close()


def test_a_worker_without_a_backend_ends_what_others_count(server, folder, sign):
    """A member of a chord that its client counts elsewhere: nothing can be told, and the message is done with."""
    canvas, _ = chord_with_a_broken_chain(sign)
    urls = types.SimpleNamespace(broker_url=server.broker_url, result_url="disabled://")
    worker = Worker(urls, f"{QUEUE}-nowhere", folder, task_acks_late=True)
    for task in [*canvas.tasks[0].tasks, canvas.tasks[1], canvas.body]:
        task.set(queue=f"{QUEUE}-nowhere")
    result = canvas.apply_async()
    worker.wait_for("raised unexpected")
    worker.wait_for("succeeded")
    server.holds_nothing()
    assert server.broker.llen(f"{QUEUE}-nowhere") == 0
    assert worker.output.text().count("raised unexpected: ValueError('bad')") == 1
    assert worker.stop() == 0, worker.output.text()
    # Nobody waits for them any more, and that must not be told to a Redis that has gone.
    result.parent.forget()
    result.forget()


def test_a_chord_whose_saved_header_nobody_can_read_fails(server, sign, worker):
    group_id = str(uuid.uuid4())
    server.results.set(f"celery-taskset-meta-{group_id}", GARBAGE)
    canvas = chord([], sign("xsum"))
    canvas.tasks = group(sign("add", 1, 2), sign("add", 3, 4)).set(task_id=group_id)
    failure = error(canvas.apply_async())
    assert type(failure) is ChordError and failure.args[0].startswith("Join error: DecodeError(")


def test_a_value_that_cannot_be_encoded_is_a_failure_like_any_other(server, folder):
    """It is acknowledged as failures are; here, not at all."""
    worker = Worker(
        server, f"{QUEUE}-unencodable", folder, task_acks_late=True, task_acks_on_failure_or_timeout=False,
        result_serializer="msgpack",
    )
    server.broker.delete("celeriac.dead-letters")
    with Celery("sender", broker=server.broker_url, set_as_current=False) as sender:
        result = sender.send_task("rust.types", queue=f"{QUEUE}-unencodable")
    letter = server.dead_letter()
    assert letter["headers"]["id"] == result.id
    assert letter["headers"]["x-celeriac-death"]["exception"].startswith("EncodeError(")
    assert worker.stop() == 0, worker.output.text()


class TestChordUnlock:
    """`celery.chord_unlock`, as clients send it whose backend counts no chords."""

    @pytest.fixture
    def unlock(self, app, sign, worker):
        def unlock(*members, **polling):
            body = sign("xsum")
            body_id = body.freeze().id
            kwargs = {"result": [[[member, None], None] for member in members], "interval": 0.05, **polling}
            kwargs["_chord_unlock_exchange_type"] = "direct"
            app.send_task("celery.chord_unlock", (str(uuid.uuid4()), dict(body)), kwargs, queue=QUEUE)
            return app.AsyncResult(body_id)

        return unlock

    def test_the_body_is_called_when_all_are_ready(self, sign, worker, unlock):
        members = [sign("add", nth, nth) for nth in range(3)]
        since = worker.mark()
        body = unlock(*(member.freeze().id for member in members))
        worker.wait_for(r"celery\.chord_unlock\[.*\] retry: Retry in 0\.05s", since)
        for member in members:
            member.apply_async()
        assert body.get(timeout=SECONDS) == 6

    def test_the_body_fails_with_a_member(self, sign, unlock):
        members = [sign("add", 1, 1).apply_async().id, sign("fail", "ValueError", "bad").apply_async().id]
        failure = error(unlock(*members))
        assert type(failure) is ChordError and failure.args == (f"Dependency {members[1]} raised ValueError('bad')",)

    def test_what_cannot_be_asked_is_asked_again(self, server, sign, worker, unlock):
        member = str(uuid.uuid4())
        server.results.set(META + member, GARBAGE)
        since = worker.mark()
        body = unlock(member)
        worker.wait_for(r"celery\.chord_unlock\[.*\] retry: Retry in 0\.05s: ", since)
        server.results.delete(META + member)
        sign("add", 1, 1).set(task_id=member).apply_async()
        assert body.get(timeout=SECONDS) == 2

    def test_the_body_fails_when_nobody_will_ask_again(self, unlock):
        failure = error(unlock(str(uuid.uuid4()), max_retries=2))
        assert type(failure) is ChordError
        assert failure.args[0].startswith("chord_unlock could not be retried: MaxRetriesExceededError(")

    def test_the_body_fails_if_it_cannot_be_called(self, app, sign, unlock):
        member = sign("add", 1, 1).apply_async().id
        body = str(uuid.uuid4())
        # A signature that says where to go in a way that nobody can.
        callback = {**dict(sign("xsum")), "options": {"task_id": body, "queue": 5}}
        kwargs = {"result": [[[member, None], None]], "interval": 0.05}
        app.send_task("celery.chord_unlock", (str(uuid.uuid4()), callback), kwargs, queue=QUEUE)
        failure = error(app.AsyncResult(body))
        assert type(failure) is ChordError and failure.args[0].startswith("Callback error: ")


def test_there_is_nothing_to_clean_up_in_redis(app, worker):
    assert app.send_task("celery.backend_cleanup", queue=QUEUE).get(timeout=SECONDS) is None
