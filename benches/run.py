"""`make bench`: Celeriac beside stock Celery, the crate `celery`, and the broker alone, in one run.

    benches/run.py [--runs 3] [--quick] [--broker redis|amqp] [--only celeriac,celery_prefork]

Every number is the median of the runs, which take turns so that a slow minute of the machine strikes all alike. Prints
tables and writes all of it to .build/bench-results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import measure  # noqa: E402
import on_rabbitmq  # noqa: E402
import python_peers  # noqa: E402
import python_tasks  # noqa: E402
from distance import away  # noqa: E402
from envelopes import template  # noqa: E402
from harness import BUILD, ROOT, Failed, Processes, progress  # noqa: E402
from limit import redis_alone  # noqa: E402
from peers import CELERIAC, CRATE, EVENTS, PREFORK, PYTHON, WATCHED, all_peers  # noqa: E402
from under_load import measure_under_load, rows as rows_under_load  # noqa: E402

# Milliseconds to Redis and back, through the proxy.
DISTANCES = (0, 2)
LIMIT = "redis_alone"
BROKERS = ("redis", "amqp")


def main() -> int:
    options = arguments()
    sys.stdout.reconfigure(line_buffering=True)
    started = time.monotonic()
    peers = [peer for peer in all_peers() if not options.only or peer.key in options.only]
    others = [peer for peer in python_peers.all_python_peers() if not options.only or peer.key in options.only]
    names = {peer.key: peer.name for peer in [*peers, *others]} | {LIMIT: "Redis alone (the limit)"}
    names[on_rabbitmq.LIMIT] = on_rabbitmq.LIMIT_NAME
    with Processes() as processes:
        server = processes.redis()
        os.environ.update(server.env)
        from stock_app import noop

        results = {"machine": machine(server), "names": names}
        if "redis" in options.broker:
            results["redis"] = redis_results(processes, server, peers, others, noop, options)
        if "amqp" in options.broker:
            rabbitmq = processes.rabbitmq(server)
            results["machine"]["rabbitmq"] = rabbitmq.node.ask("rabbit_misc:version().").strip('"')
            results["rabbitmq"] = rabbitmq_results(processes, rabbitmq, peers, noop, options)
    results["ratios"] = ratios(results)
    results["minutes"] = (time.monotonic() - started) / 60
    BUILD.mkdir(exist_ok=True)
    path = BUILD / "bench-results.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    show(results)
    print(f"\nAll numbers: {path.relative_to(ROOT)}")
    return 0


def redis_results(processes, server, peers, others, noop, options) -> dict:
    return {
        "throughput": {
            "ignored": throughput(processes, server, peers, others, noop, False, options),
            "stored": throughput(processes, server, peers, [], noop, True, options),
        },
        "python": python_tasks.measure_all(processes, server, peers, options),
        "round_trip": round_trips(processes, server, peers, noop, options),
        "start_seconds": starts(processes, server, peers, noop, options),
        "distance": distances(processes, server, peers, noop, options),
        "under_load": under_load(processes, server, peers, noop, options),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement (3)")
    parser.add_argument("--quick", action="store_true", help="one short run of each: to see that it works")
    parser.add_argument("--broker", nargs="+", choices=BROKERS, default=BROKERS, help="measure on this one only")
    parser.add_argument("--only", type=lambda text: set(text.split(",")), default=set(), help="peers, by key")
    options = parser.parse_args()
    if options.quick:
        options.runs = 1
        measure.LONG_ENOUGH = 0.0
    return options


def throughput(processes, server, peers, others, noop, stored: bool, options) -> dict:
    kind = "stored" if stored else "ignored"
    envelope = template(noop, server.broker, "bench.template", ignore_result=not stored)
    envelope = envelope.replace('"bench.template"', f'"{measure.QUEUE}"')
    runners = {
        peer.key: (
            peer.messages,
            lambda count, peer=peer: measure.throughput(processes, server, peer, envelope, count, stored),
        )
        for peer in peers
        if peer.stores_results or not stored
    }
    for other in others:
        runners[other.key] = (
            other.messages, lambda count, other=other: python_peers.throughput(processes, server, other, count)
        )
    runners[LIMIT] = (300_000, lambda count: redis_alone(server, envelope, count, stored))
    return rounds(f"Redis, results {kind}", runners, options)


def rabbitmq_results(processes, server, peers, noop, options) -> dict:
    def of(kind: str, measured: list) -> dict:
        runners = {
            peer.key: (
                on_rabbitmq.first_count(peer),
                lambda count, peer=peer: on_rabbitmq.throughput(processes, server, peer, noop, count, kind == "stored"),
            )
            for peer in measured
        }
        return rounds(f"RabbitMQ, results {kind}", runners, options)

    return {
        "ignored": of("ignored", [*peers, on_rabbitmq.limit()]),
        "stored": of("stored", [peer for peer in peers if peer.key in on_rabbitmq.STORED]),
    }


def rounds(title: str, runners: dict, options) -> dict:
    """Each runner in its turn, as often as is asked for; a runner is a number of messages to begin with and a function."""
    runs: dict[str, list] = {key: [] for key in runners}
    counts = {}
    for number in range(options.runs):
        for key, (first_count, run) in runners.items():
            if key in counts:
                result = run(counts[key])
            else:
                first_count = max(2_000, first_count // 20) if options.quick else first_count
                counts[key], result = measure.long_enough(run, first_count)
            runs[key].append(result)
            progress(f"{title}, run {number + 1}: {key} {result['per_second']:,.0f}/s "
                     f"({result['messages']:,} in {result['seconds']:.1f} s)")
    return {key: summary(each) for key, each in runs.items()}


def summary(runs: list[dict]) -> dict:
    middle = sorted(runs, key=lambda run: run["per_second"])[len(runs) // 2]
    return {**middle, "runs_per_second": [run["per_second"] for run in runs]}


def round_trips(processes, server, peers, noop, options) -> dict:
    count = 200 if options.quick else 2000
    found = {}
    for peer in peers:
        if peer.stores_results:
            progress(f"round trips: {peer.key}")
            found[peer.key] = measure.round_trip(processes, server, peer, noop, count)
    return found


def starts(processes, server, peers, noop, options) -> dict:
    envelope = template(noop, server.broker, "bench.template")
    found = {}
    for peer in peers:
        progress(f"start to first task: {peer.key}")
        times = [measure.start_to_first_task(processes, server, peer, envelope) for _ in range(max(3, options.runs))]
        found[peer.key] = statistics.median(times)
    return found


def under_load(processes, server, peers, noop, options) -> dict | None:
    if CELERIAC not in {peer.key for peer in peers}:
        return None
    return measure_under_load(processes, server, noop, 5 if options.quick else 20)


def distances(processes, server, peers, noop, options) -> dict:
    """Throughput with results stored through the same proxy, once without and once with a delay."""
    envelope = template(noop, server.broker, "bench.template").replace('"bench.template"', f'"{measure.QUEUE}"')
    found: dict[str, dict] = {}
    for peer in peers:
        if peer.key not in (CELERIAC, PREFORK):
            continue
        count = max(500, (peer.messages if peer.key == CELERIAC else peer.messages // 8) // (10 if options.quick else 2))
        found[peer.key] = {}
        for milliseconds in DISTANCES:
            far = away(processes, server, milliseconds)
            runs = [measure.throughput(processes, far, peer, envelope, count, True)["per_second"]
                    for _ in range(options.runs)]
            found[peer.key][f"{milliseconds:g}"] = statistics.median(runs)
            progress(f"Redis {milliseconds:g} ms away: {peer.key} {statistics.median(runs):,.0f}/s")
    return found


def machine(server) -> dict:
    def output(*command: str) -> str:
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        return run.stdout.strip()

    import celery
    import redis

    model = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return {
        "cpu": model[0] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "redis": server.broker.info("server")["redis_version"],
        "celery": celery.__version__,
        "redis_py": redis.__version__,
        "python": platform.python_version(),
        "rustc": output("rustc", "--version"),
        "commit": output("git", "rev-parse", "--short", "HEAD"),
        "load_before": os.getloadavg()[0],
    }


def ratios(results: dict) -> list[dict]:
    """The promises, each as what was measured beside what is asked for."""
    rows = []

    def row(text: str, value, goal: float, at_least: bool = True, unit: str = "×") -> None:
        if value is not None:
            kept = value >= goal if at_least else value <= goal
            rows.append({"text": text, "value": value, "goal": goal, "at_least": at_least, "unit": unit, "kept": kept})

    if redis := results.get("redis"):
        redis_ratios(redis, row)
    if rabbitmq := results.get("rabbitmq"):
        for text, value, goal in on_rabbitmq.ratios(rabbitmq):
            row(text, value, goal)
    return rows


def redis_ratios(results: dict, row) -> None:
    def rate(kind: str, key: str):
        found = results["throughput"][kind].get(key)
        return found and found["per_second"]

    def over(kind: str, key: str, ours: str = CELERIAC):
        ours, theirs = rate(kind, ours), rate(kind, key)
        return ours / theirs if ours and theirs else None

    row("results ignored, beside stock prefork", over("ignored", PREFORK), 30)
    row("results ignored, beside crate `celery`", over("ignored", CRATE), 5)
    row("results ignored, beside Redis alone", over("ignored", LIMIT), 0.4)
    row("results stored, beside stock prefork", over("stored", PREFORK), 25)
    row("results stored, beside Redis alone", over("stored", LIMIT), 0.4)
    row("Python tasks, results ignored, beside stock", over("ignored", PREFORK, PYTHON), 8)
    row("Python tasks, results stored, beside stock", over("stored", PREFORK, PYTHON), 6)
    for text, value, goal in python_peers.rows(lambda key: rate("ignored", key)):
        row(text, value, goal)
    if found := results["python"]:
        for text, value, goal, at_least, unit in python_tasks.rows(found):
            row(text, value, goal, at_least, unit)
    row("with task events, beside without", paired(results["throughput"]["ignored"], EVENTS, CELERIAC), 0.7)
    row("with --http, beside without", paired(results["throughput"]["ignored"], WATCHED, CELERIAC), 0.97)
    ours = results["round_trip"].get(CELERIAC)
    row("worker's share of a round trip, p50", ours and ours["worker_share_ms"]["p50"], 0.5, False, " ms")
    busy = results["throughput"]["ignored"].get(CELERIAC)
    row("resident memory, idle after a task", busy and busy["memory_idle"]["rss_mb"], 15, False, " MB")
    row("resident memory after all messages", busy and busy["memory"]["rss_mb"], 15, False, " MB")
    near, far = (results["distance"].get(CELERIAC, {}).get(f"{distance:g}") for distance in DISTANCES)
    row("Redis 2 ms away, results stored, beside 0 ms", near and far and far / near, 0.5)
    started = results["start_seconds"].get(CELERIAC)
    row("start to first task", started and started * 1000, 100, False, " ms")
    if found := results["under_load"]:
        for text, value, goal, at_least, unit in rows_under_load(found):
            row(text, value, goal, at_least, unit)


def paired(results: dict, key: str, beside: str):
    """The median of the ratios of runs that followed each other: what strikes one minute strikes both."""
    runs = [results[each]["runs_per_second"] for each in (key, beside) if each in results]
    return statistics.median(ours / theirs for ours, theirs in zip(*runs)) if len(runs) == 2 else None


def show(results: dict) -> None:
    about, names = results["machine"], results["names"]
    rabbitmq = f", RabbitMQ {about['rabbitmq']}" if "rabbitmq" in about else ""
    print(f"\n{about['cpu']}, {about['cores']} cores; Redis {about['redis']}{rabbitmq}, Celery {about['celery']}, "
          f"Python {about['python']}, {about['rustc']}; commit {about['commit']}")
    if "redis" in results:
        show_redis(results["redis"], names)
    if "rabbitmq" in results:
        on_rabbitmq.show(results["rabbitmq"], names)
    print("\nCeleriac beside its goals")
    for row in results["ratios"]:
        sign, verdict = ("≥" if row["at_least"] else "≤"), ("ok" if row["kept"] else "MISSED")
        print(f"  {row['text']:<50} {row['value']:>8.2f}{row['unit']:<3}  (goal {sign} {row['goal']:g})  {verdict}")


def show_redis(results: dict, names: dict) -> None:
    print(f"\n{'no-ops a second':<26} {'ignored':>10} {'÷ prefork':>10} {'stored':>10} {'÷ prefork':>10} "
          f"{'RSS MB':>8} {'after':>7} {'PSS MB':>8} {'start ms':>9}")
    for key in results["throughput"]["ignored"]:
        print(f"{names[key]:<26} {measure.rates(results['throughput'], key, PREFORK)} {footprint(results, key)}")
    if results["python"]:
        python_tasks.show(results["python"], names)
    worker, client = "worker's share", "client's share"
    print(f"\n{'one call at a time, ms':<26} {'.delay().get()':>22} {worker:>22} {client:>15}")
    print(f"{'':<26} {'p50':>14} {'p99':>7} {'p50':>14} {'p99':>7} {'p50':>15}")
    for key, found in results["round_trip"].items():
        whole, share = found["delay_get_ms"], found["worker_share_ms"]
        print(f"{names[key]:<26} {whole['p50']:>14.2f} {whole['p99']:>7.2f} {share['p50']:>14.2f} {share['p99']:>7.2f} "
              f"{whole['p50'] - share['p50']:>15.2f}")
    if found := results["under_load"]:
        print(f"\n{'at 10,000 tasks a second, -E':<42} {'p50':>8} {'p99':>8} {'longest':>8}   ms")
        for text, name in (("`inspect ping`", "ping_ms"), ("/livez", "livez_ms")):
            shown = " ".join(f"{found[name][each]:>8.2f}" for each in ("p50", "p99", "longest"))
            print(f"{text:<42} {shown}")
    print(f"\n{'no-ops a second, stored,':<26} {'0 ms':>10} {'2 ms':>10}   to Redis and back, through a proxy")
    for key, found in results["distance"].items():
        print(f"{names[key]:<26} {' '.join(f'{rate:>10,.0f}' for rate in found.values())}")


def footprint(results: dict, key: str) -> str:
    """Resident memory when idle and after all messages, proportional memory when idle, start to first task."""
    run = results["throughput"]["ignored"].get(key) or {}
    idle, after = run.get("memory_idle"), run.get("memory")
    started = results["start_seconds"].get(key)
    cells = [f"{idle['rss_mb']:>8.1f} {after['rss_mb']:>7.1f} {idle['pss_mb']:>8.1f}" if idle else f"{'–':>8} {'–':>7} {'–':>8}"]
    return " ".join([*cells, f"{started * 1000:>9.0f}" if started else f"{'–':>9}"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, subprocess.SubprocessError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
