"""Each step of a task's life: the worker is killed there, or its connection is cut, just before it and just after it.

What a step is shows in what the worker tells Redis; a proxy waits for that. `lives.py` says what must hold afterwards.
The same on RabbitMQ is in `test_fault_steps_rabbitmq.py`.
"""

import json
import time

import pytest

import faults
import lives
from cutting import Proxy
from lives import (
    FAULTS, MAY_REPEAT_TWICE, ONCE, Chain, Chord, Early, Expired, FailedChord, Failure, Held, Life, Malformed,
    Replacement, Retry, Step, said, script, stored, trials,
)
from support import DEAD_LETTERS


def published(task_id):
    return said(b'"root_id"', b'"id": "%s"' % task_id)


RESERVED = said(b"EVALSHA", b"unacked_index", b"tasks")
ACKNOWLEDGED = said(b"HDEL", b"unacked")
INDEX_CLEARED = said(b"ZREM", b"unacked_index")


class Place(lives.Place):
    """A Redis for tasks and results."""

    NO_MESSAGE = b"no message"

    def __init__(self, folder):
        super().__init__(faults.Broker(folder))
        self.port = self.broker.port

    def behind(self, trap):
        proxy = Proxy(self.port, trap)
        return self.urls(proxy, proxy)

    def left(self):
        return self.broker.left("tasks")


class Forsaken(Life):
    """What another worker had reserved before it died."""

    labels = ["first"]

    def send(self):
        self.append("first").set(queue="elsewhere").apply_async()
        raw = self.broker.client.rpop("elsewhere").decode()
        self.broker.client.hset("unacked", "forsaken", json.dumps([json.loads(raw), "", "tasks"]))
        self.broker.client.zadd("unacked_index", {"forsaken": time.time() - 3600})

    def ended(self):
        self.states(first="SUCCESS")


STEPS = {
    "reserved": Step(Chain, RESERVED, cut=ONCE),
    "started": Step(Chain, stored(b"STARTED", b"first"), MAY_REPEAT_TWICE, ONCE),
    "continuation published": Step(Chain, published(b"second"), MAY_REPEAT_TWICE),
    "result stored": Step(Chain, stored(b"SUCCESS", b"first"), MAY_REPEAT_TWICE, ONCE),
    "acknowledged": Step(Chain, ACKNOWLEDGED, MAY_REPEAT_TWICE, ONCE),
    "out of the index": Step(Chain, INDEX_CLEARED, MAY_REPEAT_TWICE, ONCE),
    "last result stored": Step(Chain, stored(b"SUCCESS", b"second"), MAY_REPEAT_TWICE, ONCE),
    # It begins while Redis is still being told, as under stock Celery: what is killed between the two runs again.
    "acknowledged early": Step(Early, ACKNOWLEDGED, killed=(0, 2), cut=ONCE),
    "reserved, to be acknowledged early": Step(Early, RESERVED, killed=ONCE, cut=ONCE),
    "result stored after an early acknowledgement": Step(Early, stored(b"SUCCESS", b"first"), killed=ONCE, cut=ONCE),
    "part of a chord counted": Step(Chord, script(6, b".j")),
    "claim of a chord held": Step(Chord, script(2, b".c")),
    "body published": Step(Chord, published(b"body"), MAY_REPEAT_TWICE),
    "chord forgotten": Step(Chord, script(5, b".c"), MAY_REPEAT_TWICE),
    "member of a chord acknowledged": Step(Chord, ACKNOWLEDGED, cut=ONCE),
    "failed member stored": Step(FailedChord, stored(b"FAILURE", b"failed")),
    "failure of the body stored": Step(FailedChord, stored(b"FAILURE", b"body")),
    "errback of a chord published": Step(FailedChord, published(b"errback")),
    "retry published": Step(Retry, published(b"first")),
    "retry stored": Step(Retry, stored(b"RETRY", b"first")),
    "retried message acknowledged": Step(Retry, ACKNOWLEDGED),
    "failure stored": Step(Failure, stored(b"FAILURE", b"first")),
    "rest of the chain failed": Step(Failure, stored(b"FAILURE", b"second")),
    "errback published": Step(Failure, published(b"errback")),
    "failed message acknowledged": Step(Failure, ACKNOWLEDGED),
    "replacement published": Step(Replacement, published(b"first")),
    "held message renewed": Step(Held, said(b"ZADD", b"unacked_index", b"XX"), killed=ONCE, cut=ONCE),
    "expired message stored": Step(Expired, stored(b"REVOKED", b"first")),
    "dead letter written": Step(Malformed, said(DEAD_LETTERS.encode())),
    "unregistered task stored": Step(Malformed, stored(b"FAILURE", b"first")),
    "forsaken message restored": Step(Forsaken, said(b"forsaken")),
}


@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_fails(trials, name, fault):
    trials[(name, *fault)].result()
