"""`celeriac quickstart`: a project that needs no server is written, and runs."""

import os
import subprocess
import sys

import pytest

from support import ROOT

# What is set for another project is not for this one.
ELSEWHERE = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0", "DJANGO_SETTINGS_MODULE": "no.such"}
CALLS = [
    "add.delay(2, 3)                           SUCCESS  5",
    "count_words.delay('to be or not to be')   SUCCESS  {'to': 2, 'be': 2, 'or': 1, 'not': 1}",
    "add.apply_async((1, 1), countdown=1)      SUCCESS  2",
    "chain(add.s(1, 2), add.s(4))()            SUCCESS  7",
]


def quickstart(*arguments, cwd=None):
    env = {**os.environ, **ELSEWHERE, "PYTHONPATH": str(ROOT / "python")}
    command = [sys.executable, "-m", "celeriac", "quickstart", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("kind, call", [([], "manage.py hello"), (["--plain"], "call.py")])
def test_a_project_is_written_and_its_tasks_run(tmp_path, kind, call):
    folder = tmp_path / "a project"
    done = quickstart(folder, *kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line in CALLS] == CALLS, done.stdout
    assert f"python {call}" in done.stdout and f"cd '{folder}'" in done.stdout
    # Nobody runs any more, and nothing waits.
    log = (folder / "worker.log").read_text()
    assert "Warm shutdown" in log and "results are not kept" not in log and "not heard" not in log, log
    assert not list((folder / "data" / "messages").glob("*.msg"))


def test_it_is_only_written_where_that_is_wanted(tmp_path):
    done = quickstart("--no-run", "--django", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "manage.py").exists() and not (tmp_path / "worker.log").exists()
    assert "cd " not in done.stdout, "it is here"
    written = (tmp_path / "config" / "settings.py").read_text()
    done = quickstart(cwd=tmp_path)
    assert done.returncode == 1 and "is not empty" in done.stderr
    assert (tmp_path / "config" / "settings.py").read_text() == written
    assert quickstart("--plain", "--django", tmp_path / "other").returncode == 2
    assert not (tmp_path / "other").exists()
