"""Flower by its HTTP API: what it says of a stock worker it says of ours, and what it tells one to do the other does."""

import json
import re

import pytest

from faults import eventually
from monitored import FATES, OURS, QUEUES, STOCK, masked, same

# Where a task's detail differs, and why.
DIFFERENT_VALUES = {
    "traceback": "a task in Rust has the one that it gives, or none, which is empty text",
    "clock": "counts what each has sent",
}
# Of a task that is its own parent, which a retry is, Celery's `State` keeps what it found when somebody first looked.
PARENT = "parent"
# What Flower says of what it is told to do, and of which worker that shows what.
COMMANDS = {
    "worker/pool/grow": ({"n": 2}, "Growing '<node>' worker's pool by 2"),
    "worker/pool/shrink": ({"n": 1}, "Shrinking '<node>' worker's pool by 1"),
    "worker/queue/add-consumer": ({"queue": "more"}, "add consumer more"),
    "worker/queue/cancel-consumer": ({"queue": "more"}, "no longer consuming from more"),
}


@pytest.fixture(scope="module")
def flower(fleet):
    return fleet.flower


def test_workers_are_listed(flower, sent):
    def counted():
        workers = flower.workers()
        # Whose heartbeats come late is not there, until the next one has come.
        return all(workers[node]["active"] == 2 and workers[node]["status"] for node in QUEUES) and workers

    workers = eventually(counted, flower.workers)
    assert same({node: sorted(set(workers[node]) - {"worker-online"}) for node in QUEUES})
    counts = {node: {name: count for name, count in workers[node].items() if name.startswith("task-")} for node in QUEUES}
    assert same(counts)["task-succeeded"] == 2
    assert same({node: workers[node]["processed"] for node in QUEUES}) == 7
    assert same({node: (workers[node]["status"], workers[node]["freq"], workers[node]["sw_sys"]) for node in QUEUES})[0]
    eventually(lambda: flower.get("/api/workers", status="true") == {STOCK: True, OURS: True}, flower.workers)


def test_a_worker_is_inspected(flower, sent):
    workers = {node: flower.worker(node) for node in QUEUES}
    assert len(same({node: set(worker) for node, worker in workers.items()})) == 9  # And when that was.
    assert set(same({node: worker["stats"]["total"] for node, worker in workers.items()})) >= {"rust.add", "rust.sleep"}
    for node, worker in workers.items():
        fates = {task_id: fate for fate, task_id in sent[node].items()}
        assert {fates[task["id"]] for task in worker["active"]} == {"running", "running too"}
        assert [fates[task["id"]] for task in worker["reserved"]] == ["reserved"]
        assert [fates[task["request"]["id"]] for task in worker["scheduled"]] == ["scheduled"]
        # Every worker is told. Celery counts in what has expired, and ours does not (src/worker/revoked.rs).
        assert set(worker["revoked"]) - {tasks["expired"] for tasks in sent.values()} == {tasks["revoked"] for tasks in sent.values()}
        assert [queue["name"] for queue in worker["active_queues"]] == [QUEUES[node]]
        assert "rust.add" in worker["registered"] and worker["conf"]["task_acks_late"] is True


@pytest.mark.parametrize("fate", FATES)
def test_a_tasks_detail(flower, sent, fate):
    def shown(node):
        task = flower.told(sent[node][fate], *FATES[fate])
        return {name: kind(name, value) for name, value in task.items() if name != PARENT}

    def kind(name, value):
        if name in DIFFERENT_VALUES or isinstance(value, float):
            return type(value).__name__
        return json.loads(masked(json.dumps(value)))

    assert same({node: shown(node) for node in QUEUES})["state"] == FATES[fate][0]


def test_tasks_are_found(flower, sent):
    def found(node, **wanted):
        tasks = flower.get("/api/tasks", workername=node, **wanted)
        fates = {task_id: fate for fate, task_id in sent[node].items()}
        return {fates[task_id] for task_id in tasks}

    for wanted in ({}, {"state": "FAILURE"}, {"taskname": "rust.add"}, {"search": "args:3600"}, {"search": "kwargs:z=3"}):
        assert same({node: found(node, **wanted) for node in QUEUES}), wanted
    assert found(OURS) == set(sent[OURS])
    assert found(OURS, search="kwargs:z=3") == {"succeeded"}


def test_metrics_are_the_same(flower, sent):
    def lines(node):
        """Those of the worker, but for how long something took and when it was first seen."""
        series = [line for line in flower.page("/metrics")[1].splitlines() if f'worker="{node}"' in line]
        kept = [line.replace(node, "<node>") for line in series if not re.search(r'_created|_bucket|_sum|_time_seconds|"worker-', line)]
        return sorted(kept)

    metrics = same({node: lines(node) for node in QUEUES})
    assert 'flower_events_total{task="rust.add",type="task-revoked",worker="<node>"} 2.0' in metrics
    assert 'flower_worker_online{worker="<node>"} 1.0' in metrics
    assert 'flower_worker_prefetched_tasks{task="rust.sleep",worker="<node>"} 1.0' in metrics


def test_queues_are_measured(flower, sent):
    queues = {queue["name"]: queue["messages"] for queue in flower.get("/api/queues/length")["active_queues"]}
    assert queues.items() >= {QUEUES[STOCK]: 0, QUEUES[OURS]: 0}.items()


@pytest.mark.parametrize("fate", ["running", "running too", "reserved"])
def test_what_runs_is_terminated(flower, sent, fate):
    """In the end the one that waited for a place, which has begun since."""
    for node in QUEUES:
        task_id = sent[node][fate]
        flower.told(task_id, "STARTED", "started")
        assert flower.say(f"/api/task/revoke/{task_id}", terminate="true", signal="SIGKILL") == f"Revoked '{task_id}'"
        flower.told(task_id, "REVOKED", "revoked")
    assert same({node: flower.task(sent[node][fate])["result"] for node in QUEUES}) is None


def test_what_waits_for_its_time_is_revoked(flower, sent):
    for node in QUEUES:
        flower.say(f"/api/task/revoke/{sent[node]['scheduled']}")
        eventually(lambda: sent[node]["scheduled"] in flower.worker(node)["revoked"], "the id among the revoked")


def test_a_task_is_sent_and_its_result_read(flower, fleet):
    for node, queue in QUEUES.items():
        body = json.dumps({"args": [1, 2], "kwargs": {"z": 4}, "queue": queue})
        status, answer = flower.ask("/api/task/apply/rust.add", body)
        answer = json.loads(answer)
        assert (status, answer["state"], answer["result"]) == (200, "SUCCESS", 7)
        assert flower.get(f"/api/task/result/{answer['task-id']}")["result"] == 7
        assert flower.told(answer["task-id"], "SUCCESS", "succeeded")["worker"] == node


@pytest.mark.parametrize("command", COMMANDS)
def test_a_worker_is_told(flower, fleet, command):
    parameters, expected = COMMANDS[command]
    assert same({node: masked(flower.say(f"/api/{command}/{node}", **parameters)) for node in QUEUES}) == expected


def test_the_pool_has_grown_and_shrunk(flower):
    def size(node):
        """Celery goes on to say how many processes there were at first: those that there are count."""
        pool = flower.worker(node)["stats"]["pool"]
        return len(pool["processes"]) if node == STOCK else pool["max-concurrency"]

    assert same({node: size(node) for node in QUEUES}) == 3


def test_a_consumer_is_added_and_cancelled(flower, fleet):
    for node in QUEUES:
        queue = f"{node}-more"
        flower.say(f"/api/worker/queue/add-consumer/{node}", queue=queue)
        assert queue in [queue["name"] for queue in flower.worker(node)["active_queues"]]
        flower.told(fleet.caller(node).send_with("add", (1, 2), queue=queue).id, "SUCCESS", "succeeded")
        flower.say(f"/api/worker/queue/cancel-consumer/{node}", queue=queue)
        assert queue not in [queue["name"] for queue in flower.worker(node)["active_queues"]]


def test_limits_are_set(flower):
    def answers(path, **parameters):
        return same({node: flower.ask(f"/api/task/{path}", workername=node, **parameters) for node in QUEUES})

    assert "new rate limit set successfully" in answers("rate-limit/rust.add", ratelimit="10/m")[1]
    assert answers("rate-limit/rust.add", ratelimit="nonsense")[0] == 403
    assert "time limits set successfully" in answers("timeout/rust.add", soft=10, hard=20)[1]
    for node in QUEUES:
        assert "rust.add [rate_limit=10/m]" in flower.worker(node)["registered"]


def test_what_is_not_enabled_is_refused_alike(flower):
    for path, parameters in (("worker/pool/autoscale", {"min": 1, "max": 3}), ("worker/pool/restart", {})):
        status, body = same({
            node: (lambda answer: (answer[0], masked(answer[1])))(flower.ask(f"/api/{path}/{node}", **parameters))
            for node in QUEUES
        })
        assert status == 403 and "ot enabled" in body


def test_a_pool_that_scales_by_itself_gets_other_bounds(flower, fleet, tmp_path):
    workers = fleet.more("scaling", tmp_path, "--autoscale=4,1")
    eventually(lambda: set(workers) <= set(flower.workers()), "both to be heard of")
    for node in workers:
        eventually(lambda: "autoscaler" in flower.worker(node)["stats"], "its bounds")
    answers = [flower.say(f"/api/worker/pool/autoscale/{node}", min=2, max=3).replace(node, "<node>") for node in workers]
    assert answers == ["Autoscaling '<node>' worker (min=2, max=3)"] * 2
    for node in workers:
        scaler = flower.worker(node)["stats"]["autoscaler"]
        assert (scaler["max"], scaler["min"], scaler["current"]) == (3, 2, 2)


def test_a_worker_is_shut_down(flower, fleet):
    for node in QUEUES:
        process = fleet.workers[node]
        assert flower.say(f"/api/worker/shutdown/{node}") == "Shutting down!"
        assert process.ended() == 0, process.output.text()
        eventually(lambda: not flower.workers()[node]["status"], "offline")
