"""Settings as a project has them, with the places from the environment."""

import json
import os

SECRET_KEY = "only-for-the-tests"
INSTALLED_APPS = ["shelf"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True

CELERY_BROKER_URL = os.environ["SHELF_BROKER"]
CELERY_RESULT_BACKEND = os.environ["SHELF_RESULTS"]
CELERY_ACCEPT_CONTENT = ["json", "yaml"]
CELERY_TASK_DEFAULT_QUEUE = "shelf"
globals().update(json.loads(os.environ.get("SHELF_SETTINGS", "{}")))
