"""`celeriac.contrib.pytest`: what a project's tests have in place of Celery's fixtures `celery_worker` and
`celery_session_worker`. Their pytest is a process of its own.
"""

import os
import subprocess
import sys

import pytest

from support import ROOT, SECONDS

SUMS = """
from celery import shared_task


@shared_task
def add(x, y):
    return x + y
"""
WITHOUT_A_BROKER = """
def test_it(celeriac_worker):
    pass
"""
DEAD_BROKER = """
import pytest


@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": "redis://127.0.0.1:1/0", "result_backend": "cache+memory://"}


def test_it(celeriac_worker):
    pass
"""


def run(folder, file, **environment):
    """How a run of pytest ended, and what it said."""
    command = [sys.executable, "-m", "pytest", "-p", "celeriac.contrib.pytest", "-p", "no:cacheprovider", "--noconftest"]
    ended = subprocess.run(
        [*command, "-q", "-c", os.devnull, "--rootdir", folder, file], cwd=folder, text=True, timeout=8 * SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(folder)]), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    return ended.returncode, ended.stdout


@pytest.mark.parametrize("file, count", [("plugged.py", 8), ("plugged_session.py", 3)])
def test_a_projects_tests_with_a_worker(server, tmp_path, file, count):
    (tmp_path / "sums_of_plugged.py").write_text(SUMS)
    path = ROOT / "tests" / "python" / file
    code, said = run(tmp_path, path, PLUGGED_BROKER=server.broker_url, PLUGGED_RESULTS=server.result_url)
    assert code == 0, said
    assert f"\n{count} passed" in said, said


def test_a_broker_that_cannot_be_reached_is_told_with_what_to_do(tmp_path):
    memory = ["memory:// is Celery's own within a process", "def celery_config():"]
    dead = ["ConnectionError", "127.0.0.1:1"]
    for name, text, told in [("test_memory.py", WITHOUT_A_BROKER, memory), ("test_dead.py", DEAD_BROKER, dead)]:
        (tmp_path / name).write_text(text)
        code, said = run(tmp_path, tmp_path / name)
        assert code == 1
        for part in told:
            assert part in said, said
