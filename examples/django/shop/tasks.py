"""The shop's tasks: some in Rust, some in Python, and one worker runs both.

Those in Rust are in the module `shop_rust` (rust_tasks/src/lib.rs), and are tasks like all others: `.delay()`, canvases,
and Celery's check of the arguments where a call is made.
"""

from celery import shared_task
from django.utils import timezone
from shop_rust import echo, fail, flaky, noop, panic, progress, total, types, words

from .models import Order

__all__ = [
    "add_fee", "echo", "fail", "flaky", "noop", "panic", "progress", "send_receipt", "total", "types", "words",
]


@shared_task
def add_fee(price, fee=100):
    """An ordinary Python task."""
    return price + fee


@shared_task
def send_receipt(order_id):
    """Another one, with the ORM."""
    order = Order.objects.get(pk=order_id)
    order.receipt_sent_at = timezone.now()
    order.save(update_fields=["receipt_sent_at"])
    return f"receipt for {order.customer}: {order.total / 100:.2f}"
