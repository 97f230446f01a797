"""What a user has: the wheel in an environment that began empty, a new Django project, and the tutorial's task. A stock
worker in the same environment says how the log reads.
"""

import re
import zipfile
from collections import Counter

import pytest

import wheels
from support import ROOT, Redis

#: What is another in each run.
MARKS = [
    (r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: ", "[TIME: "),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"ForkPoolWorker-\d+", "ForkPoolWorker-N"),
    (r"succeeded in \d+\.\d+(e-\d+)?s", "succeeded in SECONDS"),
    (r"proj:0x[0-9a-f]+", "proj:ADDRESS"),
    # Kombu shows a password that there is not.
    (r"redis://:\*\*@", "redis://"),
]
#: The first part of each line of the banner is a picture.
PICTURE = 16
#: What a user's own tests may say, and what they may not.
TYPED = """
from celery import Celery
from celeriac.contrib.testing import Worker, start_worker

def name(worker: Worker) -> str:
    return worker.hostname

with start_worker(Celery(), pool="threads") as worker:
    name(worker)
"""
MISTYPED = TYPED + "    name(worker.hostname)\n"
ASKED = "from bakery.tasks import price; print('paid', price.delay(2, rolls=3).get(timeout=60))"


@pytest.fixture(scope="module")
def server(folder):
    server = Redis(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def wheel():
    return wheels.wheel()


@pytest.fixture(scope="module")
def environment(folder, wheel):
    return wheels.Environment(folder / "environment", "celery[redis]", "Django", wheel, "mypy", "pytest")


@pytest.fixture(scope="module")
def project(environment, folder, server):
    return wheels.start_project(environment, folder / "project", server)


def log_of(environment, project, *command):
    """What a worker says that runs one task and is stopped; it ends well."""
    worker = environment.start(project, *command, "worker", "-l", "info", "-c", "2")
    worker.output.wait_for(r"ready\.")
    worker.output.wait_for("mingle: all alone")
    assert environment.run(project, "python", "manage.py", "shell", "-c", ASKED).splitlines()[-1] == "paid 1020"
    worker.output.wait_for(r"succeeded in")
    code = worker.stop()
    assert code == 0, worker.output.text()
    return worker.output.whole()


def marked(text):
    for pattern, mark in MARKS:
        text = re.sub(pattern, mark, text)
    return text


def read(text):
    """The banner without its picture and the lines on host and release, the tasks, and the lines of the log."""
    banner, rest = text[text.index("celery@") :].split("\n[tasks]\n")
    tasks, log = rest.split("\n\n", 1)
    banner = [line[PICTURE:] for line in banner.splitlines()[3:]]
    return [line for line in banner if line], tasks.splitlines(), log.splitlines()


@pytest.fixture(scope="module")
def stock_log(environment, project):
    return marked(log_of(environment, project, "celery", "-A", "proj"))


@pytest.fixture(scope="module")
def our_log(environment, project):
    return marked(log_of(environment, project, "celeriac", "-A", "proj"))


def test_nothing_comes_from_elsewhere(environment, project):
    program = "import celeriac, celeriac._celeriac as rust, sys; print(celeriac.__file__, rust.__file__, *sys.path)"
    said = environment.run(project, "python", "-c", program)
    assert said.count(f"{environment.folder}/lib/") >= 3
    assert str(ROOT) not in said


def test_it_runs_without_the_redis_client(environment, project):
    program = "import sys; sys.modules['redis'] = None; from celeriac.cli import main; sys.exit(main(['celeriac', '--version']))"
    assert "(celeriac)" in environment.run(project, "python", "-c", program)


def test_the_log_reads_as_celerys(stock_log, our_log):
    stock, ours = read(stock_log), read(our_log)
    assert ours[0] == stock[0]
    assert ours[1] == stock[1] == ["  . bakery.tasks.price"]
    assert Counter(ours[2]) == Counter(stock[2])
    said = re.findall(r"\] (received|succeeded in SECONDS: 1020)|(Warm shutdown)", our_log)
    assert said == [("received", ""), ("succeeded in SECONDS: 1020", ""), ("", "Warm shutdown")]


def test_what_is_in_the_wheel(wheel, environment):
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("celeriac/py.typed", "celeriac/_celeriac.pyi", "celeriac/_celeriac.abi3.so"):
        assert name in names
    assert re.fullmatch(r"celeriac-\d+\.\d+\.\d+-cp39-abi3-.*\.whl", wheel.name)
    assert [name for name in names if not re.match(r"celeriac(-\d+\.\d+\.\d+\.dist-info)?/", name)] == []
    environment.run(environment.folder, "pip", "check")


def test_it_is_one_of_celerys_commands(environment, project, our_log):
    assert re.search(r"^ *celeriac +Run the tasks", environment.run(project, "celery", "--help"), re.MULTILINE)
    log = marked(log_of(environment, project, "celery", "-A", "proj", "--quiet", "celeriac"))
    assert Counter(log.splitlines()) == Counter(read(our_log)[2])


@pytest.mark.parametrize("arguments, code", [
    (["--help"], 0),
    (["worker", "--help"], 0),
    (["worker", "-P", "fibers"], 2),
    (["-A", "nowhere", "worker"], 2),
    (["config", "check"], 0),
    (["inspect", "-t", "0.1", "ping"], 69),
], ids=str)
def test_what_it_is_told_there_is_handed_through(environment, project, arguments, code):
    said = environment.run(project, "celery", "-A", "proj", "celeriac", *arguments, code=code)
    assert said
    own = environment.run(project, "celeriac", "-A", "proj", *arguments, code=code)
    assert said.replace("Usage: celery celeriac", "Usage: celeriac") == own


def test_the_stubs_are_the_extensions(environment):
    environment.run(environment.folder, "stubtest", "celeriac._celeriac")


def test_what_users_import_has_types(environment, tmp_path):
    mypy = ["mypy", "--config-file", ROOT / "tests" / "python" / "types.ini", "--cache-dir", environment.folder / "mypy"]
    public = ["-p", "celeriac.contrib", "-m", "celeriac.command", "-m", "celeriac._celeriac", "-m", "celeriac"]
    environment.run(tmp_path, *mypy, *public)
    for text, code in [(TYPED, 0), (MISTYPED, 1)]:
        (tmp_path / "tested.py").write_text(text)
        said = environment.run(tmp_path, *mypy, "tested.py", code=code)
    assert 'has incompatible type "str"; expected "Worker"' in said
