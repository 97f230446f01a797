"""django-celery-beat's tables: what is changed there takes effect, and of several beats, stock's or ours, one sends a run."""

import json
import os
import pathlib
import subprocess
import time
from datetime import datetime, timedelta, timezone

import pytest

from faults import eventually
from support import ROOT, SECONDS, Process, Redis, stop_beat

PYTHON = pathlib.Path(os.environ.get("CELERIAC_BEAT_PYTHON") or ROOT / ".build" / "venv-beat" / "bin" / "python")
HERE = pathlib.Path(__file__).parent
#: What beat says of how often it looks: what is measured from here would be how busy the machine is.
LOOKS = "Ticking with max interval->5.00 seconds"


class Tables:
    """A database with the tables, a broker, and beats."""

    def __init__(self, broker, database):
        self.broker = broker
        self.env = {
            "TABLED_BROKER": broker.broker_url, "TABLED_DATABASE": json.dumps(database),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(HERE)]),
        }
        self.beats = []
        self.run("from django.core.management import call_command; call_command('migrate', verbosity=0)")

    def run(self, code):
        """What the code prints, which has the models at hand."""
        code = f"import tabled; from django_celery_beat.models import *; from datetime import *\n{code}"
        done = subprocess.run([PYTHON, "-c", code], env={**os.environ, **self.env}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def beat(self, kind="celeriac", schedule=None):
        env = {**self.env, "TABLED_SCHEDULE": json.dumps(schedule or {})}
        arguments = ["-A", "tabled", "beat", "-l", "debug", "--pidfile="]
        beat = Process([PYTHON, "-m", kind, *arguments], env)
        beat.output.wait_for("beat: Starting", timeout=2 * SECONDS)
        self.beats.append(beat)
        return beat

    def rows(self):
        """Of each row by its name: whether it is enabled, how often it ran, and when."""
        fields = "name", "enabled", "total_run_count", "last_run_at"
        code = f"import json; print(json.dumps([list(map(str, row)) for row in PeriodicTask.objects.values_list(*{fields})]))"
        return {name: tuple(rest) for name, *rest in json.loads(self.run(code))}

    def runs(self, name):
        return int(self.rows()[name][1])

    def count(self, name):
        return self.broker.length(name)

    def ids(self, name):
        return [message["headers"]["id"] for message in self.broker.waiting(name)]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("beat"))
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request, tmp_path_factory):
    if request.param == "sqlite":
        file = str(tmp_path_factory.mktemp("tables") / "db.sqlite3")
        # What reads before it writes would fail at once, and not wait, where another has written in between.
        options = {"transaction_mode": "IMMEDIATE"}
        yield {"ENGINE": "django.db.backends.sqlite3", "NAME": file, "OPTIONS": options}
        return
    server = request.getfixturevalue("postgres")
    yield {
        "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "celeriac", "HOST": "127.0.0.1", "PORT": server.port,
    }


@pytest.fixture
def tables(redis_server, database):
    tables = Tables(redis_server, database)
    tables.run("PeriodicTask.objects.all().delete()")
    redis_server.broker.flushall()
    yield tables
    for beat in tables.beats:
        if not beat.is_stopped:
            beat.kill()


def test_what_is_changed_through_the_models_takes_effect_within_five_seconds(tables):
    beat = tables.beat(schedule={"given": {"task": "task of given", "schedule": 0.5, "options": {"queue": "given"}}})
    beat.output.wait_for(LOOKS)
    eventually(lambda: tables.count("given"), "the entry of the settings is sent")
    start = tables.run("""
start = datetime.now(timezone.utc) + timedelta(seconds=3)
tabled.interval("plain", 300000, args="[1]", headers='{"mine": 2}', priority=3)
tabled.interval("once", 300000, one_off=True)
tabled.interval("later", 300000, start_time=start)
tabled.interval("seldom", 1800 * 1000000, start_time=start)
tabled.interval("over", 300000, expires=datetime.now(timezone.utc) + timedelta(seconds=2))
tabled.interval("broken", 300000, args="[")
clock = ClockedSchedule.objects.create(clocked_time=datetime.now(timezone.utc) + timedelta(seconds=1))
PeriodicTask.objects.create(name="clocked", task="t", clocked=clock, one_off=True, queue="clocked", expire_seconds=60)
print(start.isoformat())
""")
    for name in ("plain", "once", "later", "seldom", "clocked"):
        eventually(lambda: tables.count(name), f"{name} is sent")  # noqa: B023
    of_priority_3 = "plain\x06\x163"
    [message, *_] = tables.broker.waiting(of_priority_3)
    headers = message["headers"]
    assert (headers["task"], headers["argsrepr"], headers["mine"]) == ("task of plain", "[1]", 2)
    assert (headers["periodic_task_name"], headers["celery_beat_task"]) == ("plain", True)
    assert message["properties"]["priority"] == 3
    eventually(lambda: tables.rows()["over"][0] == "False", "what has expired is disabled")
    rows = tables.rows()
    assert rows["broken"][0] == "False"
    assert tables.count("seldom") == 1
    assert datetime.fromisoformat(rows["seldom"][2]) >= datetime.fromisoformat(start.strip()), "it began to run at its start"
    for name in ("once", "clocked"):
        assert (rows[name], tables.count(name)) == (("False", "0", "None"), 1)
    tables.run("row = PeriodicTask.objects.get(name='plain'); row.args = '[7]'; row.save()")
    eventually(lambda: tables.broker.waiting(of_priority_3)[-1]["headers"]["argsrepr"] == "[7]", "other arguments are sent")
    mark = beat.output.mark()
    tables.run("row = PeriodicTask.objects.get(name='given'); row.enabled = False; row.save()")
    beat.output.wait_for("Schedule changed.", since=mark)
    sent = tables.count("given")
    eventually(lambda: tables.count("plain") >= 4 and tables.count("later") >= 3, "others are sent")
    assert tables.count("given") <= sent + 1, "what is disabled is sent no more"
    assert beat.stop() == 0


def test_a_row_that_cannot_be_told_hinders_no_other(tables):
    """Stock logs each time that it cannot calculate its next run; what is sent with arguments that are none, both refuse."""
    tables.run("""
yearly = CrontabSchedule.objects.create(minute=0, hour=0, day_of_month=1, month_of_year=1, timezone="UTC")
start = datetime(9999, 12, 31, 20, tzinfo=timezone.utc)
PeriodicTask.objects.create(name="beyond", task="t", crontab=yearly, start_time=start, queue="beyond")
tabled.interval("odd", 300000, args="16")
tabled.interval("plain", 300000)
""")
    beat = tables.beat()
    beat.output.wait_for("The row beyond is left out")
    beat.output.wait_for("(?s)Couldn't apply scheduled task odd.*Couldn't apply scheduled task odd")
    eventually(lambda: tables.count("plain") >= 2, "others are sent")
    assert beat.stop() == 0
    assert tables.count("odd") == 0


def test_a_dry_run_foresees_what_has_a_start_time(tables):
    start = (datetime.now(timezone.utc) + timedelta(hours=1)).replace(microsecond=0)
    tables.run(f"tabled.interval('later', 1800000000, start_time=datetime.fromisoformat({start.isoformat()!r}))")
    words = ["-A", "tabled", "beat", "--dry-run", "--until", "100m"]
    ended = subprocess.run([PYTHON, "-m", "celeriac", *words], env={**os.environ, **tables.env}, capture_output=True, text=True)
    runs = [line.split("  ")[0] for line in ended.stdout.splitlines() if "  later (" in line]
    assert [datetime.fromisoformat(run) for run in runs] == [start, start + timedelta(minutes=30)], ended
    assert tables.count("later") == 0


def test_of_several_beats_one_sends_a_run_though_they_are_killed(tables):
    every = 0.2
    tables.run("tabled.interval('often', 200000)\ntabled.interval('other', 250000)")
    began = time.monotonic()
    first, second = tables.beat(), tables.beat()
    eventually(lambda: tables.count("often") >= 10, "it is sent")
    first.kill()
    sent = tables.count("often")
    eventually(lambda: tables.count("often") >= sent + 10, "the other one sends it")
    assert second.stop() == 0
    took = time.monotonic() - began
    for name in ("often", "other"):
        ids, runs = tables.ids(name), tables.runs(name)
        assert len(set(ids)) == len(ids)
        # One that is killed between writing down a run and sending it leaves it out.
        assert runs - 1 <= len(ids) <= runs
    assert tables.count("often") <= took / every + 1


def test_stock_and_ours_take_turns(tables):
    tables.run("tabled.interval('turn', 500000)")
    began, sent = time.monotonic(), 0
    for kind in ("celery", "celeriac", "celery"):
        beat = tables.beat(kind)
        eventually(lambda: tables.count("turn") >= sent + 3, f"{kind} sends")  # noqa: B023
        stop_beat(beat)
        sent = tables.count("turn")
        # Each has written down what it sent.
        assert tables.runs("turn") == sent, kind
    ids = tables.ids("turn")
    assert len(set(ids)) == len(ids) == sent <= (time.monotonic() - began) / 0.5 + 1
