"""Python tasks with results at `rpc://`: what their processes make is sent by the worker, as a stock worker sends it."""

import base64
import json
import sys
import uuid

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import chain, group
from celery.exceptions import TaskRevokedError

from rabbit import Rabbit, VHost, shared
from support import SECONDS, Process
from test_prefork import HERE, NODE, environment, error, shelf, start, value, worker  # noqa: F401


class Server:
    """A broker that the results come over, too."""

    kind = "rabbitmq"
    take = Rabbit.take

    def __init__(self):
        self.vhost = VHost(shared())
        self.broker_url, self.result_url = self.vhost.url, "rpc://"


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.vhost.remove()


def test_what_tasks_come_to(shelf, worker):
    assert value(shelf.add.delay(2, y=3)) == 5
    assert value(shelf.surrogate.delay()) == "\ud800"
    assert error(shelf.fail.delay("é"), shelf.Misplaced).args == ("é",)
    assert value(shelf.flaky.delay(2)) == 2
    assert value(chain(shelf.add.s(1, 2), shelf.add.s(3), shelf.add.s(4))()) == 10
    assert value(group(shelf.add.s(i, 1) for i in range(20))()) == list(range(1, 21))


def test_all_states_come_in_their_order(shelf, worker):
    task, metas = shelf.progress.delay(), []
    task.get(timeout=SECONDS, on_message=metas.append)
    assert [meta["status"] for meta in metas] == ["PROGRESS", "SUCCESS"]


def test_what_fails_with_a_task_is_told_of(shelf, worker):
    failed = chain(shelf.fail.s("first"), shelf.add.s(1), shelf.add.s(2))()
    for result in [failed.parent.parent, failed.parent, failed]:
        error(result, shelf.Misplaced)


def test_what_ends_with_its_process(shelf, worker):
    error(shelf.sleep.apply_async((60,), soft_time_limit=0.3), SoftTimeLimitExceeded)
    error(shelf.sleep.apply_async((60,), time_limit=0.3), TimeLimitExceeded)
    error(shelf.die.delay(), WorkerLostError)
    text = uuid.uuid4().hex
    task = shelf.sleep.delay(60, text)
    worker.output.wait_for(text)
    shelf.add.app.control.revoke(task.id, terminate=True)
    error(task, TaskRevokedError)


@pytest.fixture(scope="module")
def stock(shelf, server):
    env = {"PYTHONPATH": HERE, **environment(server)}
    stock = Process(
        [sys.executable, "-m", "celery", "-A", "shelf", "worker", "-l", "info", "-c", "1", "-Q", "stock", "-n", "s@test"],
        env,
    )
    stock.output.wait_for(r"ready\.", timeout=4 * SECONDS)
    yield stock
    stock.stop()


def sent(server, task, *args, queue, **options):
    """The results of a task, as the broker has them, until the last one."""
    replies = f"replies-{uuid.uuid4()}"
    server.vhost.declare(replies)
    task.apply_async(args, queue=queue, reply_to=replies, **options)
    found = []
    while not found or found[-1]["body"]["status"] in ("PROGRESS", "RETRY"):
        found.append(masked(server.take(replies)))
    return found


def masked(envelope):
    """Without what is another time something else."""
    envelope["body"] = body = json.loads(base64.b64decode(envelope["body"]))
    del envelope["properties"]["delivery_info"]
    del body["date_done"], body["traceback"]
    return envelope


@pytest.mark.parametrize("task, args, options", [
    ("add", (1, 2), {}),
    ("fail", ("bad",), {}),
    ("progress", (), {}),
    # Of two processes one may be done with the second try before the other has said that there will be one.
    ("flaky", (1, 3), {}),
    ("add", (1, 2), {"group_id": "together", "parent_id": "before"}),
])
def test_what_is_sent_is_what_a_stock_worker_sends(shelf, server, worker, stock, task, args, options):
    task = getattr(shelf, task)
    options = {"task_id": str(uuid.uuid4()), **options}
    ours, theirs = (sent(server, task, *args, queue=queue, **options) for queue in ("shelf", "stock"))
    assert ours == theirs
