"""Boot steps and options of the project's own: run as under a stock worker, or refused by their names."""

import json
import os
import subprocess
import sys

import pytest

from faults import eventually
from support import ROOT, SECONDS
from test_prefork import Celeriac, HERE
from test_signals import stock

pytestmark = pytest.mark.only("redis", "a step meets no broker")


def environment(server, path, queue, **more):
    names = {"STEPPED_BROKER": server.broker_url, "STEPPED_FILE": str(path), "STEPPED_QUEUE": queue}
    return {**names, "DJANGO_SETTINGS_MODULE": "", **more}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lived(run, server, path, queue, end, *options):
    """What a worker has written down, from start to stop."""
    arguments = ["-A", "stepped", "worker", "-n", "stepped@test", "--without-gossip", "-c", "1", *options]
    worker = run(*arguments, env=environment(server, path, queue))
    for waited in (["ready"], ["ticked"]):
        eventually(lambda: waited in lines(path), lambda: worker.output.text())
    end(worker)
    return lines(path)


def warmly(worker):
    assert worker.stop() == 0, worker.output.text()


def test_they_run_in_order_as_under_a_stock_worker(server, tmp_path):
    options = ["--shelf=top", "-l", "info", "--dusty"]
    expected = lived(stock, server, tmp_path / "stock", "stepped-stock", warmly, *options)
    found = lived(Celeriac, server, tmp_path / "ours", "stepped-ours", warmly, *options)
    assert [line for line in found if line[0] == "Base" and line[1] == "made"] == [
        ["Base", "made", "Worker", True, "stepped@test", "top", True]
    ]
    # Which of two comes first that do not require each other Celery leaves open.
    for name in [None, "Base", "Above", "Left", "Consuming"]:
        of = [[line for line in lived if name is None or line[0] == name] for lived in (found, expected)]
        assert of[0] == of[1] if name else sorted(map(str, of[0])) == sorted(map(str, of[1]))
    for before, after in [
        (["Base", "started"], ["Above", "started"]), (["Above", "started"], ["service started"]),
        (["service started"], ["Consuming", "started"]), (["Consuming", "started"], ["ready"]),
        (["ready"], ["Consuming", "stopped"]), (["Consuming", "stopped"], ["service stopped"]),
        (["service stopped"], ["Above", "stopped"]), (["Above", "stopped"], ["Base", "stopped"]),
        (["Base", "stopped"], ["Consuming", "shut down"]), (["Consuming", "shut down"], ["shutdown"]),
    ]:  # fmt: skip
        for lived_by in (found, expected):
            starts = [line[: len(before)] for line in lived_by].index(before)
            assert starts < [line[: len(after)] for line in lived_by].index(after), (before, after, lived_by)


def test_what_cannot_run_is_refused_by_name(server, tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), HERE])}
    env.update(environment(server, tmp_path / "refused", "refused", STEPPED_OWN="1"))
    for command in (["worker"], ["config", "check"]):
        line = [sys.executable, "-m", "celeriac", "-A", "stepped", *command]
        ended = subprocess.run(line, env=env, capture_output=True, text=True, timeout=2 * SECONDS)
        said = ended.stdout + ended.stderr
        assert ended.returncode == 1, said
        assert "the boot step stepped.Looping: it requires celery.worker.components.Hub" in said
        assert ("the boot step stepped.Own: it consumes messages of its own" in said) == (command != ["worker"])
    assert not lines(tmp_path / "refused")


def test_one_that_cannot_start_ends_the_worker(server, tmp_path):
    path = tmp_path / "failing"
    env = environment(server, path, "failing", STEPPED_FAILS="1")
    worker = Celeriac("-A", "stepped", "worker", "-n", "failing@test", "-c", "1", env=env)
    eventually(lambda: not worker.is_running(), lambda: worker.output.text())
    assert worker.stop() == 1
    worker.output.wait_for(r"Unrecoverable error: KeyError\('no such shelf'\)")
    assert ["shutdown"] in lines(path)
