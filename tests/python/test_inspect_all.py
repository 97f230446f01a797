"""Every inspect command, as `celery inspect … --json` of stock Celery hears it from a stock worker and from ours.

Both are brought into the same state: one task runs, one waits for a place, one for its ETA, and one id is revoked. What
they answer is compared key by key. Names, ids and queues of the two are put under one name first; beyond that the tables
say what may differ and why, and everything else must be the same.
"""

import json
import re
import time
import uuid

import pytest

from command_lines import Both
from faults import DEADLINE, Messages, RustWorker, StockWorker, eventually
from support import SECONDS

STOCK, RUST = "stock@test", "rust@test"

# Values that belong to one process or one moment: of the same type, and no more.
OWN_VALUES = {
    "clock.clock": "each node has its own",
    "*.time_start": "when it began",
    "*.worker_pid": "the process that runs it: a child's there, the worker's own here",
    "stats.pid": "", "stats.clock": "", "stats.uptime": "", "stats.rusage.*": "",
    "stats.pool.implementation": "celeriac:tokio: there is no Python class",
    "stats.pool.processes.*": "the worker itself: it has no children",
    "stats.pool.put-guarded-by-semaphore": "true: nothing begins without a place",
    "report.ok": "about this program; its shape is compared in a test of its own",
    "objgraph.error": "ImportError there, whatever is installed; here there are no Python objects at all",
    "memdump": "psutil is not needed",
}
# Values that differ as they should: what the two say, each by a pattern.
OTHER_VALUES = {
    "memsample": (r"None", r"'\d+(\.\d+)?[KM]B'"),  # Stock's needs psutil.
    # A URL without a password is shown with one, and a virtual host decoded.
    "conf.broker_url": (r"'\w+://(guest)?:\*{8}@[\w.:/]+'", r"'(redis://|amqp://guest:\*{8}@)[\w.:/%]+'"),
}
# Keys that one of the two does not have.
ONLY_STOCK = {
    "stats.pool.writes": "how often the parent wrote to its children",
    "conf.include": "modules to import", "conf.deprecated_settings": "no setting is read under an old name",
    "conf.worker_disable_prefetch": "Celery writes the default down",
    "conf.worker_cancel_long_running_tasks_on_connection_loss": "the default of both",
    "conf.broker_transport_options": "empty on RabbitMQ, which is the default",
}
ONLY_OURS = {
    "conf.worker_concurrency": "what -c said", "conf.worker_prefetch_multiplier": "what --prefetch-multiplier said",
}

# All settings: those that only Python's worker, other brokers, other backends or beat have.
NOT_OURS = re.compile(
    "arangodb|azureblockblob|beat|cache|cassandra|cosmosdbsql|couchbase|database|elasticsearch|gcs|mongodb|s3|security"
    "|broker_(channel_error_retry|heartbeat_checkrate|host|password|pool_|port|transport|user|vhost)|result_cache_max"
    "|redis_(backend_use_ssl|db|host|max_connections|password|port|retry_on_timeout|username)|result_exchange"
    "|task_(always_eager|eager_propagates|remote_tracebacks|store_eager_result)|imports|include|deprecated_settings"
    "|worker_(agent|autoscaler|consumer|detect_quorum_queues|hijack_root_logger|lost_wait|max_|pool|proc_alive_timeout)"
    "|worker_(redirect_stdouts|task_log|timer)"
)
OUR_OWN = {
    "beat_lease", "beat_logfile", "beat_pidfile", "beat_redis_key_prefix", "beat_redis_url", "broker_consumer_timeout", "dead_letter_queue",
    "redis_client_name", "unknown_tasks", "worker_log_lines", "worker_logfile", "worker_lost_limit",
    "worker_park_eta_after", "worker_pidfile", "worker_revokes_max", "worker_revoke_expires",
    "worker_successful_max", "worker_successful_expires", "redis_backend_health_check_interval", "worker_http",
    "worker_rust_concurrency",
}
SAME_MEANING = {
    "broker_url": "no password is no password", "broker_read_url": "null: the broker's", "broker_write_url": "",
    "broker_failover_strategy": "null is round-robin", "broker_use_ssl": "false is null",
    "worker_concurrency": "Celery does not write down what -c said",
    "result_expires": "seconds, where Celery has a timedelta's text", "result_backend_max_retries": "null is for ever",
}

ITEM = ["id", "name", "args", "kwargs", "type", "hostname", "time_start", "acknowledged", "delivery_info", "worker_pid"]


class Fleet:
    """Both workers in the same state, and who asks them."""

    def __init__(self, broker, folder):
        self.both = Both(broker)
        self.app = broker.application()
        pool = ["-P", "prefork", "-c", "1", "--prefetch-multiplier", "4"]
        # On RabbitMQ two workers cannot have one name.
        self.workers = {
            STOCK: StockWorker(broker, "stock", {}, *pool, "-n", STOCK),
            RUST: RustWorker(broker, folder, "rust", {"unacked_mutex_expire": 1}, *pool[2:], "-n", RUST, task_track_started=True),
        }
        self.names = {STOCK: "node", RUST: "node", "stock": "queue", "rust": "queue"}
        self.ids = {}
        for node, queue in ((STOCK, "stock"), (RUST, "rust")):
            send = lambda role, name, args, **options: self.send(node, queue, role, name, args, **options)  # noqa: B023
            running = send("running", "rust.sleep", (300,), shadow="shadowed")
            eventually(lambda: running.state == "STARTED", "it runs")  # noqa: B023
            send("waiting", "rust.add", (1, 2), kwargs={"z": 3}, priority=3)
            send("held", "rust.echo", ({"a": [1, None]}, "ä"), kwargs={"y": 2.5}, eta="2100-01-01T12:00:00+02:00")
            self.workers[node].output.wait_for(f"{self.ids[node]['held']}\\] received")
        revoked = str(uuid.uuid4())
        self.names[revoked] = "revoked"
        self.app.control.revoke(revoked)
        for worker in self.workers.values():
            worker.output.wait_for(f"Tasks flagged as revoked: {revoked}")

    def send(self, node, queue, role, name, args, **options):
        result = self.app.send_task(name, args, queue=queue, **options)
        self.names[result.id] = role
        self.ids.setdefault(node, {})[role] = result.id
        return result

    def inspect(self, *command):
        """What the two answer, under one name."""
        ended = self.both.stock("inspect", "--json", "-d", f"{STOCK},{RUST}", "-t", str(SECONDS), *command)
        assert ended.code == 0, ended.err
        answers = json.loads(ended.out)
        assert set(answers) == {STOCK, RUST}
        return [self.renamed(answers[node]) for node in (STOCK, RUST)]

    def renamed(self, value):
        if isinstance(value, dict):
            return {self.names.get(name, name): self.renamed(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.renamed(inner) for inner in value]
        return self.names.get(value, value) if isinstance(value, str) else value

    def ask(self, method, node=RUST, **arguments):
        [reply] = self.app.control.broadcast(
            method, arguments=arguments, destination=[node], reply=True, limit=1, timeout=SECONDS)
        return reply[node]

    def end(self):
        self.both.end()
        self.app.close()
        for worker in self.workers.values():
            worker.kill()


@pytest.fixture(scope="module")
def fleet(each_broker, folder):
    fleet = Fleet(each_broker, folder)
    yield fleet
    fleet.end()


def named(table, path):
    return any(re.fullmatch(re.escape(name).replace(r"\*", ".*"), path) for name in table)


def differences(path, stock, ours):
    """What differs and may not, line by line."""
    if named(OWN_VALUES, path):
        numbers = (int, float)
        alike = type(stock) is type(ours) or isinstance(stock, numbers) and isinstance(ours, numbers)
        return [] if alike else [f"{path}: {stock!r} and {ours!r}"]
    if path in OTHER_VALUES:
        said = zip(OTHER_VALUES[path], (stock, ours))
        return [] if all(re.fullmatch(like, repr(value)) for like, value in said) else [f"{path}: {stock!r} and {ours!r}"]
    if isinstance(stock, dict) and isinstance(ours, dict):
        lines = [f"{path}.{key}: only stock's" for key in stock.keys() - ours.keys() if not named(ONLY_STOCK, f"{path}.{key}")]
        lines += [f"{path}.{key}: only ours" for key in ours.keys() - stock.keys() if not named(ONLY_OURS, f"{path}.{key}")]
        return lines + [
            line for key in stock.keys() & ours.keys() for line in differences(f"{path}.{key}", stock[key], ours[key])]
    if isinstance(stock, list) and isinstance(ours, list):
        lines = [] if len(stock) == len(ours) else [f"{path}: {len(stock)} and {len(ours)} members"]
        return lines + [line for pair in zip(stock, ours) for line in differences(f"{path}.*", *pair)]
    return [] if stock == ours and type(stock) is type(ours) else [f"{path}: {stock!r} and {ours!r}"]


@pytest.mark.parametrize("command", [
    "active", "reserved", "scheduled", "revoked", "active_queues", "stats", "clock", "conf", "report", "memsample", "memdump",
    "objgraph", "ping", "query_task",
])
def test_it_is_answered_as_by_a_stock_worker(fleet, command):
    asked = [] if command != "query_task" else [id for ids in fleet.ids.values() for id in ids.values()] + ["nobody"]
    stock, ours = fleet.inspect(command, *asked)
    assert differences(command, stock, ours) == []
    assert stock or command in ("memsample",), "there is something to compare"


def test_what_runs_waits_and_is_held(fleet):
    """What the comparison compares, so that it cannot be of two empty answers."""
    ids = fleet.ids[RUST]
    [active], [reserved], [scheduled] = (fleet.ask(name) for name in ("active", "reserved", "scheduled"))
    held = scheduled["request"]
    for item in (active, reserved, held):
        assert list(item) == ITEM
    assert (active["id"], active["name"], active["type"], active["args"]) == (ids["running"], "shadowed", "rust.sleep", [300])
    assert active["acknowledged"] is True and 0 < time.time() - active["time_start"] < 300
    assert (reserved["id"], reserved["args"], reserved["kwargs"]) == (ids["waiting"], [1, 2], {"z": 3})
    assert (reserved["acknowledged"], reserved["time_start"], reserved["worker_pid"]) == (False, None, None)
    assert (held["id"], held["args"]) == (ids["held"], [{"a": [1, None]}, "ä"])
    assert (scheduled["eta"], scheduled["priority"]) == ("2100-01-01T12:00:00+02:00", 6)
    states = {id: state for id, (state, _) in fleet.ask("query_task", ids=[*ids.values(), "nobody"]).items()}
    assert states == {ids["running"]: "active", ids["waiting"]: "reserved", ids["held"]: "scheduled"}


def test_arguments_are_texts_if_that_is_asked_for(fleet):
    stock, ours = ([fleet.renamed(item) for item in fleet.ask("active", node, safe=True)] for node in (STOCK, RUST))
    assert differences("active", stock, ours) == [] and ours[0]["args"] == "(300,)"


def test_names_of_old_are_answered_too(fleet):
    old = {
        "dump_active": "active", "dump_reserved": "reserved", "dump_schedule": "scheduled", "dump_revoked": "revoked",
        "dump_tasks": "registered", "dump_conf": "conf",
    }
    for name, new in old.items():
        assert fleet.ask(name) == fleet.ask(new), name


def test_registered(fleet):
    """The two know other tasks, so those are compared that both know."""
    def described(node, attributes=(), **options):
        told = fleet.ask("registered", node, taskinfoitems=list(attributes), **options)
        assert told == sorted(told)
        return {line.split(" ")[0]: line for line in told}

    both = set(described(STOCK)) & set(described(RUST))
    assert {"rust.add", "rust.add_late", "rust.flaky"} <= both
    attributes = ["name", "acks_late", "max_retries", "default_retry_delay", "rate_limit", "time_limit", "ignore_result", "nope"]
    for names in ((), attributes):
        stock, ours = (described(node, names) for node in (STOCK, RUST))
        assert {name: ours[name] for name in both} == {name: stock[name] for name in both}
    assert "celery.chord" not in described(RUST) and "celery.chord" in described(RUST, builtins=True)
    for node in (STOCK, RUST):
        fleet.ask("rate_limit", node, task_name="rust.add", rate_limit="10/m")
        assert described(node)["rust.add"] == "rust.add [rate_limit=10/m]"
        fleet.ask("rate_limit", node, task_name="rust.add", rate_limit=None)
        assert described(node)["rust.add"] == "rust.add"


def test_all_settings(fleet):
    stock, ours = fleet.inspect("conf", "true")
    missing = {name for name in stock.keys() - ours.keys() if not NOT_OURS.match(name)}
    assert not missing and ours.keys() - stock.keys() <= OUR_OWN
    other = {name: (stock[name], ours[name]) for name in stock.keys() & ours.keys() if stock[name] != ours[name]}
    assert other.keys() <= SAME_MEANING.keys(), other


def test_the_report_has_celerys_shape(fleet):
    heads = re.compile(r"^(\w+ +->|\w+:) ", re.MULTILINE)
    stock, ours = ([head for head in heads.findall(fleet.ask("report", node)["ok"])] for node in (STOCK, RUST))
    assert [head.split()[0] for head in stock[:4]] == ["software", "platform", "loader", "settings"]
    assert [head.split()[0] for head in ours[:4]] == ["software", "platform", "app", "settings"]
    assert "broker_url:" in stock and "broker_url:" in ours


@pytest.mark.parametrize("command, arguments", [
    ("query_task", {}), ("query_task", {"ids": None}), ("query_task", {"ids": [[1]]}), ("query_task", {"ids": 5}),
    ("registered", {"taskinfoitems": 5}), ("report", {"x": 1}), ("active_queues", {"x": 1}), ("active", {"x": 1}),
])
def test_wrong_questions_are_refused_alike(fleet, command, arguments):
    stock, ours = (fleet.renamed(fleet.ask(command, node, **arguments)) for node in (STOCK, RUST))
    assert differences(command, stock, ours) == []


@pytest.mark.only("redis", "what a large answer costs the worker is the same on both")
def test_a_large_answer_keeps_nobody_waiting(each_broker, folder):
    """The loop copies what the answer is made of, and answers others while it is made."""
    app, count, node = each_broker.application(), 10_000, "large@test"
    messages = Messages(each_broker, app, "rust.echo")
    messages.envelope["headers"]["eta"] = "2100-01-01T00:00:00+00:00"
    sent = dict(messages.message("large", number, "x" * 100) for number in range(count))
    each_broker.push("large", *sent.values())
    worker = RustWorker(each_broker, folder, "large", {}, "-n", node)

    def ping():
        """How long the answer takes."""
        since = time.monotonic()
        assert app.control.ping(destination=[node], timeout=DEADLINE) == [{node: {"ok": "pong"}}]
        return time.monotonic() - since

    try:
        eventually(lambda: worker.output.text().count("] received\n") == count, "all are held")
        with app.connection_for_write() as connection:
            mailbox = app.control.mailbox(connection)
            place = mailbox.reply_queue(connection.default_channel)

            def ask():
                """The answer, and how long pings took meanwhile. There is no pause between them, or there would be few."""
                times, end = [], time.monotonic() + DEADLINE
                # It stays where it comes to, so that it is seen when it is there.
                mailbox._publish("scheduled", {}, [node], reply_ticket="ticket")
                while not each_broker.client.llen(place.name):
                    assert time.monotonic() < end, times
                    times.append(ping())
                return place.get(no_ack=True).payload[node], times

            # The machine may stand still for a second, but not each time.
            for _ in range(3):
                scheduled, times = ask()
                # Where the loop makes the answer, one ping waits for it; and a second one may come before it is sent.
                if len(times) > 3 and max(times) < 1:
                    break
        assert len(times) > 3 and max(times) < 1, times
        assert {entry["request"]["id"] for entry in scheduled} == set(sent)
        assert {entry["request"]["args"][0] for entry in scheduled} == set(range(count))
    finally:
        worker.kill()
        app.close()
