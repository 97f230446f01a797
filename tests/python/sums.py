"""The Python tasks that the example producer calls: `celery -A sums worker`."""

import os

from celery import Celery

app = Celery("sums", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.task_routes = {"sums.*": "sums"}


@app.task(name="sums.add")
def add(x, y):
    return x + y


@app.task(name="sums.total")
def total(numbers):
    return sum(numbers)


@app.task(name="sums.fail")
def fail(message):
    raise ValueError(message)


@app.task(name="sums.request", bind=True)
def request(self):
    request = self.request
    return [request.root_id == request.id, request.parent_id, request.user, request.delivery_info["priority"]]
