"""The same calls from the oldest client whose JSON carries types: Celery 5.3, in a virtual environment of its own."""

import os
import pathlib
import subprocess
import sys

from support import ROOT

PYTHON = pathlib.Path(os.environ.get("CELERIAC_OLD_PYTHON") or ROOT / ".build" / "venv-5.3" / "bin" / "python")


def run(suite, *options):
    """A suite of this folder, under the old client; the stock workers in it stay those of this environment."""
    assert PYTHON.exists(), f"{PYTHON} is missing: `scripts/setup.sh old-client` makes it"
    suite = pathlib.Path(__file__).with_name(suite)
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite, *options]
    env = {**os.environ, "CELERIAC_STOCK_5_7": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


def test_every_task_from_celery_5_3():
    run("test_tasks.py")


def test_every_canvas_from_celery_5_3():
    run("test_mixed_fleet.py", "-k", "three")


def test_folders_as_the_broker_with_celery_5_3():
    run("test_filesystem.py", "-k", "not killed")
