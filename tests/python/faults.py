"""What the suite of faults needs: a Redis that can be stopped and started again, workers that can be killed, stock
workers beside them, and many messages at once."""

import base64
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import uuid

import redis
from celery import Celery, _state
from kombu.utils.json import dumps
from redis.backoff import NoBackoff
from redis.retry import Retry

from support import EXAMPLE_WORKER, ROOT, Port, Process

HERE = pathlib.Path(__file__).resolve().parent
PYTHON_5_5 = pathlib.Path(os.environ.get("CELERIAC_STOCK_5_5") or ROOT / ".build" / "venv-5.5" / "bin" / "python")
PYTHON_5_7 = pathlib.Path(os.environ.get("CELERIAC_STOCK_5_7") or sys.executable)
DEADLINE = 180  # Seconds, for what is only waited for and not measured: the machine may be busy.
ERRORS = (redis.exceptions.RedisError, OSError)


def eventually(condition, what, timeout=DEADLINE, pause=0.005):
    """Waits for the condition; returns its value. To ask takes a third of the time at most: others need the processor."""
    end = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        if value := condition():
            return value
        if asked > end:
            break
        time.sleep(max(pause, 2 * (time.monotonic() - asked)))
    raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")


def answering(app, node):
    """Waits until the node answers: a stock worker subscribes to its mailbox after it has said that it is ready."""
    eventually(lambda: app.control.ping(destination=[node], timeout=1, limit=1), f"{node} to answer")


@contextlib.contextmanager
def current(app):
    """Makes it the app of what names none, such as shared tasks; the former is put back."""
    former = _state._tls.current_app, _state.default_app
    app.set_current()
    app.set_default()
    try:
        yield app
    finally:
        _state._set_current_app(former[0])
        _state.set_default_app(former[1])


def end(broker, app):
    """Ends a broker, with a client that the calling thread has used.

    A result that is collected afterwards would try for a minute to tell Redis that nobody waits for it, in whatever
    thread that happens; and that may be the proxy's which another test's worker is connected by.
    """
    consumer = app.backend.result_consumer
    consumer.subscribed_to.clear()
    # Celery 5.3 asks for this alone.
    consumer._pubsub = None
    app.close()
    broker.close()


def options(visibility_timeout, restore_every=0.1, **others):
    """`broker_transport_options`."""
    return {
        "visibility_timeout": visibility_timeout, "unacked_restore_interval": restore_every,
        "unacked_restore_throttle": 1, **others,
    }


class Faulty(Process):
    """A process that is sent signals."""

    def send(self, number):
        self._process.send_signal(number)

    def ended(self):
        """Its exit code, waited for."""
        self.is_stopped = True
        try:
            return self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError("it did not end:\n" + self.output.text()[-4000:]) from None


class Broker:
    """A Redis that keeps what it has acknowledged, on one port for its whole life."""

    kind = "redis"

    def __init__(self, folder, durable=False):
        self._own_port = Port()
        self.port = self._own_port.number
        self.command = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        if durable:
            self.command += ["--appendonly", "yes", "--appendfsync", "always"]
        self.url, self.result_url = (f"redis://127.0.0.1:{self.port}/{db}" for db in (0, 1))
        # A push that is tried again after its answer was lost would be there twice.
        self.client = redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0))
        self.start()

    def start(self):
        """Starts it, and returns when it has answered a PING."""
        self.process = Faulty(self.command)
        eventually(self.answers, self.process.output.text)

    def answers(self):
        with contextlib.suppress(*ERRORS):
            return self.client.ping()
        return False

    def shut_down(self):
        self.client.shutdown()
        assert self.process.ended() == 0, self.process.output.text()

    def application(self, **transport_options):
        """A stock client."""
        app = Celery("client", broker=self.url, backend=self.result_url, set_as_current=False)
        app.conf.broker_transport_options = transport_options
        return app

    def left(self, *queues):
        """What is reserved, indexed, and waiting, at one moment: what is restored and reserved anew is never nowhere."""
        with self.client.pipeline(transaction=True) as moment:
            moment.hlen("unacked").zcard("unacked_index")
            for queue in queues:
                moment.llen(queue)
            return tuple(moment.execute())

    def held(self):
        """How many messages are reserved and not settled."""
        return self.client.hlen("unacked")

    def push(self, queue, *messages):
        self.client.lpush(queue, *messages)

    def pop(self, queue):
        """The next message's envelope, taken away; nothing if there is none."""
        raw = self.client.rpop(queue)
        return raw and json.loads(raw)

    def waiting(self, queue):
        """The envelopes in the queue, the next one first."""
        return [json.loads(raw) for raw in reversed(self.client.lrange(queue, 0, -1))]

    def cut(self):
        """Breaks every connection; how many there were."""
        return self.client.execute_command("CLIENT", "KILL", "TYPE", "normal")

    def clear(self):
        """Removes every queue and every result."""
        self.client.flushall()

    def close(self):
        self.process.kill()

    def tags(self):
        return [tag.decode() for tag in self.client.hkeys("unacked")]


def for_kind(broker, transport_options, arguments):
    """Transport options and arguments of a worker: Redis's options are for Redis, and on RabbitMQ two workers cannot have
    one name."""
    if broker.kind == "redis":
        return transport_options, arguments
    named = () if "-n" in arguments else ("-n", f"{uuid.uuid4().hex[:8]}@%h")
    return {}, (*arguments, *named)


class RustWorker(Faulty):
    """The example worker, ready."""

    def __init__(self, broker, folder, queues, transport_options, *arguments, **settings):
        transport_options, arguments = for_kind(broker, transport_options, arguments)
        config = pathlib.Path(folder) / f"{uuid.uuid4()}.toml"
        tables = {None: settings, "broker_transport_options": transport_options}
        config.write_text("".join(
            (f"[{table}]\n" if table else "") + "".join(f"{name} = {json.dumps(value)}\n" for name, value in rows.items())
            for table, rows in tables.items()
        ))
        urls = ["-b", broker.url, "--result-backend", broker.result_url]
        super().__init__([EXAMPLE_WORKER, *urls, "--config", config, "worker", "-l", "info", "-Q", queues, *arguments])
        self.output.wait_for(r"ready\.", timeout=DEADLINE)


def supervise(start, done):
    """Starts the worker again and again, as a service manager does, until it is done; how often it died."""
    deaths, worker = 0, start()
    while True:
        eventually(lambda: done() or not worker.is_running(), worker.output.text, timeout=120)
        if worker.is_running():
            assert worker.stop() == 0, worker.output.text()
            return deaths
        worker.is_stopped = True
        deaths += 1
        assert deaths <= 20
        worker = start()


class StockWorker(Faulty):
    """A stock Celery worker, ready; it says nothing of itself, unless a kind of its own does."""

    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")

    def __init__(self, broker, queues, transport_options, *arguments, hangs=False, python=PYTHON_5_7, **settings):
        # One that is killed while it restores would otherwise keep all others from it for five minutes.
        transport_options = {**transport_options, "unacked_mutex_expire": 1}
        transport_options, arguments = for_kind(broker, transport_options, arguments or ("-P", "threads"))
        env = {
            "STOCK_BROKER": broker.url, "STOCK_BACKEND": broker.result_url, "PYTHONPATH": str(HERE),
            "STOCK_TRANSPORT_OPTIONS": json.dumps(transport_options), **({"STOCK_HANGS": "1"} if hangs else {}),
            "STOCK_SETTINGS": json.dumps(settings),
        }
        command = [python, "-m", "celery", "-A", "stock", "worker", "-l", "info", "-Q", queues, "-c", "2", *self.quiet]
        super().__init__([*command, *arguments], env)
        self.output.wait_for(r"ready\.", timeout=DEADLINE)


class Lines:
    """The file that tasks append to."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / f"{uuid.uuid4()}.lines"
        self.path.touch()
        self._size, self._count = 0, 0

    def count(self):
        """How many there are; reads only what is new."""
        with self.path.open("rb") as file:
            file.seek(self._size)
            new = file.read()
        self._size += len(new)
        self._count += new.count(b"\n")
        return self._count

    def all(self):
        """The whole lines: one that crosses a page can be read when its first half is there alone."""
        return self.path.read_text().split("\n")[:-1]

    def wait_for(self, count, timeout=DEADLINE):
        eventually(lambda: self.count() >= count, lambda: f"{count} lines, there are {self.count()}", timeout)


class Held:
    """A file to which `rust.append` cannot append before it is let go: who opens a FIFO to write waits for one who reads."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / f"{uuid.uuid4()}.fifo"
        os.mkfifo(self.path)

    @contextlib.contextmanager
    def let_go(self):
        """Reads it meanwhile: nobody can write when the last one who reads has gone."""
        # Who opens it for both need not wait for anybody.
        file = os.open(self.path, os.O_RDWR)
        try:
            yield
        finally:
            os.close(file)


class Messages:
    """Makes many messages of one that stock Celery has written, each with its own ids and arguments."""

    def __init__(self, broker, app, name):
        app.send_task(name, ["path", "line"], queue="templates")
        self.envelope = eventually(lambda: broker.pop("templates"), "the template")

    def message(self, queue, *args):
        """The id and the envelope."""
        task_id = str(uuid.uuid4())
        headers = {**self.envelope["headers"], "id": task_id, "root_id": task_id, "argsrepr": repr(args)}
        delivery = {**self.envelope["properties"]["delivery_info"], "routing_key": queue}
        properties = {
            **self.envelope["properties"], "correlation_id": task_id, "delivery_tag": str(uuid.uuid4()),
            "delivery_info": delivery,
        }
        embed = json.loads(base64.b64decode(self.envelope["body"]))[1:]
        body = base64.b64encode(dumps([args, *embed]).encode()).decode()
        return task_id, dumps({**self.envelope, "body": body, "headers": headers, "properties": properties})


class Watch:
    """How long messages wait whose worker was killed: from its death until they are out of the index again."""

    def __init__(self, broker):
        self.longest = 0.0
        self._stop = threading.Event()
        self._client = redis.Redis(port=broker.port)
        self._abandoned = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def killed(self):
        """Call this right after a kill: what stands in the index now belongs to nobody."""
        self._abandoned.append((time.time(), set(self._client.zrange("unacked_index", 0, -1))))

    def _run(self):
        while not self._stop.wait(0.02):
            # Before the look: a wait is not to seem longer because this thread is slow.
            now, left = time.time(), set(self._client.zrange("unacked_index", 0, -1))
            for since, tags in list(self._abandoned):
                if tags & left:
                    self.longest = max(self.longest, now - since)

    def stop(self):
        """The longest that a message has waited for another worker."""
        self._stop.set()
        self._thread.join()
        return self.longest
