"""The same calls from the oldest client whose JSON carries types: Celery 5.3, in a virtual environment of its own."""

import os
import pathlib
import subprocess

import pytest

from support import ROOT

PYTHON = pathlib.Path(os.environ.get("CELERIAC_OLD_PYTHON") or ROOT / ".build" / "venv-5.3" / "bin" / "python")


@pytest.mark.skipif(not PYTHON.exists(), reason="no .build/venv-5.3: scripts/setup.sh old-client makes it")
def test_every_task_from_celery_5_3():
    suite = pathlib.Path(__file__).with_name("test_tasks.py")
    done = subprocess.run([PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
