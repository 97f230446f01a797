"""One queue with everything bad in it beside ten thousand good tasks: each bad message comes to its own end alone, and
what is mended afterwards runs."""

import json
import random
import re
import subprocess

import pytest
import redis

from faults import Lines, Messages, RustWorker, StockWorker, eventually, options, supervise
from malformed import UNREGISTERED, Bad, corpus, original, refused
from support import DEAD_LETTERS, DEATH, EXAMPLE_WORKER, SECONDS

QUEUE = "everything"
GOOD = 10_000
MISSING = 20
DEATHS = 3  # Of the worker, until it gives up the poison.


@pytest.fixture
def workers():
    workers = []
    yield workers
    for worker in workers:
        if not worker.is_stopped:
            worker.kill()


@pytest.fixture
def start(broker, tmp_path, workers):
    """Starts our worker, with what it may need to be restarted after a death."""

    def start(**settings):
        settings = {"worker_lost_limit": DEATHS, **settings}
        workers.append(RustWorker(broker, tmp_path, QUEUE, options(1.5), **settings))
        return workers[-1]

    return start


def good_ones(broker, app):
    """Messages by their ids, each a sum; acknowledged late, for the worker dies among them."""
    messages = Messages(broker, app, "rust.add_late")
    return dict(messages.message(QUEUE, nth, 1) for nth in range(GOOD))


def unregistered(broker, app, path):
    messages = Messages(broker, app, "stock.append")
    made = (json.loads(messages.message(QUEUE, str(path), str(nth))[1]) for nth in range(MISSING))
    return [refused(message, UNREGISTERED, "stock.append", "NotRegistered") for message in made]


def poison(broker, app):
    task_id, message = Messages(broker, app, "rust.abort").message(QUEUE, 0.2)
    logged = r"ERROR/MainProcess\] Task rust\.abort\["
    return Bad(message.encode(), logged, (task_id,), "killed its worker", "WorkerLostError", task_id)


def malformed(broker, app):
    app.send_task("rust.add", (2, 3), queue="templates")
    return corpus(json.loads(broker.client.rpop("templates")))


def records(workers):
    """What the workers logged, split where a record begins."""
    return [record for worker in workers for record in re.split(r"(?m)^(?=\[\d{4}-\d\d-\d\d )", worker.output.text())]


def stored(broker, task_ids):
    """The results of these tasks; nothing where none is stored."""
    results = redis.Redis(port=broker.port, db=1)
    found = results.mget([f"celery-task-meta-{task_id}" for task_id in task_ids])
    return [json.loads(meta) if meta else {} for meta in found]


def check_good(broker, task_ids):
    metas = stored(broker, task_ids)
    assert {meta.get("status") for meta in metas} == {"SUCCESS"}
    assert [meta["result"] for meta in metas] == [nth + 1 for nth in range(GOOD)]


def check_logged(bad, workers):
    """Each has its own record; a worker that has just ended may still be read."""
    left = list(bad)

    def all_logged():
        said = records(workers)
        left[:] = [one for one in left if not any(one.is_logged(record) for record in said)]
        return not left

    eventually(all_logged, lambda: f"these to be logged: {left}", timeout=SECONDS)


def check_stored(broker, bad):
    """Each failed for its own reason, and nothing is stored that nobody can ask for."""
    for one, meta in zip(bad, stored(broker, [one.id for one in bad])):
        said = (meta.get("status"), meta.get("result", {}).get("exc_type"))
        assert said == (("FAILURE", one.exception) if one.id else (None, None)), one
    expected = GOOD + sum(one.id is not None for one in bad)
    assert len(list(redis.Redis(port=broker.port, db=1).scan_iter("celery-task-meta-*", count=1000))) == expected


def check_kept(broker, bad):
    """Each is one dead letter, as it was, with its reason; and there are no others."""
    letters = [json.loads(raw) for raw in broker.client.lrange(DEAD_LETTERS, 0, -1)]
    deaths = {original(letter): letter["headers"][DEATH] for letter in letters}
    assert len(deaths) == len(letters) == len(bad)
    for one in bad:
        death = deaths.get(one.raw) or deaths.get(original(json.loads(one.raw)))
        # What is no message has no id, and the letter of a message names it.
        assert death, (one, [letter for letter in letters if one.id and one.id in json.dumps(letter)])
        assert one.reason in death["reason"], one
        assert death["queue"] == QUEUE and "@" in death["hostname"] and death["time"]


def requeue(broker, count, *which):
    command = [EXAMPLE_WORKER, "-b", broker.url, "dead-letters", "requeue", *which]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert (ended.returncode, ended.stdout) == (0, f"Requeued {count} dead letter{'s' * (count > 1)}.\n"), ended.stderr


def succeed(broker, task_ids):
    """Waits until these have a SUCCESS in place of their FAILURE."""
    states = lambda: {meta["status"] for meta in stored(broker, task_ids)}
    eventually(lambda: states() == {"SUCCESS"}, states)


def test_beside_ten_thousand_good_ones(broker, start, workers, tmp_path):
    app, lines = broker.application(), Lines(tmp_path)
    good, killer, missing = good_ones(broker, app), poison(broker, app), unregistered(broker, app, lines.path)
    bad = [*malformed(broker, app), *missing, killer]
    batch = [*good.values(), *(one.raw for one in bad)]
    random.Random(7).shuffle(batch)
    for at in range(0, len(batch), 1000):
        broker.client.lpush(QUEUE, *batch[at:at + 1000])

    assert supervise(start, lambda: broker.left(QUEUE, DEAD_LETTERS) == (0, 0, 0, len(bad))) == DEATHS
    check_good(broker, good)
    check_logged(bad, workers)
    check_stored(broker, bad)
    check_kept(broker, bad)

    # Now a worker is configured to read YAML, and one is there that knows the missing task and has a mended one.
    mended = start(accept_content=["json", "yaml"])
    requeue(broker, 1, "bad yaml")
    succeed(broker, ["bad yaml"])
    assert mended.stop() == 0, mended.output.text()
    workers.append(StockWorker(broker, QUEUE, options(3600)))
    requeue(broker, MISSING, "--all", "--task", "stock.append")
    requeue(broker, 1, killer.id)
    lines.wait_for(MISSING)
    assert sorted(lines.all()) == sorted(f"{nth} by stock" for nth in range(MISSING))
    again = [*(one.id for one in missing), killer.id]
    succeed(broker, again)
    assert workers[-1].stop() == 0, workers[-1].output.text()
    assert broker.left(QUEUE) == (0, 0, 0)
    check_kept(broker, [one for one in bad if one.id not in ["bad yaml", *again]])
