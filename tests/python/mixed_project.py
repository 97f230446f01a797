"""The project `mixed` from outside: what its workers and clients are told, and chords for them to do."""

import json
import os

from support import ROOT, SECONDS, run

HERE = os.path.dirname(__file__)
#: Where `scripts/rust_tasks.sh` puts the example's module.
MODULE = str(ROOT / ".build" / "rust_tasks")
#: A client's script: prints what a chord comes to of which a member fails.
CHORDS = f"""
from celery import chord
from mixed import add, shop_rust
sent = []
for body in [shop_rust.total.s(), add.s(y=[])] * 5:
    members = [member for n in range(10) for member in (shop_rust.total.s([n]), add.s(n, n))]
    sent.append((chord(members)(body), body))
for result, body in sent:
    told = result.get(timeout={SECONDS})
    assert (told if body.task.startswith("shop_rust") else sum(told)) == 135, told
failing = chord([add.s(1, 1), shop_rust.fail.s("mixed.OutOfStock", "salt")])(shop_rust.total.s())
print(failing.get(timeout={SECONDS}, propagate=False))
"""


def environment(server, **settings):
    path = os.pathsep.join([str(ROOT / "python"), HERE, MODULE])
    names = {"MIXED_BROKER": server.broker_url, "MIXED_RESULTS": server.result_url, "PYTHONPATH": path}
    return names | ({"MIXED_SETTINGS": json.dumps(settings)} if settings else {})


def chords(server, start_mixed, beside, shown, script=CHORDS, **settings):
    """What a client of that script prints beside a worker that shows these results, alone or with a stock one."""
    worker = start_mixed("celeriac", "-c", "2", "-n", f"ours@{beside.replace(' ', '-')}", **settings)
    worker.output.wait_for(rf"results: +{shown}", timeout=SECONDS)
    if beside != "alone":
        start_mixed("celery", "-c", "2", "-n", "stock@chords", **settings)
    return run(environment(server, **settings), "-c", script)
