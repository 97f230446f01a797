"""Python tasks when processes are killed: of the worker nothing remains and no message is lost; a child costs its task."""

import json
import os
import pathlib
import random
import signal

from faults import Messages, eventually, options
from test_faults import all_seen, broker, fill, lines  # noqa: F401
from test_prefork import Celeriac

SEED = 20261128


class Load(Celeriac):
    """The project's worker on the queue `load`, with three children."""

    def __init__(self, broker, **settings):
        transport = options(2) if broker.kind == "redis" else {}
        settings = {"CELERY_BROKER_TRANSPORT_OPTIONS": transport, **settings}
        env = {"SHELF_BROKER": broker.url, "SHELF_RESULTS": broker.result_url, "SHELF_SETTINGS": json.dumps(settings)}
        super().__init__("-A", "shelf", "worker", "-l", "warning", "-c", "3", "-Q", "load", env=env)
        eventually(lambda: len(self.children()) == 3, self.output.text)

    def nursery(self):
        return next(iter(offspring(self.pid)), None)

    def children(self):
        """Those that run tasks."""
        nursery = self.nursery()
        return offspring(nursery) if nursery else []


def offspring(parent):
    """The processes that are a process's children."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_killed_three_times_loses_nothing_and_leaves_nobody(broker, lines):
    count, rng = 1_500, random.Random(SEED)
    messages = Messages(broker, broker.application(), "shelf.tasks.line_late")
    fill(broker, messages, "load", lines.path, count, 0.002)
    worker = Load(broker)
    for at in sorted(rng.sample(range(1, count * 9 // 10), 3)):
        lines.wait_for(at)
        family = [worker.nursery(), *worker.children()]
        worker.kill()
        eventually(lambda: not any(map(is_alive, family)), "nobody outlives the worker")
        worker = Load(broker)
    duplicates = all_seen(broker, lines, count)
    print(f"killed 3 times: {duplicates} of {count} ran more than once")
    assert worker.stop() == 0, worker.output.text()


def kill_children(worker, lines, times, every):
    """Kills a child whenever so many tasks have been run."""
    rng = random.Random(SEED)
    for number in range(times):
        lines.wait_for((number + 1) * every)
        victim = rng.choice(eventually(worker.children, worker.output.text))
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_killed_child_costs_the_task_that_it_ran(broker, lines):
    app, count, kills = broker.application(), 600, 8
    messages = Messages(broker, app, "shelf.tasks.line")
    sent = [messages.message("load", str(lines.path), number, 0.01) for number in range(count)]
    broker.push("load", *(envelope for _, envelope in sent))
    worker = Load(broker)
    kill_children(worker, lines, kills, 60)
    results = [app.AsyncResult(task_id) for task_id, _ in sent]
    eventually(lambda: all(result.ready() for result in results), worker.output.text, pause=0.1)
    lost = [result for result in results if result.state == "FAILURE"]
    assert {type(result.result).__name__ for result in lost} <= {"WorkerLostError"}
    assert all("SIGKILL" in str(result.result) for result in lost)
    assert 1 <= len(lost) <= kills
    # A line may have been written by a task that was killed before it could say so.
    seen = [int(line) for line in lines.all()]
    assert len(seen) == len(set(seen)) >= count - len(lost)
    eventually(lambda: broker.left("load") == (0, 0, 0), lambda: broker.left("load"))
    print(f"{kills} children were killed: {len(lost)} of {count} tasks are lost")
    assert worker.stop() == 0, worker.output.text()


def test_what_a_killed_child_ran_is_run_again_where_the_task_says_so(broker, lines):
    count, kills = 600, 8
    messages = Messages(broker, broker.application(), "shelf.tasks.line_late")
    fill(broker, messages, "load", lines.path, count, 0.01)
    worker = Load(broker)
    kill_children(worker, lines, kills, 60)
    duplicates = all_seen(broker, lines, count)
    assert duplicates <= kills
    assert worker.stop() == 0, worker.output.text()


def test_what_a_killed_child_ran_is_retried_where_the_settings_say_so(broker, lines):
    """Though it is acknowledged when it begins, so that its message is nowhere when it is lost."""
    app, count, kills = broker.application(), 600, 8
    messages = Messages(broker, app, "shelf.tasks.line")
    sent = [messages.message("load", str(lines.path), number, 0.01) for number in range(count)]
    broker.push("load", *(envelope for _, envelope in sent))
    annotations = {"shelf.tasks.line": {"default_retry_delay": 0, "max_retries": None}}
    worker = Load(broker, CELERY_TASK_RETRY_ON_WORKER_LOST=True, CELERY_TASK_ANNOTATIONS=annotations)
    kill_children(worker, lines, kills, 60)
    results = [app.AsyncResult(task_id) for task_id, _ in sent]
    eventually(lambda: all(result.ready() for result in results), worker.output.text, pause=0.1)
    assert {result.state for result in results} == {"SUCCESS"}
    duplicates = all_seen(broker, lines, count)
    assert duplicates <= kills
    assert worker.stop() == 0, worker.output.text()
