"""The wheel in an environment that begins empty, and a Django project that begins there: what a user has.

`CELERIAC_WHEEL` names a wheel; without it the tree's is built (`scripts/wheel.sh`).
"""

import os
import pathlib
import subprocess
import sys

from support import ROOT, SECONDS, Process

WHEELHOUSE = ROOT / ".build" / "wheelhouse"
#: The first steps with Django in Celery's documentation, for a bakery.
FILES = {
    "proj/celery.py": """
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
""",
    "proj/__init__.py": """
from .celery import app as celery_app

__all__ = ("celery_app",)
""",
    "bakery/tasks.py": """
from celery import shared_task


@shared_task
def price(loaves, rolls=0):
    return loaves * 420 + rolls * 60
""",
}


def wheel():
    """The wheel's path."""
    if "CELERIAC_WHEEL" not in os.environ:
        subprocess.run([ROOT / "scripts" / "setup.sh", "wheelhouse"], check=True)
        subprocess.run([ROOT / "scripts" / "wheel.sh"], check=True)
    [found] = pathlib.Path(os.environ.get("CELERIAC_WHEEL", ROOT / ".build" / "wheel")).glob("celeriac-*.whl")
    return found


class Environment:
    """A virtual environment with nothing in it but what is asked for, and commands that know of nothing else."""

    def __init__(self, folder, *packages):
        self.folder = pathlib.Path(folder)
        subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
        offline = ["--disable-pip-version-check", "--no-index", "--find-links", WHEELHOUSE]
        self.run(self.folder, "pip", "install", "--quiet", *offline, *packages)

    def command(self, directory, program, *arguments):
        """One of the environment's programs, as a shell in the directory would call it."""
        environment = {
            "HOME": str(self.folder), "LANG": "C.UTF-8", "PATH": f"{self.folder}/bin:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        named = [f"{name}={value}" for name, value in environment.items()]
        return ["env", "-i", f"--chdir={directory}", *named, self.folder / "bin" / program, *arguments]

    def run(self, directory, program, *arguments, code=0):
        """What the program writes, when it has ended with that exit code."""
        ended = subprocess.run(
            [str(part) for part in self.command(directory, program, *arguments)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=8 * SECONDS,
        )
        assert ended.returncode == code, ended.stdout
        return ended.stdout

    def start(self, directory, program, *arguments):
        return Process(self.command(directory, program, *arguments))


def start_project(environment, folder, server):
    """A new project whose broker and results are the server's."""
    project = pathlib.Path(folder)
    project.mkdir()
    environment.run(project, "django-admin", "startproject", "proj", ".")
    environment.run(project, "python", "manage.py", "startapp", "bakery")
    for path, text in FILES.items():
        (project / path).write_text(text.lstrip())
    settings = project / "proj" / "settings.py"
    text = settings.read_text().replace("INSTALLED_APPS = [", 'INSTALLED_APPS = [\n    "bakery",')
    text += f"\nCELERY_BROKER_URL = {server.broker_url!r}\nCELERY_RESULT_BACKEND = {server.result_url!r}\n"
    settings.write_text(text)
    return project
