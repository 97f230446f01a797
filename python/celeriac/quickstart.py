"""``celeriac quickstart [FOLDER]``: a project that needs no server, written and run."""

import argparse
import importlib.util
import os
import secrets
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from celeriac import starters

#: For how long the worker may start, and the calls may take. The machine may be busy.
PATIENCE = 60.0


class Failed(Exception):
    """What went wrong, for people to read."""


@dataclass
class Project:
    """A kind of project: its files, its app's name, and how its tasks are called."""

    name: str
    app: str
    files: dict[str, str]
    call: list[str]

    def write(self, folder: Path) -> None:
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def run(arguments: list[str]) -> int:
    """Runs the command, and returns its exit code."""
    try:
        options = read(arguments)
    except SystemExit as exit:
        return int(exit.code or 0)
    try:
        folder = empty(Path(options.folder))
        project = choose(options.kind)
        project.write(folder)
        print(f"A {project.name} project is in {folder}: folders are its broker and keep its results.")
        if options.run:
            show(project, folder)
        tell(project, options.folder, folder)
    except (Failed, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def read(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="celeriac quickstart",
        description="Writes a small project that needs no server into an empty folder, runs a worker, and calls its tasks.",
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default=".", help="where to; made if it is not there")
    kind = parser.add_mutually_exclusive_group()
    of_kind = {"dest": "kind", "action": "store_const"}
    kind.add_argument("--django", **of_kind, const="Django", help="a Django project [default where Django is installed]")
    kind.add_argument("--plain", **of_kind, const="plain", help="a project without Django")
    parser.add_argument("--no-run", dest="run", action="store_false", help="only write it")
    return parser.parse_args(arguments)


def empty(folder: Path) -> Path:
    """The folder, which is made if it is not there."""
    if folder.exists() and not folder.is_dir():
        raise Failed(f"{folder} is no folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise Failed(f"the folder {folder.resolve()} is not empty: name another, as in `celeriac quickstart hello`")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def choose(kind: Optional[str]) -> Project:
    has_django = importlib.util.find_spec("django") is not None
    if kind is None:
        kind = "Django" if has_django else "plain"
    if kind == "plain":
        return Project("plain Celery", "tasks", starters.PLAIN, ["call.py"])
    if not has_django:
        raise Failed("Django is not installed: `pip install django`, or leave --django out")
    settings = starters.DJANGO["config/settings.py"].format(secret=secrets.token_urlsafe(16))
    return Project("Django", "config", {**starters.DJANGO, "config/settings.py": settings}, ["manage.py", "hello"])


def show(project: Project, folder: Path) -> None:
    """Runs a worker, and the calls."""
    log = folder / "worker.log"
    # Absolute, as another directory is the current one there; and what the shell says of another project is not heeded.
    theirs = {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)}
    heeded = ("CELERY_", "DJANGO_SETTINGS_MODULE", "APP")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(heeded)} | theirs
    command = [sys.executable, "-m", "celeriac", "-A", project.app, "worker", "-c", "2", "-l", "info"]
    with log.open("wb") as output:
        worker = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        ready(worker, log)
        print(f"A worker runs, and logs to {log}. These are calls and what comes back:\n", flush=True)
        calls = [sys.executable, *project.call]
        done = subprocess.run(calls, cwd=folder, env=environment, stdin=subprocess.DEVNULL, timeout=2 * PATIENCE)
        if done.returncode:
            raise Failed(f"the calls ended with exit code {done.returncode}; the worker's log is {log}")
    except subprocess.TimeoutExpired:
        raise Failed(f"the calls took too long; the worker's log is {log}") from None
    finally:
        end(worker)


def ready(worker: subprocess.Popen, log: Path) -> None:
    """Waits until the worker says so."""
    deadline = time.monotonic() + PATIENCE
    while " ready." not in (said := log.read_text(encoding="utf-8", errors="replace")):
        if worker.poll() is not None:
            raise Failed(f"the worker ended with exit code {worker.returncode}:\n{said[-2000:]}")
        if time.monotonic() > deadline:
            raise Failed(f"the worker is not ready after {PATIENCE:.0f} seconds; its log is {log}")
        time.sleep(0.05)


def end(worker: subprocess.Popen) -> None:
    worker.terminate()
    try:
        worker.wait(PATIENCE / 4)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def tell(project: Project, given: str, folder: Path) -> None:
    """What to type next."""
    change = "" if folder == Path.cwd() else f"    cd {shlex.quote(given)}\n"
    call = " ".join(["python", *project.call])
    tasks = "tasks.py" if "tasks.py" in project.files else "hello/tasks.py"
    settings = "settings.py" if "settings.py" in project.files else "config/settings.py"
    print(f"""
Next:

{change}    celeriac -A {project.app} worker -l info     # the worker
    {call:<38} # in another terminal: calls

Change {tasks}, and start the worker anew. Where servers are to be the broker: {settings}.""")
