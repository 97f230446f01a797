"""Sessions of pytest: each file has one of its own, with a worker of its own, so that none has to live with another's."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from conformance import names
from conformance.report import Outcome, Results
from conformance.suite import Suite
from harness import ROOT, Processes

#: The modules that are called for each kind of worker.
KINDS = {"stock": "celery", "ours": "celeriac"}
#: Seconds that one test may take. Some of the suite wait for minutes to see that nothing comes.
LIMIT = 300

PYTEST = ("pytest", "-p", "conformance.plugin", "-p", "celery.contrib.pytest", "-p", "no:cacheprovider", "-rA")
NOTHING_CHOSEN = 5


@dataclass(frozen=True)
class Place:
    """Where one kind of worker is tested: its brokers, which nobody else uses, and its logs."""

    kind: str
    folder: Path
    #: Where the package `celeriac` is.
    package: Path
    broker: str
    backend: str
    redis_port: int


def test(processes: Processes, suite: Suite, where: Place, files: list[str], expression: Optional[str]) -> Results:
    return {name: session(processes, suite, where, name, expression) for name in files}


def session(processes: Processes, suite: Suite, where: Place, name: str, expression: Optional[str]) -> list[Outcome]:
    """How the tests of one file end; each is told as soon as it has."""
    chosen = ["-k", expression] if expression else []
    line, theirs = os.pipe()
    with open(where.folder / f"{name}.log", "wb") as log, os.fdopen(line) as lines:
        process = subprocess.Popen(
            [str(suite.python), "-m", *PYTEST, f"t/integration/{name}", *chosen], cwd=suite.folder,
            env=environment(suite, where, theirs), pass_fds=[theirs], stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
        processes.adopt(process)
        os.close(theirs)
        outcomes = [told(where.kind, text) for text in lines]
        code = process.wait()
        processes.stop(process)
    if code not in (0, 1, NOTHING_CHOSEN) or (code == 1 and not outcomes):
        why = f"pytest ended with exit code {code}: see {log.name}"
        outcomes.append(Outcome(f"{name}::the session", "failed", why))
    return outcomes


def told(kind: str, text: str) -> Outcome:
    outcome = Outcome(**json.loads(text))
    print(f"  {kind:5}  {outcome.outcome:7}  {outcome.name}", flush=True)
    return outcome


def environment(suite: Suite, where: Place, line: int) -> dict[str, str]:
    """What the tests, and the workers that they start, find around them."""
    module = KINDS[where.kind]
    shadow(where.folder / "celery", suite.python, module)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CELERY_")},
        "PATH": os.pathsep.join([str(where.folder), str(suite.python.parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT / "scripts", where.package, suite.folder])),
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
