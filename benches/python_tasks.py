"""What a project with tasks in Python gets, beside stock prefork: processor time that reaches the tasks, memory and start
on the example project, and how soon a process that has ended is replaced. Two processes each, on Redis."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import measure
from envelopes import copies, release, stage, template
from harness import BUILD, DJANGO, ROOT, Processes, Redis, progress, require, wait_for
from peers import PREFORK, PYTHON, QUEUE, Peer

# The example project's module of Rust tasks, and the package `celeriac`, which that needs under any worker.
PATH = os.pathsep.join([str(ROOT / "python"), str(BUILD / "rust_tasks")])
# How long a task of this measurement keeps its processor, in seconds.
BUSY = 0.001
# What a project's own start may take beyond its import, in seconds.
OWN = 0.15

# Two processes that do the task's work and nothing else: what the processors can give. Prints loops a second.
ALONE = """
import sys, time
from stock_app import busy
rounds, seconds = int(sys.argv[1]), float(sys.argv[2])
begun, done = time.perf_counter(), 0
while time.perf_counter() - begun < seconds:
    busy.run(rounds)
    done += 1
print(done / (time.perf_counter() - begun))
"""

# What every worker of the project must do before it can run a task of it.
IMPORT = """
from celery.app.utils import find_app
app = find_app("config")
app.loader.init_worker()
app.finalize()
"""


def measure_all(processes: Processes, server: Redis, peers: list[Peer], options) -> dict | None:
    """All of it, for those of the two workers that are among ``peers``."""
    peers = [peer for peer in peers if peer.key in (PYTHON, PREFORK)]
    if not peers:
        return None
    build_module()
    # The example project is another app in another directory, and nothing else is different.
    projects = [
        replace(
            peer, command=["config" if part == "stock_app" else part for part in peer.command], cwd=DJANGO,
            env={"PYTHONPATH": PATH},
        )
        for peer in peers
    ]
    runs = max(3, options.runs)
    return {
        "busy": busy(processes, server, peers, 1 if options.quick else options.runs),
        "memory": {peer.key: memory(processes, server, peer) for peer in projects},
        "import_seconds": imports(server, runs),
        "start_seconds": {peer.key: start(processes, server, peer, runs) for peer in projects},
        "replacement_ms": {
            # Stock's takes its time, so that a few are enough.
            peer.key: replacement_ms(processes, server, peer, 20 if peer.key == PREFORK else 200) for peer in peers
        },
    }


def build_module() -> None:
    """The example project's module of Rust tasks, optimised."""
    progress("building the example project's Rust tasks (release)")
    subprocess.run([ROOT / "scripts" / "rust_tasks.sh", "--release"], check=True)


def busy(processes: Processes, server: Redis, peers: list[Peer], runs: int) -> dict:
    """Tasks a second that take a millisecond of a processor each, and what two processes do of the same alone."""
    from stock_app import busy as task

    rounds = rounds_for(task, BUSY)
    envelope = template(task, server.broker, "bench.template", rounds, ignore_result=True)
    envelope = envelope.replace('"bench.template"', f'"{QUEUE}"')
    found: dict[str, list] = {"alone": [], **{peer.key: [] for peer in peers}}
    for _ in range(runs):
        found["alone"].append(alone(server, rounds, measure.LONG_ENOUGH or 1.0))
        for peer in peers:
            run = measure.throughput(processes, server, peer, envelope, 10_000 if measure.LONG_ENOUGH else 2_000, False)
            found[peer.key].append(run["per_second"])
        progress("1 ms of a processor in each task: " + ", ".join(f"{key} {each[-1]:,.0f}/s" for key, each in found.items()))
    return {key: {"per_second": statistics.median(each), "runs_per_second": each} for key, each in found.items()}


def rounds_for(task, seconds: float) -> int:
    """How many rounds of the task's loop take so long, without what Celery does around it: the shortest of many tries, which
    nobody interrupted."""
    rounds = 10_000

    def once() -> float:
        begun = time.perf_counter()
        task.run(rounds)
        return time.perf_counter() - begun

    return int(rounds * seconds / min(once() for _ in range(200)))


def alone(server: Redis, rounds: int, seconds: float) -> float:
    command = [sys.executable, "-c", ALONE, str(rounds), str(seconds)]
    both = [subprocess.Popen(command, cwd=os.path.dirname(__file__), env=os.environ | server.env, stdout=subprocess.PIPE)
            for _ in range(2)]
    return sum(float(each.communicate()[0]) for each in both)


def project_envelope(server: Redis) -> str:
    """What `add_fee.delay(250)` sends, for the example project."""
    from celery import Celery

    app = Celery(broker=server.broker_url, backend=server.result_url)
    return template(app.signature("shop.tasks.add_fee", (250,)), server.broker, "bench.template")


def memory(processes: Processes, server: Redis, peer: Peer) -> dict:
    """Memory of the worker and its processes on the example project when each process has run tasks."""
    progress(f"memory on the example project: {peer.key}")
    envelope = project_envelope(server).replace('"bench.template"', f'"{QUEUE}"')
    server.broker.flushall()
    process = peer.start(processes, server)
    try:
        count = 200
        stage(server.broker, copies(envelope, count))
        release(server.broker, QUEUE)
        wait_for(lambda: require(process, peer.name) or server.results.dbsize() >= count, 60, f"{peer.name}: its tasks")
        wait_for(lambda: peer.open_messages(server) == 0, 30, f"{peer.name}: the last acknowledgement")
        return {**measure.memory(process.pid), "processes": {
            command(member): measure.memory_of(member)["pss_mb"] for member in measure.family(process.pid)
        }}
    finally:
        processes.stop(process)


def command(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return f"{pid} {file.read().replace(bytes(1), b' ').decode(errors='replace')[:60].strip()}"


def imports(server: Redis, runs: int) -> float:
    """Seconds from the start of a Python that imports the project as a worker does, to its end."""
    progress("import of the example project")

    def once() -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORT], cwd=DJANGO, check=True,
                       env=os.environ | server.env | {"PYTHONPATH": PATH})
        return time.perf_counter() - begun

    return statistics.median(once() for _ in range(runs))


def start(processes: Processes, server: Redis, peer: Peer, runs: int) -> float:
    progress(f"start to first task on the example project: {peer.key}")
    envelope = project_envelope(server).replace('"bench.template"', f'"{QUEUE}"')
    return statistics.median(measure.start_to_first_task(processes, server, peer, envelope) for _ in range(runs))


def replacement_ms(processes: Processes, server: Redis, peer: Peer, count: int) -> float:
    """Milliseconds from a process's task to that of the process that takes its place: with one process that is replaced
    after each task. The task and the end of the old process are in it: what a replacement takes is less, never more."""
    progress(f"a process replaced: {peer.key}")
    from stock_app import noop

    at = peer.command.index("-c") + 1
    single = replace(peer, command=[*peer.command[:at], "1", *peer.command[at + 1 :], "--max-tasks-per-child", "1"])
    envelope = template(noop, server.broker, "bench.template", ignore_result=True)
    envelope = envelope.replace('"bench.template"', f'"{QUEUE}"')
    return 1000 / measure.throughput(processes, server, single, envelope, count, False)["per_second"]


def rows(found: dict) -> list[tuple]:
    """What was measured beside what is asked for: text, value, goal, at least, unit."""
    rates, memories, starts = found["busy"], found["memory"], found["start_seconds"]
    ours, theirs = memories.get(PYTHON), memories.get(PREFORK)
    share = rates[PYTHON]["per_second"] / rates["alone"]["per_second"] if PYTHON in rates else None
    own = (starts[PYTHON] - found["import_seconds"]) * 1000 if PYTHON in starts else None
    return [
        ("1 ms of CPU each, beside two bare processes", share, 0.95, True, "×"),
        ("PSS on the example project, beside stock", ours and theirs and ours["pss_mb"] / theirs["pss_mb"], 0.6, False, "×"),
        ("start to first task, beyond its import", own, OWN * 1000, False, " ms"),
        ("a process replaced, with its task", found["replacement_ms"].get(PYTHON), 30, False, " ms"),
    ]


def show(found: dict, names: dict) -> None:
    rates = found["busy"]
    print(f"\n{'Python tasks, two processes':<28} {'1 ms tasks/s':>13} {'of the CPUs':>12} {'PSS MB':>8} {'start ms':>9} "
          f"{'replaced ms':>12}   memory and start: examples/django")
    for key in found["memory"]:
        rate = rates[key]["per_second"]
        print(f"{names[key]:<28} {rate:>13,.0f} {rate / rates['alone']['per_second']:>12.2f} "
              f"{found['memory'][key]['pss_mb']:>8.1f} {found['start_seconds'][key] * 1000:>9.0f} "
              f"{found['replacement_ms'][key]:>12.1f}")
    print(f"{'no worker at all':<28} {rates['alone']['per_second']:>13,.0f} {1:>12.2f} {'–':>8} "
          f"{found['import_seconds'] * 1000:>9.0f} {'–':>12}   its start: Python and the project's import")
