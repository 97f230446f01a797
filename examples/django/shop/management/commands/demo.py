"""`manage.py demo`: calls Rust and Python tasks as a view would, and shows what comes back.

`celeriac -A config worker` must be running; `make demo` starts it.
"""

import datetime
import decimal
import time
import uuid
from dataclasses import dataclass, field

from celery import chain, chord
from celery.exceptions import TaskRevokedError
from django.core.management.base import BaseCommand, CommandError

from shop import tasks
from shop.models import Line, Order

TIMEOUT = 20.0


@dataclass
class Row:
    call: str
    state: str
    result: str
    seconds: float
    ok: bool


@dataclass
class Call:
    """One call, and what is right: the state, and a test of what `.get()` returned or raised."""

    text: str
    send: object
    right: object
    state: str = "SUCCESS"
    at_least: float = 0.0
    watch: bool = False
    seen: list = field(default_factory=list)

    def run(self) -> Row:
        started = time.perf_counter()
        try:
            result = self.send()
            if self.watch:
                self.watch_states(result)
            # The interval is for backends that can only be asked again and again, such as files.
            outcome = result.get(timeout=TIMEOUT, interval=0.02, propagate=True)
        except Exception as error:  # what the task raised is the row's result
            outcome = error
        seconds = time.perf_counter() - started
        state = result.state
        ok = state == self.state and seconds >= self.at_least and bool(self.right(outcome))
        shown = repr(outcome) if not self.seen else f"{outcome!r} after {' '.join(self.seen)}"
        return Row(self.text, state, shown, seconds, ok)

    def watch_states(self, result) -> None:
        """Notes what a progress bar would show until the task is ready."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and not result.ready():
            info = result.info
            if result.state == "PROGRESS" and isinstance(info, dict):
                text = f"{info.get('current')}/{info.get('total')}"
                if text not in self.seen:
                    self.seen.append(text)
            time.sleep(0.01)


def calls(order: Order) -> list[Call]:
    prices = list(order.lines.values_list("price", flat=True))
    progress = Call("progress.delay(4, 0.1)", lambda: tasks.progress.delay(4, 0.1), None, watch=True)
    progress.right = lambda _: len(progress.seen) >= 2
    return [
        Call("total.delay(prices)", lambda: tasks.total.delay(prices), lambda got: got == sum(prices)),
        Call("total.delay([2], discount=7)", lambda: tasks.total.delay([2], discount=7), lambda got: got == -5),
        Call("words.delay('to be or not to be')", lambda: tasks.words.delay("to be or not to be"), lambda got: got["be"] == 2),
        Call(
            "echo.delay('é', 10**30, d={…})",
            lambda: tasks.echo.delay("é", 10**30, d={"k": [1.5, None]}),
            lambda got: got == [["é", 10**30], {"d": {"k": [1.5, None]}}],
        ),
        Call("types.delay()", tasks.types.delay, right_types),
        Call(
            "total.apply_async(([1, 1],), countdown=1)",
            lambda: tasks.total.apply_async(([1, 1],), countdown=1),
            lambda got: got == 2,
            at_least=1.0,
        ),
        Call(
            "total.apply_async(([1],), countdown=2, expires=1)",
            lambda: tasks.total.apply_async(([1],), countdown=2, expires=1),
            lambda got: isinstance(got, TaskRevokedError),
            state="REVOKED",
        ),
        Call(
            "flaky.delay(failures=2)",
            lambda: tasks.flaky.delay(failures=2),
            lambda got: got == 3,
        ),
        Call(
            "fail.delay('ValueError', 'no stock')",
            lambda: tasks.fail.delay("ValueError", "no stock"),
            lambda got: type(got) is ValueError and got.args == ("no stock",),
            state="FAILURE",
        ),
        Call(
            "panic.delay('oh no')",
            lambda: tasks.panic.delay("oh no"),
            lambda got: isinstance(got, Exception) and "oh no" in str(got),
            state="FAILURE",
        ),
        progress,
        Call(
            "send_receipt.delay(order.pk)  # Python",
            lambda: tasks.send_receipt.delay(order.pk),
            lambda got: got.startswith("receipt for ada@example.com") and receipt_is_sent(order),
        ),
        Call(
            "chain(total, add_fee, echo)  # Rust, Python, Rust",
            lambda: chain(tasks.total.s(prices), tasks.add_fee.s(), tasks.echo.s())(),
            lambda got: got == [[sum(prices) + 100], {}],
        ),
        Call(
            "chord([add_fee, total, ...], total)  # both",
            lambda: chord([tasks.add_fee.s(1), tasks.total.s([2]), tasks.add_fee.s(3)], tasks.total.s())(),
            lambda got: got == 206,
        ),
    ]


def right_types(got) -> bool:
    kinds = [type(value) for value in (got.values() if isinstance(got, dict) else got)]
    return sorted(kind.__name__ for kind in kinds) == sorted(
        kind.__name__ for kind in (datetime.datetime, decimal.Decimal, uuid.UUID, bytes)
    )


def receipt_is_sent(order: Order) -> bool:
    order.refresh_from_db()
    return order.receipt_sent_at is not None


class Command(BaseCommand):
    help = "Calls Rust and Python tasks and shows a table of what came back."

    def handle(self, *args, **options):
        order = Order.objects.create(customer="ada@example.com")
        for product, price in (("celeriac", 250), ("celery", 199), ("salt", 89)):
            Line.objects.create(order=order, product=product, price=price)
        order.total = sum(order.lines.values_list("price", flat=True))
        order.save()

        self.stdout.write(f"{'call':<49} {'state':<8} {'time':>7}  {'ok':<5} result")
        wrong = 0
        for call in calls(order):
            row = call.run()
            wrong += not row.ok
            result = row.result if len(row.result) <= 60 else row.result[:59] + "…"
            verdict = "ok" if row.ok else "WRONG"
            self.stdout.write(f"{row.call:<49} {row.state:<8} {row.seconds:>6.3f}s  {verdict:<5} {result}")
            self.stdout.flush()
        if wrong:
            raise CommandError(f"{wrong} of the calls did not come back as they should")
