"""Each step of a task's life on RabbitMQ: there the worker is killed, or its connection cut, just before or just after.

What a step is shows in what the worker and RabbitMQ tell each other, or in what the worker tells the Redis that has its
results: proxies wait for that. `lives.py` says what must hold afterwards; here also that nothing is left in any other
queue. A cut connection takes with it all that the channel holds, so what is acknowledged late runs again where the
acknowledgement has not reached RabbitMQ; where it has, nothing does.
"""

import pytest

import lives
from cutting import Proxy
from cutting_amqp import AmqpProxy
from faults import eventually
from lives import (
    FAULTS, MAY_REPEAT_TWICE, ONCE, Chain, Chord, Early, Expired, FailedChord, Failure, Held, Life,
    Malformed, Replacement, Retry, Step, said, script, stored, trials,
)
from rabbit import RabbitBroker
from support import DEAD_LETTERS

NOTES = "celeriac.notes."
# What was sent is sent once more where nothing was heard of it, and once by the task that runs again; and the first of
# these may run when its connection is cut.
SENT_AGAIN = (1, 4)


def published(task_id, *needles):
    """A message with this id in its headers."""
    return said(b"basic.publish", b"\2idS" + len(task_id).to_bytes(4, "big") + task_id, *needles)


# A task's message: what other workers and clients say is delivered, too.
DELIVERED = said(b"basic.deliver", b"rust.")
ACKNOWLEDGED = said(b"basic.ack")


class Place(lives.Place):
    """A vhost for tasks, and a Redis for results."""

    NO_MESSAGE = {"body": "no message", "headers": None, "properties": {}, "content-type": None}

    def __init__(self, folder):
        super().__init__(RabbitBroker(folder))
        self.port = self.broker.node.port

    def behind(self, trap):
        return self.urls(AmqpProxy(self.port, trap, "tasks"), Proxy(self.broker.results.port, trap))

    def left(self):
        """All queues of tasks with something in them."""
        depths = self.broker.vhost.depths()
        return {name: depth for name, depth in depths.items() if any(depth) and not name.startswith("celeriac.")}


class Single(Life):
    """One task, acknowledged late."""

    labels = ["first"]

    def send(self):
        self.append("first").apply_async()

    def ended(self):
        self.states(first="SUCCESS")


class Widened(Held):
    """While it is held, another consumer is asked for whatever comes behind it."""

    labels = ["first", "second"]
    options = {"worker_concurrency": 1, "worker_prefetch_multiplier": 1}

    def send(self):
        super().send()
        self.append("second").apply_async()

    def ended(self):
        self.states(second="SUCCESS", first="SUCCESS")
        assert self.lines.all()[0] == "second"


class Parked(Held):
    """Waits for its time at RabbitMQ."""

    options = {"worker_park_eta_after": 1, "broker_native_delayed_delivery_queue_type": "classic"}


class Outlived(Expired):
    """Stock Celery tells RabbitMQ, too, when it expires: what goes back to its queue is thrown away there."""

    def ended(self):
        assert self.runs("first") == 0


class Refused(Malformed):
    """The queue of dead letters is there already."""

    def send(self):
        self.broker.vhost.declare(DEAD_LETTERS)
        super().send()


class Noted(Single):
    """It comes a second time: from then on there is a note beside it."""

    options = {"worker_lost_limit": 3}
    cut_first = staticmethod(DELIVERED)

    def ended(self):
        super().ended()
        # That of a worker that is killed between the acknowledgement and the end of the note expires.
        eventually(lambda: self.how == "killed" or not self.notes(), self.notes)

    def notes(self):
        return [queue for queue in self.broker.vhost.depths() if queue.startswith(NOTES)]


class Quorum:
    """The same on a quorum queue."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.options = {
            **self.options, "task_create_missing_queue_type": "quorum",
            "broker_native_delayed_delivery_queue_type": "classic",
        }
        self.app.conf.task_create_missing_queue_type = "quorum"


class QuorumSingle(Quorum, Single):
    pass


class QuorumChain(Quorum, Chain):
    pass


class QuorumEarly(Quorum, Early):
    pass


class QuorumRetry(Quorum, Retry):
    """Its retry waits at RabbitMQ."""


class QuorumRefused(Quorum, Refused):
    pass


def acknowledged_early(life):
    """Until RabbitMQ has heard of it, it may begin; afterwards it does not come again."""
    return Step(life, ACKNOWLEDGED, killed_after=(0, 1), cut_after=ONCE)


def acknowledged_late(life):
    return Step(life, ACKNOWLEDGED, killed_after=ONCE, cut_after=ONCE)


STEPS = {
    "delivered": Step(Chain, DELIVERED, MAY_REPEAT_TWICE),
    "started": Step(Chain, stored(b"STARTED", b"first"), MAY_REPEAT_TWICE, ONCE),
    "continuation published": Step(Chain, published(b"second"), MAY_REPEAT_TWICE, SENT_AGAIN),
    "result stored": Step(Chain, stored(b"SUCCESS", b"first"), MAY_REPEAT_TWICE, ONCE),
    "acknowledged": acknowledged_late(Single),
    "acknowledged early": acknowledged_early(Early),
    "delivered, to be acknowledged early": Step(Early, DELIVERED),
    "result stored after an early acknowledgement": Step(Early, stored(b"SUCCESS", b"first"), cut=ONCE),
    "part of a chord counted": Step(Chord, script(6, b".j")),
    "body published": Step(Chord, published(b"body"), MAY_REPEAT_TWICE, SENT_AGAIN),
    "member of a chord acknowledged": Step(Chord, ACKNOWLEDGED),
    "failed member stored": Step(FailedChord, stored(b"FAILURE", b"failed")),
    "failure of the body stored": Step(FailedChord, stored(b"FAILURE", b"body")),
    "errback of a chord published": Step(FailedChord, published(b"errback")),
    "retry published": Step(Retry, published(b"first"), MAY_REPEAT_TWICE, cut=SENT_AGAIN),
    "retry stored": Step(Retry, stored(b"RETRY", b"first")),
    "retried message acknowledged": Step(Retry, ACKNOWLEDGED),
    "failure stored": Step(Failure, stored(b"FAILURE", b"first")),
    "rest of the chain failed": Step(Failure, stored(b"FAILURE", b"second")),
    "errback published": Step(Failure, published(b"errback")),
    "failed message acknowledged": Step(Failure, ACKNOWLEDGED),
    "replacement published": Step(Replacement, published(b"first"), MAY_REPEAT_TWICE, cut=SENT_AGAIN),
    "held message delivered": Step(Held, DELIVERED, ONCE, ONCE),
    "consumer ended for another": Step(Widened, said(b"basic.cancel")),
    "other consumer begun": Step(Widened, said(b"basic.consume")),
    "copy parked": Step(Parked, published(b"first", b"celeriac_celery_delayed")),
    "parked message acknowledged": Step(Parked, ACKNOWLEDGED),
    "expired message stored": Step(Outlived, stored(b"REVOKED", b"first")),
    "queue of dead letters declared": Step(Malformed, said(b"queue.declare", DEAD_LETTERS.encode())),
    "dead letter written": Step(Refused, said(b"basic.publish", DEAD_LETTERS.encode())),
    "unregistered task stored": Step(Malformed, stored(b"FAILURE", b"first")),
    "note asked for": Step(Noted, said(b"queue.declare", NOTES.encode()), MAY_REPEAT_TWICE, MAY_REPEAT_TWICE),
    "note written": Step(Noted, said(b"basic.publish", NOTES.encode()), MAY_REPEAT_TWICE, MAY_REPEAT_TWICE),
    "note removed": Step(Noted, said(b"queue.delete", NOTES.encode()), MAY_REPEAT_TWICE, MAY_REPEAT_TWICE),
    "continuation published on a quorum queue": Step(QuorumChain, published(b"second"), MAY_REPEAT_TWICE, SENT_AGAIN),
    "acknowledged on a quorum queue": acknowledged_late(QuorumSingle),
    "acknowledged early on a quorum queue": acknowledged_early(QuorumEarly),
    "retry published to a quorum queue": Step(QuorumRetry, published(b"first"), MAY_REPEAT_TWICE, cut=SENT_AGAIN),
    "dead letter of a quorum queue written": Step(QuorumRefused, said(b"basic.publish", DEAD_LETTERS.encode())),
}


@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_fails(trials, name, fault):
    trials[(name, *fault)].result()
