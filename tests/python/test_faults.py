"""Whatever fails, no message is lost: killed workers, a broker that stops, hangs or hangs up, and shutdowns.

The figures that are measured are printed: `pytest -rP tests/python/test_faults.py`.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time

import pytest

from faults import DEADLINE, ERRORS, Lines, Messages, RustWorker, StockWorker, Watch, answering, eventually, options
from rabbit import BROKEN
from support import EXAMPLE_WORKER

SEED = 20261122
FRESH = 40  # Seconds, for which a broker that is away is looked for every second; later every five.


@pytest.fixture
def broker(new_broker, tmp_path):
    broker = new_broker(tmp_path)
    yield broker
    broker.close()


@pytest.fixture
def durable(new_broker, tmp_path):
    broker = new_broker(tmp_path, durable=True)
    yield broker
    broker.close()


@pytest.fixture
def watch(broker):
    watch = Watch(broker) if broker.kind == "redis" else Unwatched()
    yield watch
    watch.stop()


class Unwatched:
    """RabbitMQ gives back at once what a killed worker held: there is no index to watch."""

    def killed(self):
        pass

    def stop(self):
        return 0


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path)


def fill(broker, messages, queue, path, count, pause):
    """Sends messages that append the numbers from 0, in one pipeline after the other."""
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        broker.push(queue, *(messages.message(queue, str(path), str(n), pause)[1] for n in numbers))


def all_seen(broker, lines, count):
    """Waits until all that was sent has been done and settled; returns how many ran more than once."""
    eventually(lambda: broker.left("load") == (0, 0, 0), lambda: f"left: {broker.left('load')}, lines: {lines.count()}")
    seen = [int(line) for line in lines.all()]
    assert set(seen) == set(range(count)), f"missing: {sorted(set(range(count)) - set(seen))[:20]}"
    return len(seen) - count


def test_a_worker_killed_ten_times_loses_nothing(broker, watch, lines, tmp_path):
    count, visibility_timeout, rng = 20_000, 12, random.Random(SEED)

    def start():
        return RustWorker(broker, tmp_path, "load", options(visibility_timeout), "-c", "40")

    fill(broker, Messages(broker, broker.application(), "rust.append_late"), "load", lines.path, count, 0.01)
    worker = start()
    for at in sorted(rng.sample(range(1, count * 9 // 10), 10)):
        lines.wait_for(at)
        worker.kill()
        watch.killed()
        worker = start()
    duplicates = all_seen(broker, lines, count)
    longest = watch.stop()
    print(f"killed 10 times: {duplicates} of {count} ran more than once, the longest wait was {longest:.2f} s")
    assert longest <= visibility_timeout
    assert worker.stop() == 0


def test_a_broker_that_is_stopped_and_started_is_returned_to_within_two_seconds(durable, lines, tmp_path):
    messages = Messages(durable, durable.application(), "rust.append_late")
    worker = RustWorker(durable, tmp_path, "load,probe", options(3600), "-c", "10")
    pid, sent, stop = worker.pid, [], threading.Event()

    def send():
        """Keeps the queue filled, and remembers what Redis has acknowledged."""
        number = 0
        while not stop.is_set():
            with contextlib.suppress(*ERRORS, *BROKEN):
                if durable.left("load")[2] > 200:
                    stop.wait(0.01)
                    continue
                task_id, envelope = messages.message("load", str(lines.path), str(number), 0.005)
                durable.push("load", envelope)
                sent.append((task_id, number))
            number += 1

    sender, resumed = threading.Thread(target=send, daemon=True), []
    sender.start()
    for round in range(5):
        lines.wait_for(lines.count() + 200)
        stopped = time.monotonic()
        durable.shut_down()
        durable.start()
        answered, probe = time.monotonic(), Lines(tmp_path)
        durable.push("probe", messages.message("probe", str(probe.path), f"probe {round}")[1])
        probe.wait_for(1)
        resumed.append((time.monotonic() - answered, 2 if answered - stopped < FRESH else 7))
    lines.wait_for(lines.count() + 200)
    stop.set()
    sender.join()
    eventually(lambda: durable.left("load", "probe") == (0, 0, 0, 0), lambda: f"left: {durable.left('load', 'probe')}")
    seen = [int(line) for line in lines.all()]
    lost = [number for _, number in sent if number not in set(seen)]
    print(
        f"stopped 5 times: resumed after {', '.join(f'{seconds:.2f}' for seconds, _ in resumed)} s; "
        f"{len(seen) - len(set(seen))} of {len(sent)} ran more than once"
    )
    assert not lost
    # The machine may have something else to do, once.
    assert sum(seconds >= limit for seconds, limit in resumed) <= 1, resumed
    assert worker.is_running() and worker.pid == pid
    results = durable.application().backend
    assert all(results.get_state(task_id) == "SUCCESS" for task_id, _ in sent[:: max(1, len(sent) // 200)])
    assert worker.stop() == 0


@pytest.mark.only("redis", "RabbitMQ has no visibility timeout")
def test_a_task_held_for_three_visibility_timeouts_runs_once_beside_a_stock_worker(broker, lines, tmp_path):
    visibility_timeout, node = 6, "stock@test"
    app = broker.application()
    # Only the stock worker restores here, for ours waits for a lock that is never free; and it is not to have the task in
    # the first place.
    broker.client.set("never-free", "somebody's")
    worker = RustWorker(broker, tmp_path, "shared", options(visibility_timeout, unacked_mutex_key="never-free"))
    stock = StockWorker(broker, "other", options(visibility_timeout), "-P", "threads", "-n", node)
    answering(app, node)
    # What nobody renews is the proof that the stock worker has looked while ours was held.
    forsaken = Lines(tmp_path)
    entry = [json.loads(Messages(broker, app, "rust.append").message("shared", str(forsaken.path), "x")[1]), "", "shared"]
    sent = time.time()
    app.send_task("rust.append_late", [str(lines.path), "held"], queue="shared", countdown=3 * visibility_timeout)
    eventually(lambda: any(tag.startswith("celeriac-") for tag in broker.tags()), "the worker to hold the task")
    score = broker.client.zrange("unacked_index", 0, 0, withscores=True)[0][1]
    broker.client.hset("unacked", "forsaken", json.dumps(entry))
    broker.client.zadd("unacked_index", {"forsaken": score})
    assert app.control.add_consumer("shared", destination=[node], reply=True, timeout=DEADLINE, limit=1)
    forsaken.wait_for(1)
    assert lines.count() == 0 and time.time() < sent + 3 * visibility_timeout, "the look came too late to prove anything"
    lines.wait_for(1)
    after = time.time() - sent
    eventually(lambda: broker.left("shared") == (0, 0, 0), lambda: f"left: {broker.left('shared')}")
    print(f"countdown {3 * visibility_timeout} s: ran after {after:.2f} s")
    assert lines.all() == ["held"], "once, and by the worker that held it"
    assert after >= 3 * visibility_timeout - 0.01
    assert (worker.stop(), stock.stop()) == (0, 0)


def send(app, lines, count, name="rust.append_late", start=0, pause=0, **how):
    """Sends messages as a project does; returns their results."""
    numbers = range(start, start + count)
    return [app.send_task(name, [str(lines.path), str(n), pause], queue="shared", **how) for n in numbers]


def wait_until_held(broker, count):
    eventually(lambda: broker.left("shared") == (count, count, 0), lambda: f"left: {broker.left('shared')}")


def ran_by(broker, lines, count, whom):
    """How long it takes until that worker has run all, each once."""
    begun = time.monotonic()
    lines.wait_for(count)
    waited = time.monotonic() - begun
    wait_until_held(broker, 0)
    assert sorted(lines.all()) == [f"{n}{whom}" for n in range(count)]
    return waited


def test_a_stock_worker_runs_what_a_killed_worker_held(broker, lines, tmp_path):
    app, fast = broker.application(), options(2)
    worker = RustWorker(broker, tmp_path, "shared", fast, "-c", "4")
    send(app, lines, 10, pause=600)
    wait_until_held(broker, 10)
    stock = StockWorker(broker, "shared", fast)
    worker.kill()
    print(f"a stock worker had run all after {ran_by(broker, lines, 10, ' by stock'):.2f} s")
    assert stock.stop() == 0


def test_the_worker_runs_what_a_killed_stock_worker_held(broker, lines, tmp_path):
    # Stock renews no lease: all are to be held before the first one ends.
    app, fast = broker.application(), options(6)
    stock = StockWorker(broker, "shared", fast, "-P", "threads", "--prefetch-multiplier", "5", hangs=True)
    send(app, lines, 10)
    wait_until_held(broker, 10)
    stock.kill()
    worker = RustWorker(broker, tmp_path, "shared", fast)
    print(f"the worker had run all after {ran_by(broker, lines, 10, ''):.2f} s")
    assert worker.stop() == 0


# Shutdowns.


def wait_until_started(results):
    eventually(lambda: {result.state for result in results} == {"STARTED"}, lambda: [result.state for result in results])


def waiting(broker):
    """The ids in the queue, the next one first."""
    return [envelope["headers"]["id"] for envelope in broker.waiting("shared")]


def test_a_warm_shutdown_finishes_what_runs_and_gives_the_rest_back_at_once(broker, lines, tmp_path):
    app = broker.application()
    worker = RustWorker(broker, tmp_path, "shared", options(3600), "-c", "2", task_track_started=True)
    running = send(app, lines, 1, pause=8) + send(app, lines, 1, "rust.append", start=1, pause=8)
    wait_until_started(running)
    # With one that waits for its ETA there is room for one more than 4 times the concurrency.
    held = send(app, lines, 2, start=2, countdown=600)
    reserved = send(app, lines, 2, start=4) + send(app, lines, 2, "rust.append", start=6)
    eventually(lambda: broker.left("shared")[::2] == (7, 0), lambda: f"left: {broker.left('shared')}")
    asked = time.monotonic()
    worker.send(signal.SIGTERM)
    eventually(lambda: broker.left("shared")[2] == 6, lambda: f"left: {broker.left('shared')}")
    given_back = time.monotonic() - asked
    assert lines.count() == 0 and worker.is_running(), "what runs is not waited for"
    assert worker.ended() == 0
    print(f"SIGTERM: the rest was back after {given_back:.3f} s, the worker had ended after {time.monotonic() - asked:.2f} s")
    assert sorted(lines.all()) == ["0", "1"]
    assert [result.state for result in running] == ["SUCCESS", "SUCCESS"]
    assert broker.left("shared") == (0, 0, 6)
    assert waiting(broker) == [result.id for result in held + reserved], "in the order in which they were sent"


def test_what_ends_while_the_worker_does_is_stored_and_settled(broker, lines, tmp_path):
    app, rounds = broker.application(), 10
    for _ in range(rounds):
        worker = RustWorker(broker, tmp_path, "shared", options(3600), task_track_started=True)
        results = send(app, lines, 2, pause=0.2) + send(app, lines, 2, "rust.append", pause=0.2)
        eventually(lambda: all(result.state != "PENDING" for result in results), "all to have begun")
        worker.send(signal.SIGTERM)
        assert worker.ended() == 0
        assert broker.left("shared") == (0, 0, 0)
        assert [result.state for result in results] == ["SUCCESS"] * 4
    assert lines.count() == 4 * rounds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_the_exit_code_is_that_of_celery(broker, lines, tmp_path, number):
    is_cold = number == signal.SIGQUIT
    worker = RustWorker(broker, tmp_path, "shared", options(3600), task_track_started=True)
    assert_left_at_end(broker, lines, worker, [number], is_cold)
    stock = StockWorker(broker, "shared", options(3600), "-P", "prefork", hangs=is_cold)
    results = send(broker.application(), lines, 1)
    wait_until_started(results) if is_cold else lines.wait_for(2)
    stock.send(number)
    codes = worker.ended(), stock.ended()
    print(f"{number.name}: both end with {codes[0]}")
    assert codes[0] == codes[1]


def test_a_worker_whose_output_nobody_reads_stops_all_the_same(broker, lines, tmp_path):
    reading, writing = os.pipe()
    command = ["-b", broker.url, "--result-backend", broker.result_url, "worker", "-l", "info", "-Q", "shared"]
    worker = subprocess.Popen([EXAMPLE_WORKER, *command], stdout=writing, stderr=writing, cwd=tmp_path)
    held = send(broker.application(), lines, 1, countdown=600)
    eventually(lambda: broker.left("shared") == (1, 1, 0), lambda: f"left: {broker.left('shared')}")
    # Opened once more: not to wait is the business of this end alone.
    filling = os.open(f"/proc/self/fd/{writing}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(filling, b"x"):
            pass
    asked = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: waiting(broker) == [held[0].id], lambda: f"left: {broker.left('shared')}")
    assert time.monotonic() - asked < 5, "what is held is given back before anything is said"
    assert worker.wait(20) == 0
    for end in [reading, writing, filling]:
        os.close(end)


def test_a_second_interrupt_ends_what_runs(broker, lines, tmp_path):
    worker = RustWorker(broker, tmp_path, "shared", options(3600), task_track_started=True)
    assert_left_at_end(broker, lines, worker, [signal.SIGINT, signal.SIGINT], True)
    # The first one's, as that of a stock worker that has begun to stop (celery/worker/worker.py `WorkController.start`).
    assert worker.ended() == 1
    assert lines.count() == 0


def assert_left_at_end(broker, lines, worker, signals, is_cold):
    """Ends the worker. One that stops cold gives back the task that it was in the middle of."""
    results = send(broker.application(), lines, 1, pause=600 if is_cold else 0)
    wait_until_started(results) if is_cold else lines.wait_for(1)
    for number in signals:
        said = worker.output.mark()
        worker.send(number)
        worker.output.wait_for("(Warm|Cold) shutdown", since=said, timeout=DEADLINE)
    worker.ended()
    assert broker.left("shared") == (0, 0, int(is_cold))
    broker.clear()


# A network that breaks.


def test_connections_that_are_cut_lose_nothing(broker, lines, tmp_path):
    count, cuts, rng = 4000, 20, random.Random(SEED)
    worker = RustWorker(broker, tmp_path, "load", options(3600), "-c", "20")
    fill(broker, Messages(broker, broker.application(), "rust.append_late"), "load", lines.path, count, 0.01)
    cut = 0
    for at in sorted(rng.sample(range(1, count * 9 // 10), cuts)):
        lines.wait_for(at)
        cut += eventually(broker.cut, "a connection")
    duplicates = all_seen(broker, lines, count)
    print(f"{cut} connections cut: {duplicates} of {count} ran more than once")
    assert cut >= cuts and worker.is_running()
    assert worker.stop() == 0


@pytest.mark.only("redis", "how a node hangs is asked of the transport's own tests")
@pytest.mark.parametrize("how", ["CLIENT PAUSE", "SIGSTOP", "SIGSTOP beyond the timeout"])
def test_a_broker_that_hangs_is_waited_for(broker, lines, tmp_path, how):
    count, seconds = 2000, 3
    # Where nothing is answered for longer than the socket timeout, the worker connects again.
    timeouts = {"socket_timeout": 1, "socket_connect_timeout": 1} if "beyond" in how else {}
    worker = RustWorker(broker, tmp_path, "load", options(5, **timeouts), "-c", "20")
    fill(broker, Messages(broker, broker.application(), "rust.append_late"), "load", lines.path, count, 0.01)
    lines.wait_for(count // 4)
    if how == "CLIENT PAUSE":
        broker.client.client_pause(seconds * 1000, all=True)
    else:
        broker.process.send(signal.SIGSTOP)
        time.sleep(seconds)  # Not to wait for anything: this is the fault.
        broker.process.send(signal.SIGCONT)
    broker.client.ping()
    resumed = time.monotonic()
    lines.wait_for(lines.count() + 50)
    resumed = time.monotonic() - resumed
    duplicates = all_seen(broker, lines, count)
    print(f"{how} for {seconds} s: the worker was at work {resumed:.2f} s later, {duplicates} of {count} ran more than once")
    assert worker.is_running()
    assert worker.stop() == 0
