"""The shop's tasks: some run in the Rust worker, some in Python.

A task that runs in Rust is declared here by its name. That gives it `.delay()`, autodiscovery, and Celery's check of
the arguments against the signature where the call is made. The route `rust.*` in the settings sends it to the queue
that the Rust worker consumes; a Python worker that runs it all the same fails with the reason.
"""

from celery import shared_task
from django.utils import timezone

from .models import Order

RUST = "this task runs in the Rust worker: is the route rust.* in CELERY_TASK_ROUTES?"


@shared_task(name="rust.add")
def add(x, y, z=0):
    """x + y + z."""
    raise NotImplementedError(RUST)


@shared_task(name="rust.xsum")
def xsum(numbers):
    """The sum of a list."""
    raise NotImplementedError(RUST)


@shared_task(name="rust.echo")
def echo(*args, **kwargs):
    """[args, kwargs]."""
    raise NotImplementedError(RUST)


@shared_task(name="rust.fail")
def fail(exc_type, message):
    """Raises the Python exception of that name."""
    raise NotImplementedError(RUST)


@shared_task(name="rust.panic")
def panic(message):
    """A Rust panic: the task fails, the worker goes on."""
    raise NotImplementedError(RUST)


@shared_task(name="rust.flaky")
def flaky(key, failures):
    """Fails that many times and is retried with back-off; then returns the number of the attempt."""
    raise NotImplementedError(RUST)


@shared_task(name="rust.progress")
def progress(steps, pause):
    """Stores PROGRESS with current and total after each step."""
    raise NotImplementedError(RUST)


@shared_task(name="rust.types")
def types():
    """A datetime, a decimal, a UUID and bytes."""
    raise NotImplementedError(RUST)


@shared_task(name="rust.noop", ignore_result=True)
def noop():
    """Nothing. It has a body in Python too, so that a stock worker can be measured on the same messages."""


@shared_task
def send_receipt(order_id):
    """An ordinary Python task: a stock Celery worker runs it, with the ORM."""
    order = Order.objects.get(pk=order_id)
    order.receipt_sent_at = timezone.now()
    order.save(update_fields=["receipt_sent_at"])
    return f"receipt for {order.customer}: {order.total / 100:.2f}"
