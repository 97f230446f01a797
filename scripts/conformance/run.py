"""`make conformance`: Celery's integration tests against this worker and the stock one, each in a process of its own.

    scripts/conformance/run.py [--celery 5.6.3] [--broker redis|amqp] [--backend redis|rpc|db+sqlite]
                               [--only test_tasks.py] [-k EXPRESSION] [--worker ours|stock|both]

Exit code 1 if a test that the stock worker passes fails with ours.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from conformance import report  # noqa: E402
from conformance.report import Results  # noqa: E402
from conformance.sessions import KINDS, Place, test  # noqa: E402
from conformance.suite import prepare  # noqa: E402
from harness import BUILD, ROOT, Failed, Processes, progress  # noqa: E402


def main() -> int:
    options = arguments()
    sys.stdout.reconfigure(line_buffering=True)
    suite = prepare(options.celery)
    files, left_out = report.choose(suite.files(), options.only)
    logs = options.logs or BUILD / "conformance" / options.celery / f"logs-{options.broker}"
    package = keep(logs)
    started = time.monotonic()
    with Processes() as processes:
        places = [place(processes, kind, logs, package, options) for kind in options.worker]
        results = beside(lambda where: test(processes, suite, where, files, options.expression), places)
    if not any(outcomes for found in results.values() for outcomes in found.values()):
        raise Failed("no test was chosen")
    minutes = (time.monotonic() - started) / 60
    print(f"\nCelery {options.celery}, {options.broker}, results in {options.backend}: {minutes:.1f} min; logs: {logs}")
    return report.show(results, left_out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--celery", default="5.6.3", metavar="VERSION")
    parser.add_argument("--broker", default="redis", choices=("redis", "amqp"))
    parser.add_argument("--backend", choices=("redis", "rpc", "db+sqlite"), help="by default Redis, and rpc with amqp")
    parser.add_argument("--only", nargs="+", metavar="FILE")
    parser.add_argument("-k", dest="expression", metavar="EXPRESSION", help="as pytest's")
    parser.add_argument("--worker", choices=(*KINDS, "both"), default="both")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="for a run beside another one; it is emptied")
    options = parser.parse_args()
    options.worker = list(KINDS) if options.worker == "both" else [options.worker]
    options.backend = options.backend or {"redis": "redis", "amqp": "rpc"}[options.broker]
    return options


def keep(logs: Path) -> Path:
    """Empties the folder for the logs, and keeps there the package as it is now: it may be changed while tests run."""
    shutil.rmtree(logs, ignore_errors=True)
    shutil.copytree(ROOT / "python" / "celeriac", logs / "package" / "celeriac")
    return logs / "package"


def place(processes: Processes, kind: str, logs: Path, package: Path, options: argparse.Namespace) -> Place:
    folder = logs / kind
    folder.mkdir()
    server = processes.redis(f"redis-{kind}")
    broker = backend = server.broker_url
    if options.broker == "amqp":
        # Celery's suite is given the broker so.
        broker = processes.rabbitmq(server).broker_url.replace("amqp://", "pyamqp://", 1)
    if options.backend == "rpc":
        backend = "rpc"
    elif options.backend == "db+sqlite":
        # Many processes write at once, and each waits for the others.
        backend = f"db+sqlite:///{folder}/results.sqlite?timeout=30"
    return Place(kind, folder, package, broker, backend, server.port)


def beside(run: Callable[[Place], Results], places: list[Place]) -> dict[str, Results]:
    """The results of all kinds, which run at the same time: they mostly wait. No thread keeps the program up."""
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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        progress(str(error))
        sys.exit(2)
