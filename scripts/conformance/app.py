"""The app that the workers load: what the suite's `celery_session_app` is in the process of the tests."""

import importlib
import json
import os

from celery.contrib.testing.app import TestApp

from conformance.names import CLASSES, INCLUDES, SETTINGS


def create():
    """The app, from what the tests have put into the environment."""
    app = TestApp(config=json.loads(os.environ[SETTINGS]), enable_logging=True)
    app.set_default()
    app.set_current()
    for module in json.loads(os.environ[INCLUDES]):
        app.loader.import_task_module(module)
    for module, name in json.loads(os.environ[CLASSES]):
        app.register_task(getattr(importlib.import_module(module), name))
    return app


app = create()
