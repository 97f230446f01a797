"""`pool_restart`: the project's code is imported anew, and no task is lost, doubled or cut short."""

import gc
import os
import sys

import pytest
from celery import Celery

from faults import answering, eventually
from support import ROOT, SECONDS, Process

PROJECT = """
import os, time
from celery import Celery

app = Celery("renewed", broker=os.environ["RENEWED_BROKER"], backend=os.environ["RENEWED_RESULTS"])
app.conf.update(task_default_queue=os.environ["RENEWED_QUEUE"], worker_pool_restarts=True)
VERSION = {version}

@app.task
def version():
    return VERSION

@app.task
def noted(number):
    with open(os.environ["RENEWED_FILE"], "a") as file:
        file.write(f"{{number}}\\n")
    return VERSION

@app.task
def held(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    return [VERSION, os.getppid(), os.getpid()]
"""

# The command among Celery's, as where the package is installed.
AMONG_CELERYS = """
from celery.bin.celery import celery
from celeriac.command import celeriac
celery.add_command(celeriac)
celery()
"""


class Project:
    """A project whose code changes."""

    def __init__(self, folder, server, queue):
        self.folder, self.queue = folder, queue
        self.environment = {
            "RENEWED_BROKER": server.broker_url, "RENEWED_RESULTS": server.result_url, "RENEWED_QUEUE": queue,
            "RENEWED_FILE": str(folder / "noted"), "PYTHONDONTWRITEBYTECODE": "1", "DJANGO_SETTINGS_MODULE": "",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(folder)]),
        }
        self.app = Celery("client", broker=server.broker_url, backend=server.result_url, set_as_current=False)
        self.write(1)

    def write(self, version):
        (self.folder / "renewed.py").write_text(PROJECT.format(version=version))

    def start(self, command, *options):
        options = ["worker", "-n", f"{self.queue}@test", "-l", "info", "--without-gossip", *options]
        program = ["-c", AMONG_CELERYS, "-A", "renewed", "celeriac"] if command == "among" else ["-m", command, "-A", "renewed"]
        worker = Process([sys.executable, *program, *options], self.environment)
        worker.output.wait_for(r"ready\.", timeout=4 * SECONDS)
        answering(self.app, f"{self.queue}@test")
        return worker

    def send(self, name, *arguments):
        return self.app.send_task(f"renewed.{name}", arguments, queue=self.queue)

    def version(self):
        return self.send("version").get(timeout=SECONDS)

    def restart(self, **arguments):
        given = {"reply": True, "timeout": SECONDS, "limit": 1, "destination": [f"{self.queue}@test"]}
        [answer] = self.app.control.pool_restart(**arguments, **given)
        return answer[f"{self.queue}@test"]


@pytest.fixture
def project(server, tmp_path, request):
    project = Project(tmp_path, server, f"renewed-{request.function.__name__[-8:]}")
    yield project
    gc.collect()  # Results tell Redis that nobody waits for them any more: while it is there.
    project.app.close()


def test_all_processes_have_the_new_code_and_no_task_is_lost_or_doubled(project, tmp_path):
    worker = project.start("celeriac", "-c", "2")
    held = project.send("held", str(tmp_path / "released"))
    first = [project.send("noted", number) for number in range(100)]
    project.write(2)
    assert project.restart() == {"ok": "reload started"}
    then = [project.send("noted", number) for number in range(100, 200)]
    eventually(lambda: project.version() == 2, "the new code runs")
    (tmp_path / "released").touch()
    version, nursery, _ = held.get(timeout=SECONDS)
    assert version == 1, "what ran goes on to its end"
    versions = [result.get(timeout=SECONDS) for result in first + then]
    assert set(versions) <= {1, 2} and versions[0] == 1
    assert sorted(map(int, (tmp_path / "noted").read_text().split())) == list(range(200))
    # The one that forked the old processes is not needed any more, and both of the new ones have another.
    eventually(lambda: not is_alive(nursery), "the old nursery ends")
    assert {project.send("held", "/").get(timeout=SECONDS)[1] for _ in range(8)}.isdisjoint({nursery})
    assert worker.stop() == 0, worker.output.text()


def test_a_renewed_worker_that_is_killed_leaves_nobody(project):
    worker = project.start("among", "-c", "1")
    project.write(2)
    project.restart()
    eventually(lambda: project.version() == 2, "the new code runs")
    _, *processes = project.send("held", "/").get(timeout=SECONDS)
    worker.kill()
    eventually(lambda: not any(map(is_alive, processes)), "they end")


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_code_that_cannot_be_imported_leaves_the_pool_as_it_was(project, tmp_path):
    worker = project.start("celeriac", "-c", "1")
    project.write("= broken")
    assert project.restart() == {"ok": "reload started"}
    worker.output.wait_for("The pool is not restarted, and goes on as it was", timeout=4 * SECONDS)
    assert project.version() == 1
    assert project.restart(modules=["renewed"], reload=True)["error"].startswith("SyntaxError(")
    project.write(3)
    assert project.restart(modules=["renewed"], reload=True) == {"ok": "reload started"}
    eventually(lambda: project.version() == 3, "the new code runs")
    assert worker.stop() == 0, worker.output.text()


@pytest.mark.only("redis", "what is answered meets no broker")
@pytest.mark.parametrize("command, options", [("celery", ["-c", "1"]), ("celeriac", ["-P", "threads", "-c", "2"])])
def test_it_is_answered_and_reloads_as_in_a_stock_worker(project, command, options):
    worker = project.start(command, *options)
    project.write(2)
    assert project.restart(modules=["no_such_module"])["error"].startswith("ModuleNotFoundError(")
    assert project.restart(modules=["renewed"], reload=True) == {"ok": "reload started"}
    eventually(lambda: project.version() == 2, "the new code runs")
    assert worker.stop() == 0, worker.output.text()
