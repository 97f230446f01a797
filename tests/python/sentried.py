"""A project that is reported on by Sentry: what would be sent is written to a file, as each process is told to flush."""

import json
import os

import sentry_sdk
from celery import Celery
from sentry_sdk.transport import Transport


class File(Transport):
    """Keeps what is to be sent until it is to be flushed, as Sentry's own transport may."""

    def __init__(self, options=None):
        super().__init__(options)
        self.kept = []

    def capture_envelope(self, envelope):
        self.kept += [item.payload.json for item in envelope.items if item.type in ("event", "transaction")]

    def flush(self, timeout, callback=None):
        kept, self.kept = self.kept, []
        with open(os.environ["SENTRIED_FILE"], "a") as file:
            file.writelines(json.dumps(event, default=str) + "\n" for event in kept)


sentry_sdk.init(dsn="http://nobody@127.0.0.1:9/1", transport=File, traces_sample_rate=1.0, server_name="here")
app = Celery("sentried", broker=os.environ["SENTRIED_BROKER"], backend=os.environ["SENTRIED_RESULTS"])
app.conf.task_default_queue = os.environ["SENTRIED_QUEUE"]


@app.task(bind=True)
def parent(self, text):
    """Sends another task, in its own trace."""
    sentry_sdk.set_tag("project", "sentried")
    return failing.delay(text).id


@app.task
def failing(text):
    raise ValueError(text)
