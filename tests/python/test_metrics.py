"""`--http`: the metrics under the names that celery-exporter and Flower give them, counted after a known load; the probes."""

import contextlib
import os
import re
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
from celery import chain
from prometheus_client.parser import text_string_to_metric_families

from client import Caller
from faults import Held, eventually
from support import EXAMPLE_WORKER, SECONDS, Process, free_port

NODE, HOST, QUEUE = "counts@test", "test", "metrics"

# celery-exporter (github.com/danihodovic/celery-exporter, src/exporter.py): what each metric is, and its labels.
# Not here: `celery_queue_length`, which is the broker's; of several workers each would add it once more.
TASK = {"name", "hostname", "queue_name"}
CELERY_EXPORTER = {
    "celery_task_sent": ("counter", TASK),
    "celery_task_received": ("counter", TASK),
    "celery_task_started": ("counter", TASK),
    "celery_task_succeeded": ("counter", TASK),
    "celery_task_failed": ("counter", TASK | {"exception"}),
    "celery_task_rejected": ("counter", TASK),
    "celery_task_revoked": ("counter", TASK),
    "celery_task_retried": ("counter", TASK),
    "celery_task_runtime": ("histogram", TASK),
    "celery_worker_up": ("gauge", {"hostname"}),
    "celery_worker_tasks_active": ("gauge", {"hostname"}),
    "celery_active_consumer_count": ("gauge", {"queue_name"}),
    "celery_active_worker_count": ("gauge", {"queue_name"}),
    "celery_active_process_count": ("gauge", {"queue_name"}),
}
# Flower 2 (flower/events.py `PrometheusMetrics`).
FLOWER = {
    "flower_events": ("counter", {"worker", "type", "task"}),
    "flower_task_runtime_seconds": ("histogram", {"worker", "task"}),
    "flower_task_prefetch_time_seconds": ("gauge", {"worker", "task"}),
    "flower_worker_prefetched_tasks": ("gauge", {"worker", "task"}),
    "flower_worker_online": ("gauge", {"worker"}),
    "flower_worker_number_of_currently_executing_tasks": ("gauge", {"worker"}),
}
# The upper bounds of prometheus_client's histograms, which both take.
BOUNDS = ["0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "5.0", "7.5", "10.0", "+Inf"]

# What the load below comes to.
EXPECTED = {
    "rust.add": {"received": 6, "started": 4, "succeeded": 4, "revoked": 2},
    "rust.sleep": {"received": 1, "started": 1, "revoked": 1},
    "rust.fail": {"received": 3, "started": 3, "failed": {"ValueError": 2, "KeyError": 1}},
    "rust.flaky": {"received": 2, "started": 2, "succeeded": 1, "retried": 1, "sent": 1},
    "rust.reject": {"received": 1, "started": 1, "failed": {"UnknownException": 1}, "rejected": 1},
    "rust.ignore": {"received": 1, "started": 1},
    "rust.identity": {"received": 1, "started": 1, "succeeded": 1, "sent": 1},
    "None": {"failed": {"NotRegistered": 3}},
}
ENDINGS = {
    "rust.add": {"success": 4, "revoked": 2}, "rust.sleep": {"revoked": 1}, "rust.fail": {"failure": 3},
    "rust.flaky": {"success": 1, "retry": 1}, "rust.reject": {"reject": 1}, "rust.ignore": {"ignore": 1},
    "rust.identity": {"success": 1},
}
KINDS = ["received", "started", "succeeded", "failed", "rejected", "revoked", "retried", "sent"]


def free_address():
    return f"127.0.0.1:{free_port()}"


def get(address, path):
    """The status and the text of a page."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=SECONDS) as page:
            return page.status, page.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def status(address, probe):
    with contextlib.suppress(urllib.error.URLError):
        return get(address, probe)[0]


class Scrape:
    """A page of metrics, as Prometheus's own client reads it."""

    def __init__(self, address):
        code, text = get(address, "/metrics")
        assert code == 200
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, sample_name, /, **labels):
        """The sum of all samples that have these labels; None if there is none."""
        samples = [
            sample.value for family in self.families.values() for sample in family.samples
            if sample.name == sample_name and labels.items() <= sample.labels.items()
        ]
        return sum(samples) if samples else None

    def labels(self, family):
        """The labels of each sample, without the one of a histogram's buckets."""
        return {frozenset(sample.labels) - {"le"} for sample in self.families[family].samples}


def wait_for(address, sample_name, value, /, **labels):
    eventually(lambda: Scrape(address).value(sample_name, **labels) == value, lambda: get(address, "/metrics")[1])


@pytest.fixture(scope="module")
def load(app, server, start_worker):
    """A worker that has run a known load, and the page that it shows."""
    address = free_address()
    start_worker(QUEUE, "-n", NODE, "-c", "1", worker_http=address, task_acks_late=True, worker_prefetch_multiplier=50)
    tasks = Caller(app, server, QUEUE)
    sleeper = tasks.send("sleep", 600)
    wait_for(address, "celery_worker_tasks_active", 1)
    wait_for(address, "celeriac_tasks", 1, state="running")
    while_one_runs = [tasks.send("add", 1, number) for number in range(3)]
    wait_for(address, "flower_worker_prefetched_tasks", 3, worker=NODE, task="rust.add")
    later = tasks.send_with("add", (1, 2), countdown=600)
    wait_for(address, "celeriac_tasks", 1, state="scheduled")
    app.control.revoke(later.id)
    # It has come in before it expires, and has expired when its time comes.
    tasks.send_with("add", (1, 2), countdown=6, expires=5)
    app.control.revoke(sleeper.id, terminate=True)
    for name in "ValueError", "ValueError", "KeyError":
        tasks.send("fail", name, "bad")
    tasks.send("flaky", "key", 1)
    tasks.send("reject")
    tasks.send("ignore")
    for number in range(3):
        tasks.send(f"nobody_knows_{number}")
    steps = [app.signature(f"rust.{name}", args, queue=QUEUE) for name, args in [("add", (1, 2)), ("identity", ())]]
    chain(*steps).delay()
    for result in while_one_runs:
        tasks.value(result)
    wait_for(address, "celeriac_task_ended_total", sum(sum(endings.values()) for endings in ENDINGS.values()))
    wait_for(address, "celeriac_messages_refused_total", 3)
    wait_for(address, "celeriac_tasks", 0)
    return Scrape(address)


@pytest.mark.parametrize("name, expected", [*CELERY_EXPORTER.items(), *FLOWER.items()])
def test_metrics_have_the_names_and_labels_of_celery_exporter_and_flower(load, name, expected):
    kind, labels = expected
    assert load.families[name].type == kind
    assert load.labels(name) == {frozenset(labels)}
    if kind == "histogram":
        bounds = [sample.labels["le"] for sample in load.families[name].samples if sample.name == f"{name}_bucket"]
        assert bounds[: len(BOUNDS)] == BOUNDS


@pytest.mark.parametrize("name", EXPECTED)
def test_every_counter_equals_what_was_run(load, name):
    expected, labels = EXPECTED[name], {"name": name, "hostname": HOST, "queue_name": QUEUE}
    failures = expected.get("failed", {})
    for kind in set(KINDS) - {"failed"}:
        # What did not happen is there, and is zero: a rate begins somewhere.
        assert load.value(f"celery_task_{kind}_total", **labels) == expected.get(kind, 0), kind
    exceptions = {
        sample.labels["exception"]: sample.value for sample in load.families["celery_task_failed"].samples
        if labels.items() <= sample.labels.items()
    }
    assert exceptions == {"": 0, **failures}
    assert load.value("celery_task_runtime_count", **labels) == expected.get("succeeded")
    # Flower knows no name of what nobody knows.
    task = "" if name == "None" else name
    for kind in KINDS:
        count = sum(failures.values()) if kind == "failed" else expected.get(kind)
        assert load.value("flower_events_total", worker=NODE, type=f"task-{kind}", task=task) == (count or None), kind
    assert load.value("flower_task_runtime_seconds_count", worker=NODE, task=task) == expected.get("succeeded")
    for ending, count in ENDINGS.get(name, {}).items():
        assert load.value("celeriac_task_ended_total", name=name, queue_name=QUEUE, ending=ending) == count


def test_nothing_else_was_counted(load):
    names = {sample.labels["name"] for sample in load.families["celery_task_received"].samples}
    assert names == set(EXPECTED)
    assert load.value("celery_task_runtime_sum", name="rust.add") > 0
    assert load.value("celeriac_messages_refused_total", queue_name=QUEUE, exception="NotRegistered") == 3


def test_gauges_show_what_is(load):
    assert load.value("celery_worker_up", hostname=HOST) == 1
    assert load.value("celery_active_process_count", queue_name=QUEUE) == 1
    for name in "celery_active_worker_count", "celery_active_consumer_count":
        assert load.value(name, queue_name=QUEUE) == 1
    assert load.value("flower_worker_online", worker=NODE) == 1
    for name in "celery_worker_tasks_active", "flower_worker_number_of_currently_executing_tasks":
        assert load.value(name) == 0
    assert load.value("flower_worker_prefetched_tasks") == 0
    assert load.value("flower_task_prefetch_time_seconds", task="rust.add") == 0
    # Three waited for the one that was ended.
    assert load.value("celeriac_task_wait_seconds_count", name="rust.add", queue_name=QUEUE) == 4
    assert load.value("celeriac_connections_total") == 1
    assert load.value("celeriac_ready") == 1


@pytest.mark.only("redis", "what exceptions are told apart has nothing to do with the broker")
def test_who_sends_does_not_decide_how_many_metrics_there_are(app, server, start_worker):
    address = free_address()
    start_worker("many", "-n", "many@test", "--http", address)
    tasks = Caller(app, server, "many")
    for number in range(100):
        tasks.send("fail", f"module.Error{number}", "bad")
        tasks.send_with("identity", (1,), shadow=f"shadow-{number}")
    wait_for(address, "celeriac_task_ended_total", 200)
    page = Scrape(address)
    failed = page.families["celery_task_failed"].samples
    assert sum(sample.value for sample in failed) == 100
    assert page.value("celery_task_failed_total", name="rust.fail", exception="other") == 100 - 32
    assert len(failed) == 2 + 32 + 1
    assert page.value("celery_task_succeeded_total", name="rust.identity") == 100


def probe(address, name, *options, **environment):
    """Exit code and output of `celeriac probe`."""
    command = [EXAMPLE_WORKER, "probe", name, *options, *(["--http", address] if address else [])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, **environment})
    assert len((ended.stdout + ended.stderr).splitlines()) == 1
    return ended.returncode, ended.stdout.strip() or ended.stderr.strip()


def start(broker, queue, *options, **environment):
    """A worker whose broker may be away."""
    urls = ["-b", broker.url, "--result-backend", broker.result_url]
    return Process([EXAMPLE_WORKER, *urls, "worker", "-l", "info", "-Q", queue, *options], environment)


OK, AWAY = (0, "ok"), (1, "there is no connection to the broker")


def probes(address):
    return [probe(address, name) for name in ("livez", "readyz", "startupz")]


def test_probes_tell_of_the_broker_only_where_they_should(folder, new_broker):
    broker, address = new_broker(folder, durable=True), free_address()
    worker = start(broker, "probed", "-n", "probed@test", CELERY_WORKER_HTTP=address)
    eventually(lambda: status(address, "/readyz") == 200, worker.output.text)
    assert probes(address) == [OK, OK, OK] and probe(None, "readyz", CELERY_WORKER_HTTP=address) == OK
    broker.shut_down()
    eventually(lambda: status(address, "/readyz") == 503, worker.output.text)
    assert probes(address) == [OK, AWAY, OK]
    assert Scrape(address).value("celery_worker_up") == 0
    broker.start()
    eventually(lambda: status(address, "/readyz") == 200, worker.output.text)
    assert probes(address) == [OK, OK, OK]
    assert Scrape(address).value("celeriac_connections_total") == 2
    held = Held(folder)
    broker.application().send_task("rust.append", (str(held.path), "let go"), queue="probed", ignore_result=True)
    eventually(lambda: Scrape(address).value("celery_worker_tasks_active") == 1, worker.output.text)
    worker.terminate()
    eventually(lambda: status(address, "/readyz") == 503, worker.output.text)
    assert probes(address) == [OK, (1, "the worker is stopping"), OK]
    with held.let_go():
        assert worker.stop() == 0
    code, said = probe(address, "livez")
    assert code == 1 and "Connection refused" in said
    broker.close()


@pytest.mark.only("redis", "whatever broker is not there")
def test_a_worker_without_a_broker_is_alive_and_has_not_started(broker):
    address, url = free_address(), f"redis://{free_address()}"
    worker = Process([EXAMPLE_WORKER, "-b", url, "worker", "-Q", "nowhere"], {"CELERY_WORKER_HTTP": address})
    eventually(lambda: status(address, "/livez") == 200, worker.output.text)
    assert probes(address) == [OK, AWAY, (1, "the worker has not consumed yet")]
    worker.kill()


@pytest.mark.only("redis", "how the loop moves has nothing to do with the broker")
def test_a_stuck_loop_is_not_live(broker):
    address = free_address()
    worker = start(broker, "stuck", "-n", "stuck@test", "--http", address, TOKIO_WORKER_THREADS="1")
    eventually(lambda: status(address, "/readyz") == 200, worker.output.text)
    # The one thread is held by a handler that should not do this, and the loop with it.
    broker.application().send_task("rust.hog", (15,), queue="stuck", ignore_result=True)
    eventually(lambda: status(address, "/livez") == 503, worker.output.text)
    code, said = probe(address, "livez")
    stuck = re.fullmatch(r"the loop has not moved for (\d+\.\d) seconds", said)
    assert code == 1 and stuck and float(stuck[1]) >= 5, said
    assert status(address, "/readyz") == 503 and status(address, "/startupz") == 200
    eventually(lambda: status(address, "/livez") == 200, worker.output.text)
    assert worker.stop() == 0


@pytest.mark.only("redis", "no broker is asked")
def test_a_port_that_is_taken_is_one_line(broker):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [EXAMPLE_WORKER, "-b", broker.url, "worker", "--http", address]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"celeriac: error: serve http at {address}: Address already in use (os error 98)\n"


@pytest.mark.only("redis", "no broker is asked")
def test_nothing_is_served_unless_it_is_asked_for(broker):
    worker = start(broker, "unwatched", "-n", "unwatched@test")
    worker.output.wait_for(r"ready\.")
    assert not listens(worker.pid)
    assert worker.stop() == 0


def listens(pid):
    """Whether the process has a socket that listens."""
    files = [os.readlink(file.path) for file in os.scandir(f"/proc/{pid}/fd")]
    held = {file.removeprefix("socket:[").rstrip("]") for file in files if file.startswith("socket:")}
    lines = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/{pid}/net/{name}").readlines()[1:]]
    return any(line[3] == "0A" and line[9] in held for line in lines)
