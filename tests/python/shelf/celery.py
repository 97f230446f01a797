"""The project's app, as Celery's tutorial for Django writes it; its receivers say in the log what they heard."""

import os
import time

from celery import Celery, signals
from celery.utils.log import get_logger

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shelf.settings")

app = Celery("shelf")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.autodiscover_tasks(related_name="coroutines")
logger = get_logger(__name__)


@signals.worker_process_init.connect
def on_process(sender, **_):
    logger.warning("heard worker_process_init of %s in %s", sender, os.getpid())
    if app.conf.get("shelf_slow_processes"):
        time.sleep(60)


@signals.worker_process_shutdown.connect
def on_process_end(pid, exitcode, **_):
    logger.warning("heard worker_process_shutdown of %s: %s", pid, exitcode)
    if app.conf.get("shelf_hanging_processes"):
        time.sleep(60)


@signals.task_prerun.connect
def on_start(task_id, **_):
    logger.debug("heard task_prerun of %s in %s", task_id, os.getpid())
