"""RedBeat's keys: what is changed there takes effect, and of several beats, stock's or ours, one sends a run."""

import json
import os
import subprocess
import time

import pytest

from faults import eventually
from support import ROOT, SECONDS, Process, Redis, stop_beat
from test_beat_database import HERE, LOOKS, PYTHON

LOCK = "redbeat::lock"
SCHEDULER = "redbeat.RedBeatScheduler"


class Keys:
    """A Redis with the keys, which is the broker too, and beats."""

    def __init__(self, server):
        self.server = server
        self.env = {"KEYED_BROKER": server.broker_url, "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(HERE)])}
        self.beats = []

    def run(self, code):
        """Runs the code, which has the entries at hand."""
        code = f"from keyed import *; from celery.schedules import *; from redbeat.schedules import rrule\n{code}"
        done = subprocess.run([PYTHON, "-c", code], env={**os.environ, **self.env}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def beat(self, kind="celeriac", *options, scheduler=SCHEDULER, **env):
        arguments = ["-A", "keyed", "beat", "-S", scheduler, "-l", "debug", "--pidfile=", *options]
        beat = Process([PYTHON, "-m", kind, *arguments], {**self.env, **env})
        self.beats.append(beat)
        return beat

    def dry_run(self):
        words = ["-A", "keyed", "beat", "-S", SCHEDULER, "--dry-run", "--until", "2s"]
        environment = {**os.environ, **self.env}
        done = subprocess.run([PYTHON, "-m", "celeriac", *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def count(self, name):
        return self.server.length(name)

    def ids(self, name):
        return [message["headers"]["id"] for message in self.server.waiting(name)]

    def runs(self, name):
        """How often it ran, as its entry says."""
        return json.loads(self.server.broker.hget(f"redbeat:{name}", "meta"))["total_run_count"]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("redbeat"))
    yield server
    server.stop()


@pytest.fixture
def keys(redis_server):
    redis_server.broker.flushall()
    keys = Keys(redis_server)
    yield keys
    for beat in keys.beats:
        if not beat.is_stopped:
            beat.kill()


def test_what_is_changed_through_the_entries_takes_effect_within_five_seconds(keys):
    given = {"given": {"task": "task of given", "schedule": 0.5, "options": {"queue": "given"}}}
    keys.server.broker.sadd("redbeat::statics", "gone")
    keys.run("entry('gone').save()")
    beat = keys.beat(scheduler="redbeat.schedulers:RedBeatScheduler", KEYED_SCHEDULE=json.dumps(given))
    beat.output.wait_for(LOOKS)
    eventually(lambda: keys.count("given"), "the entry of the settings is sent")
    assert keys.server.broker.smembers("redbeat::statics") == {b"given"}
    assert 0 < keys.server.broker.ttl(LOCK) <= 30
    keys.run("""
entry("plain", args=[1]).save(), entry("deleted").save(), entry("off", enabled=False).save()
entry("rule", rrule("SECONDLY", count=2)).save()
entry("cron", crontab(minute="*", hour="*")).save().reschedule(app.now().replace(year=2025))
""")
    for name in ("plain", "deleted", "cron", "rule"):
        eventually(lambda: keys.count(name), f"{name} is sent")  # noqa: B023
    [message, *_] = keys.server.waiting("plain")
    headers = message["headers"]
    assert (headers["task"], headers["argsrepr"], headers["celery_beat_task"]) == ("task of plain", "[1]", True)
    keys.run("""
plain = stored("plain"); plain.args = [7]; plain.save()
given = stored("given"); given.enabled = False; given.save()
stored("deleted").delete(); off = stored("off"); off.enabled = True; off.save()
""")
    eventually(lambda: keys.server.waiting("plain")[-1]["headers"]["argsrepr"] == "[7]", "other arguments are sent")
    eventually(lambda: keys.count("off"), "what is enabled is sent")
    sent = {name: keys.count(name) for name in ("given", "deleted")}
    more = keys.count("plain") + 2
    eventually(lambda: keys.count("plain") >= more, "others are sent")
    assert {name: keys.count(name) for name in sent} == sent, "what is disabled or deleted is sent no more"
    assert beat.stop() == 0
    # Its second time was its last.
    assert (keys.count("rule"), keys.server.broker.zscore("redbeat::schedule", "redbeat:rule")) == (1, -1)
    assert not keys.server.broker.exists(LOCK, "redbeat:gone", "redbeat:deleted")
    assert (keys.runs("plain"), keys.runs("given")) == (keys.count("plain"), keys.count("given"))


def test_an_entry_that_is_malformed_hinders_no_other(keys):
    """As with stock, which says so at each of its runs."""
    keys.run("""
entry("bad", args=16).save(), entry("odd", kwargs=["a"]).save(), entry("plain").save()
entry("nameless").save(); app.redbeat_redis.hset("redbeat:nameless", "meta", '{"last_run_at": "today"}')
""")
    beat = keys.beat()
    beat.output.wait_for("Failed to load redbeat:nameless")
    for name in ("bad", "odd"):
        beat.output.wait_for(f"(?s)(Couldn't apply scheduled task {name}.*){{2}}")
    eventually(lambda: keys.count("plain") >= 2, "others are sent")
    # And what is changed takes effect as ever.
    keys.run("bad = stored('bad'); bad.args = [7]; bad.save()")
    eventually(lambda: keys.count("bad"), "what was put right is sent")
    assert beat.stop() == 0
    assert keys.count("odd") == 0


def test_stock_and_ours_take_turns(keys):
    keys.run("entry('turn').save(), entry('off', enabled=False).save()")
    stands = {key: keys.server.broker.dump(key) for key in keys.server.broker.keys()}
    dry = keys.dry_run()
    assert "turn" in dry and "off" not in dry
    assert {key: keys.server.broker.dump(key) for key in keys.server.broker.keys()} == stands
    began, sent, leader = time.monotonic(), 0, None
    for kind in ("celery", "celeriac", "celery", None):
        follower = kind and keys.beat(kind, "--max-interval", "1")
        if leader:
            if follower:
                # It waits for the lock, and sends nothing meanwhile.
                follower.output.wait_for("beat: Acquiring lock|Another beat leads", timeout=2 * SECONDS)
            stop_beat(leader)
            assert leader.output.wait_for("beat: Releasing lock")
        if follower:
            follower.output.wait_for("beat: Acquired lock", timeout=2 * SECONDS)
            sent = keys.count("turn")
            eventually(lambda: keys.count("turn") >= sent + 2, f"{kind} sends")  # noqa: B023
        leader = follower
    ids = keys.ids("turn")
    # Each has written down what it sent.
    assert len(set(ids)) == len(ids) == keys.runs("turn") <= (time.monotonic() - began) / 0.5 + 1
    assert not keys.server.broker.exists(LOCK)


def test_another_goes_on_for_one_that_is_killed(keys):
    keys.run("entry('often', 0.2).save()")
    began = time.monotonic()
    first = keys.beat(KEYED_LOCK="5")
    first.output.wait_for("beat: Acquired lock", timeout=2 * SECONDS)
    second = keys.beat(KEYED_LOCK="5")
    second.output.wait_for("Another beat leads", timeout=2 * SECONDS)
    eventually(lambda: keys.count("often") >= 5, "it is sent")
    first.kill()
    sent = keys.count("often")
    second.output.wait_for("beat: Acquired lock")
    eventually(lambda: keys.count("often") >= sent + 5, "the other one sends it")
    # Whoever takes the lock away has the schedule.
    mark = second.output.mark()
    keys.server.broker.set(LOCK, "another")
    runs = keys.runs("often")
    second.output.wait_for("The lock was lost", since=mark)
    assert keys.runs("often") == runs, "not one run more, though it had yet to look"
    sent = keys.count("often")
    keys.server.broker.delete(LOCK)
    eventually(lambda: keys.count("often") > sent, "it leads again")
    assert second.stop() == 0
    ids, runs = keys.ids("often"), keys.runs("often")
    assert len(set(ids)) == len(ids)
    # One that is killed between writing down a run and sending it leaves it out.
    assert runs - 1 <= len(ids) <= runs
    assert len(ids) <= (time.monotonic() - began) / 0.2 + 1
