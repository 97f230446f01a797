"""`make conformance`: Celery's integration tests against this worker and the stock one, each in a process of its own.

    scripts/conformance/run.py [--celery 5.6.3] [--broker redis|amqp] [--backend redis|rpc] [--only test_tasks.py]
                               [-k EXPRESSION] [--worker ours|stock|both]

Exit code 1 if a test that the stock worker passes fails with ours.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from conformance import names, report  # noqa: E402
from conformance.report import Outcome, Results  # noqa: E402
from conformance.suite import Suite, prepare  # noqa: E402
from harness import BUILD, ROOT, Failed, Processes, progress  # noqa: E402

KINDS = {"stock": "celery", "ours": "celeriac"}
#: Seconds that one test may take. Some of the suite wait for minutes to see that nothing comes.
LIMIT = 300


@dataclass(frozen=True)
class Place:
    """Where one kind of worker is tested: its brokers, which nobody else uses, and its logs."""

    kind: str
    folder: Path
    broker: str
    backend: str
    redis_port: int


def main() -> int:
    options = arguments()
    sys.stdout.reconfigure(line_buffering=True)
    suite = prepare(options.celery)
    files, left_out = report.choose(suite.files(), options.broker, options.only)
    logs = options.logs or BUILD / "conformance" / options.celery / f"logs-{options.broker}"
    keep(logs)
    started = time.monotonic()
    with Processes() as processes:
        places = [place(processes, kind, logs, options) for kind in options.worker]
        results = beside(lambda where: test(processes, suite, where, files, options), places)
    if not any(outcomes for found in results.values() for outcomes in found.values()):
        raise Failed("no test was chosen")
    print(f"\nCelery {options.celery} on {options.broker}, {(time.monotonic() - started) / 60:.1f} min; logs: {logs}")
    return report.show(results, left_out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--celery", default="5.6.3", metavar="VERSION")
    parser.add_argument("--broker", default="redis", choices=("redis", "amqp"))
    parser.add_argument("--backend", choices=("redis", "rpc"), help="by default Redis, and rpc with amqp")
    parser.add_argument("--only", nargs="+", metavar="FILE")
    parser.add_argument("-k", dest="expression", metavar="EXPRESSION", help="as pytest's")
    parser.add_argument("--worker", choices=(*KINDS, "both"), default="both")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="for a run beside another one")
    options = parser.parse_args()
    options.worker = list(KINDS) if options.worker == "both" else [options.worker]
    options.backend = options.backend or {"redis": "redis", "amqp": "rpc"}[options.broker]
    return options


def keep(logs: Path) -> None:
    """An empty folder for the logs, with the package as it is now: it may be changed while the tests run."""
    shutil.rmtree(logs, ignore_errors=True)
    shutil.copytree(ROOT / "python" / "celeriac", logs / "package" / "celeriac")


def place(processes: Processes, kind: str, logs: Path, options: argparse.Namespace) -> Place:
    folder = logs / kind
    folder.mkdir()
    server = processes.redis(f"redis-{kind}")
    redis_url = f"redis://127.0.0.1:{server.port}/0"
    broker = redis_url
    if options.broker == "amqp":
        broker = processes.rabbitmq(server).broker_url.replace("amqp://", "pyamqp://", 1)
    return Place(kind, folder, broker, redis_url if options.backend == "redis" else "rpc", server.port)


def beside(run: Callable[[Place], Results], places: list[Place]) -> dict[str, Results]:
    """The results of all kinds, which run at the same time: they mostly wait. Threads of which none keeps the program up."""
    results: dict[str, Results] = {}
    threads = [
        threading.Thread(target=lambda where=where: results.update({where.kind: run(where)}), daemon=True)
        for where in places
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(results) < len(places):
        raise Failed("not all workers were tested: see above")
    return {where.kind: results[where.kind] for where in places}


def test(
    processes: Processes, suite: Suite, where: Place, files: list[str], options: argparse.Namespace
) -> Results:
    """Each file has a session of its own, so that none has to live with another's worker."""
    results: Results = {}
    for name in files:
        results[name] = session(processes, suite, where, name, options.expression)
    return results


def session(processes: Processes, suite: Suite, where: Place, name: str, expression: Optional[str]) -> list[Outcome]:
    command = [
        str(suite.python), "-m", "pytest", "-p", "conformance.plugin", "-p", "celery.contrib.pytest", "-p", "no:cacheprovider", "-rA",
        f"t/integration/{name}", *(["-k", expression] if expression else []),
    ]
    outcomes = []
    line, theirs = os.pipe()
    with open(where.folder / f"{name}.log", "wb") as log, os.fdopen(line) as lines:
        process = subprocess.Popen(
            command, cwd=suite.folder, env=environment(suite, where, theirs), pass_fds=[theirs], stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )
        processes.adopt(process)
        os.close(theirs)
        for text in lines:
            outcome = Outcome(**json.loads(text))
            outcomes.append(outcome)
            print(f"  {where.kind:5}  {outcome.outcome:7}  {outcome.name}", flush=True)
        code = process.wait()
        processes.stop(process)
    # 5: nothing was chosen.
    if code not in (0, 1, 5) or (code == 1 and not outcomes):
        outcomes.append(Outcome(f"{name}::the session", "failed", f"pytest ended with exit code {code}: see {log.name}"))
    return outcomes


def environment(suite: Suite, where: Place, line: int) -> dict[str, str]:
    """What the tests, and the workers that they start, find around them."""
    module = KINDS[where.kind]
    paths = [where.folder, suite.python.parent]
    shadow(where.folder / "celery", suite.python, module)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CELERY_")},
        "PATH": os.pathsep.join([*map(str, paths), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(where.folder.parent / "package"), str(suite.folder)]),
        "PYTHONUNBUFFERED": "1",
        "TEST_BROKER": where.broker,
        "TEST_BACKEND": where.backend,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(where.redis_port),
        names.COMMAND: shlex.join([str(suite.python), "-m", module]),
        names.FOLDER: str(where.folder),
        names.LIMIT: str(LIMIT),
        names.LINE: str(line),
    }


def shadow(path: Path, python: Path, module: str) -> None:
    """The program that tests call by the name `celery`."""
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -m {module} "$@"\n')
    path.chmod(0o755)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        progress(str(error))
        sys.exit(2)
