"""The files of the projects that ``celeriac quickstart`` writes."""

#: What both kinds of project set: folders in place of servers.
SETTINGS = '''\
# Folders are the broker, and keep the results: nothing else has to run. For production put URLs of servers here, such as
# redis://localhost:6379/0, and remove the transport options.
DATA = {base} / "data"
{prefix}BROKER_URL = "filesystem://localhost"
{prefix}BROKER_TRANSPORT_OPTIONS = {{
    # Where messages are read from, and where they are written to.
    "data_folder_in": str(DATA / "messages"),
    "data_folder_out": str(DATA / "messages"),
    # Which queue belongs to which exchange, and who listens to remote control.
    "control_folder": str(DATA / "control"),
}}
{prefix}RESULT_BACKEND = f"file://{{DATA / 'results'}}"
for folder in ("messages", "control", "results"):
    (DATA / folder).mkdir(parents=True, exist_ok=True)
'''

TASKS = '''\
@{decorator}
def add(x, y):
    return x + y


@{decorator}
def count_words(text):
    """How often each word is there, the most frequent first."""
    counts = {{}}
    for word in text.lower().split():
        counts[word] = counts.get(word, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
'''

CALLS = '''\
from celery import chain

from {tasks} import add, count_words


def call():
    """Calls the tasks, and prints what comes back."""
    calls = {
        "add.delay(2, 3)": add.delay(2, 3),
        "count_words.delay('to be or not to be')": count_words.delay("to be or not to be"),
        "add.apply_async((1, 1), countdown=1)": add.apply_async((1, 1), countdown=1),
        "chain(add.s(1, 2), add.s(4))()": chain(add.s(1, 2), add.s(4))(),
    }
    print(f"{'call':<41} {'state':<8} result")
    for text, result in calls.items():
        value = result.get(timeout=30)
        print(f"{text:<41} {result.state:<8} {value!r}")
'''

PLAIN = {
    "tasks.py": '''\
"""The app and its tasks: `celeriac -A tasks worker` runs them."""

from celery import Celery

app = Celery("tasks")
app.config_from_object("settings")


'''
    + TASKS.format(decorator="app.task"),
    "settings.py": '"""Celery\'s settings."""\n\nfrom pathlib import Path\n\n'
    + SETTINGS.format(base="Path(__file__).resolve().parent", prefix="").replace("BROKER_URL =", "broker_url =")
    .replace("BROKER_TRANSPORT_OPTIONS =", "broker_transport_options =")
    .replace("RESULT_BACKEND =", "result_backend ="),
    "call.py": '"""`python call.py`: calls the tasks; a worker has to run."""\n\n'
    + CALLS.replace("{tasks}", "tasks")
    + '\n\nif __name__ == "__main__":\n    call()\n',
    ".gitignore": "data/\nworker.log\n__pycache__/\n",
}

DJANGO = {
    "manage.py": '''\
#!/usr/bin/env python
"""Django's command line."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
''',
    "config/__init__.py": 'from .celery import app as celery_app\n\n__all__ = ("celery_app",)\n',
    "config/celery.py": '''\
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("config")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
''',
    "config/settings.py": '''\
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "only-for-development-{secret}"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
INSTALLED_APPS = ["hello"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}}}
USE_TZ = True

'''
    + SETTINGS.format(base="BASE_DIR", prefix="CELERY_").replace("{", "{{").replace("}", "}}"),
    "hello/__init__.py": "",
    "hello/tasks.py": '"""The tasks: `celeriac -A config worker` runs them."""\n\nfrom celery import shared_task\n\n\n'
    + TASKS.format(decorator="shared_task"),
    "hello/management/__init__.py": "",
    "hello/management/commands/__init__.py": "",
    "hello/management/commands/hello.py": '"""`manage.py hello`: calls the tasks; a worker has to run."""\n\n'
    + CALLS.replace("{tasks}", "hello.tasks").replace(
        "from celery import chain\n", "from celery import chain\nfrom django.core.management.base import BaseCommand\n"
    )
    + '''

class Command(BaseCommand):
    help = "Calls the tasks, and prints what comes back."

    def handle(self, *args, **options):
        call()
''',
    ".gitignore": "data/\ndb.sqlite3\nworker.log\n__pycache__/\n",
}
