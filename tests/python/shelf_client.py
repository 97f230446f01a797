"""A client of the project `shelf`, in a process of its own, with the project's backend: sends one task of each fate,
and prints what each came to as JSON, without what is another time something else."""

import json
import re
import sys

import django
from celery import chain, chord, group
from faults import eventually
from shelf import tasks
from shelf.celery import app
from support import SECONDS

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def send(folder):
    """The results of all that is sent, by what it is."""
    note, errback = f"{folder}/hooks", tasks.noted.s(path=f"{folder}/errbacks")
    add, doomed = tasks.add, tasks.hooked.s(60, note)
    return {
        "value": add.delay(2, 3),
        "error": tasks.fail.apply_async(("bad",), link_error=errback),
        # Databases let RETRY replace a SUCCESS that comes too early.
        "retried": tasks.flaky.delay(1, pause=5),
        "chain": chain(add.s(1, 2), add.s(3), add.s(4))(),
        "group": group(add.s(i, 1) for i in range(5))(),
        "chord": chord((add.s(i, i) for i in range(5)), tasks.total.s())(),
        "chord that fails": chord([add.s(1, 1), tasks.fail.s("member")], tasks.total.s())(),
        "limit": doomed.apply_async(time_limit=0.5, link_error=errback),
        "late limit": tasks.late.apply_async((60,), time_limit=0.5),
        "chord with a limit": chord([add.s(1, 1), tasks.sleep.s(60).set(time_limit=0.5)], tasks.total.s())(),
        "lost": tasks.die.apply_async(link_error=errback),
        "late lost": tasks.late.apply_async((-9,)),
        "lost in a chain": chain(tasks.vanish.s(3), add.s(1))(),
        "chord with a lost one": chord([add.s(1, 1), tasks.die.s()], tasks.total.s())(),
        "lost once": tasks.die_once.delay(f"{folder}/died"),
        "expired": add.apply_async((1, 2), expires=-1),
        "rejected": tasks.rejected.delay(),
        "ignored result": tasks.die.apply_async(ignore_result=True),
    }


def revoked(folder):
    """Two that are revoked: one while it runs."""
    held = tasks.add.apply_async((1, 2), countdown=10)
    held.revoke()
    begun = f"{folder}/begun"
    running = tasks.begin.delay(begun)
    eventually(lambda: tasks.exists(begun), "it runs")
    running.revoke(terminate=True)
    return {"revoked": held, "terminated": running}


def outcome(result):
    try:
        value = result.get(timeout=SECONDS)
    except Exception as error:
        value = UUID.sub("ID", re.sub(r"Job: \d+", "Job: N", f"{type(error).__name__}{error.args}"))
    # A chord is given up when a member has failed, and its body is told a little later.
    eventually(result.ready, "it is told")
    return [getattr(result, "state", None), value]


def lines(path):
    """Each once: stock calls the errbacks of a task that ran into its limit twice."""
    with open(path) as file:
        return sorted({line.strip() for line in file})


def main(folder):
    django.setup()
    # With pickled tasks come pickled commands, which only Python reads.
    app.control.mailbox.serializer = "json"
    sent = send(folder)
    ignored = sent.pop("ignored result")
    sent |= revoked(folder)
    found = {name: outcome(result) for name, result in sent.items()}
    chained = sent["lost in a chain"].parent
    found["lost in a chain"].append(outcome(chained))
    found["ignored result"] = ignored.state
    # Those of three that fail; they are called after the results are stored.
    eventually(lambda: len(lines(f"{folder}/errbacks")) == 3, "three are told")
    found["errbacks"], found["hooks"] = lines(f"{folder}/errbacks"), lines(f"{folder}/hooks")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
