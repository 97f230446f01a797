"""``celeriac beat`` and ``worker -B``: what is due is sent once, as Celery's beat sends it, whatever happens to who sends it."""

import collections
import datetime
import json
import os
import re
import shelve
import signal
import subprocess
import sys
import time

import pytest
from kombu.utils.json import loads

from faults import eventually
from support import EXAMPLE_WORKER, ROOT, SECONDS, Process, free_port, stop_beat
from test_prefork import Celeriac, HERE
from test_signals import stock

pytestmark = pytest.mark.only("redis", "beat sends over whatever Celery has, and who runs it is tested elsewhere")
FILE = "celerybeat-schedule"
KILLS = 6
OURS = f"{FILE}.celeriac.json"


class Project:
    """The project's settings for one test, and what its tasks noted."""

    def __init__(self, server, folder, name, **schedule):
        self.server, self.folder, self.queue = server, folder, name
        self.log = folder / "log"
        self.environment = {
            "BEATEN_BROKER": server.broker_url, "BEATEN_RESULTS": server.result_url, "BEATEN_QUEUE": name,
            "BEATEN_LOG": str(self.log), "BEATEN_SCHEDULE": json.dumps(schedule), "DJANGO_SETTINGS_MODULE": "",
        }

    def with_(self, **more):
        """The same in another environment."""
        other = Project(self.server, self.folder, self.queue)
        other.environment = {**self.environment, **more}
        return other

    def beat(self, *options, run=Celeriac, level="debug"):
        given = ["-s", str(self.folder / FILE), "-l", level, *options]
        return run("-A", "beaten", "beat", *given, env=self.environment)

    def worker(self, *options, run=Celeriac):
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "info", "-c", "1"]
        worker = run("-A", "beaten", "worker", *quiet, *options, env=self.environment)
        worker.output.wait_for(r"ready\.", timeout=4 * SECONDS)
        return worker

    def line(self, *words):
        """What a command line says."""
        path = os.pathsep.join([str(ROOT / "python"), HERE])
        environment = {**os.environ, "PYTHONPATH": path, **self.environment}
        command = [sys.executable, "-m", "celeriac", "-A", "beaten", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=4 * SECONDS)

    def noted(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def counts(self):
        return collections.Counter(run["words"][0] for run in self.noted())

    def keep(self, **ago):
        """Writes down that entries ran so long ago."""
        now = datetime.datetime.now(datetime.timezone.utc)
        entries = {name: {"last_run_at": f"{now - since:%Y-%m-%dT%H:%M:%SZ}", "total_run_count": 0} for name, since in ago.items()}
        content = {"celeriac-beat": 1, "timezone": "Europe/Berlin", "enable_utc": True, "entries": entries}
        (self.folder / OURS).write_text(json.dumps(content))

    def kept(self):
        return json.loads((self.folder / OURS).read_text())["entries"]


def note(schedule, *words, **more):
    return {"task": "beaten.note", "schedule": schedule, "args": words, **more}


@pytest.fixture
def project(server, tmp_path, request):
    def make(**schedule):
        return Project(server, tmp_path, request.node.originalname, **schedule)

    yield make


def headers(server, queue):
    envelope = server.take(queue)
    return envelope, envelope["headers"]


@pytest.mark.parametrize("run", [stock, Celeriac], ids=["stock", "ours"])
def test_it_sends_what_stock_sends(run, project, server):
    """Task options, routing, lazy arguments, entries that are added late, signals: the same message from both."""
    given = project(
        lazy={"task": "beaten.note", "schedule": "second", "lazy": "ab"},
        unknown={"task": "other.task", "schedule": "second", "kwargs": {"x": 1}, "options": {
            "queue": f"elsewhere-{run.__name__}", "expires": 60, "priority": 3, "headers": {"mine": 1},
        }},
    ).with_(BEATEN_ADDED="1")
    beat = given.beat(run=run)
    beat.output.wait_for("signal beat_init of Service")
    beat.output.wait_for(r"Scheduler: Sending due task added \(beaten.note\)")
    beat.output.wait_for("publishes other.task")
    envelope, sent = headers(server, f"elsewhere-{run.__name__}\x06\x163")
    assert (sent["task"], sent["celery_beat_task"], sent["mine"], sent["published"]) == ("other.task", True, 1, True)
    assert envelope["properties"]["priority"] == 3 and sent["expires"]
    texts = set()
    while len(texts) < 2:
        envelope, sent = headers(server, given.queue)
        assert sent["celery_beat_task"] is True and sent["published"] is True, sent
        texts.add(sent["argsrepr"])
    assert texts == {"['abab']", "['added']"}
    assert stop_beat(beat) == 0
    assert given.noted() == []
    server.broker.delete(given.queue)


def test_sentry_watches_what_beat_sends(project, server):
    """Its integration replaces what Celery's beat sends an entry with."""
    given = project(nightly=note("hour", "nightly")).with_(BEATEN_SENTRY="1")
    given.keep(nightly=datetime.timedelta(hours=2))
    beat = given.beat()
    _, sent = headers(server, given.queue)
    assert sent["sentry-monitor-slug"] == "nightly", sent
    assert beat.stop() == 0
    server.broker.delete(given.queue)


def test_a_stock_worker_runs_it_and_the_log_is_celerys(project):
    given = project(tick=note("second", "tick"), half=note("half", "half"))
    worker = given.worker(run=stock)
    beat = given.beat("--max-interval", "2")
    eventually(lambda: min(given.counts()[name] for name in ("tick", "half")) >= 2, given.noted)
    assert all(run["beat"] is True for run in given.noted())
    for line in ["celeriac beat v.* is starting", "Configuration ->", f"db -> .*{OURS}", r"maxinterval -> 2.00 seconds \(2s\)",
                 "INFO/MainProcess] beat: Starting...", "DEBUG/MainProcess] beat: Waking up in "]:
        beat.output.wait_for(line.replace("Process]", r"Process\]"))
    assert beat.stop() == 0
    beat.output.wait_for("beat: Shutting down...")
    assert worker.stop() == 0


def test_a_restart_keeps_when_each_ran(project, server):
    """Also where the schedule has changed since; what is gone is forgotten."""
    given = project(nightly=note("hour", "nightly"), gone=note("second", "gone"))
    beat = given.beat()
    beat.output.wait_for("Sending due task gone")
    assert beat.stop() == 0
    before = given.kept()
    changed = given.with_(BEATEN_SCHEDULE=json.dumps({"nightly": note("nightly", "nightly"), "new": note("hour", "new")}))
    beat = changed.beat()
    beat.output.wait_for("beat: Starting")
    assert beat.stop() == 0
    after = given.kept()
    assert after["nightly"] == before["nightly"]
    assert "gone" not in after and after["new"]["total_run_count"] == 0
    server.broker.delete(given.queue)


def test_what_was_missed_is_sent_once(project, server):
    given = project(hourly=note("hour", "late"))
    given.keep(hourly=datetime.timedelta(days=3))
    beat = given.beat()
    server.take(given.queue)
    beat.output.wait_for("Waking up in")
    assert beat.stop() == 0
    assert server.length(given.queue) == 0
    assert given.kept()["hourly"]["total_run_count"] == 1


def test_a_broken_file_is_put_aside_and_another_zone_begins_anew(project, server):
    given = project(nightly=note("nightly"))
    (given.folder / OURS).write_text('{"celeriac-beat": 1, "ent')
    beat = given.beat()
    beat.output.wait_for(f"Removing corrupted schedule file .*{OURS}")
    beat.output.wait_for("beat: Starting")
    assert beat.stop() == 0
    assert (given.folder / f"{OURS}.corrupt").read_text() == '{"celeriac-beat": 1, "ent'
    before = given.kept()["nightly"]
    moved = given.with_(BEATEN_ZONE="America/New_York")
    beat = moved.beat()
    beat.output.wait_for("Reset: Timezone changed from 'Europe/Berlin' to 'America/New_York'")
    beat.output.wait_for("beat: Starting")
    assert beat.stop() == 0
    assert given.kept()["nightly"]["last_run_at"] > before["last_run_at"]


def test_what_celerys_beat_wrote_down_is_taken_over_once(project, server):
    """A file of stock's beat: what ran two hours ago is due, and what ran just now is not."""
    given = project(hourly=note("hour", "hourly"), other=note("hour", "other"))
    beat = given.beat(run=stock)
    beat.output.wait_for("beat: Waking up in")
    assert beat.stop() == 0
    with shelve.open(str(given.folder / FILE)) as theirs:
        entries = theirs["entries"]
        entries["hourly"].last_run_at -= datetime.timedelta(hours=2)
        entries["other"].total_run_count, other = 7, entries["other"].last_run_at
        theirs["entries"] = entries
    # Who asks before that is told the same, and changes nothing.
    before = sorted(os.listdir(given.folder))
    dry = given.line("beat", "--dry-run", "--until", "59m", "-s", str(given.folder / FILE))
    first, *more = dry.stdout.splitlines()
    assert dry.returncode == 0 and first.endswith("  hourly (beaten.note)") and not more, dry
    assert sorted(os.listdir(given.folder)) == before
    beat = given.beat()
    beat.output.wait_for(rf"Took over when \d entries ran last from Celery's schedule file .*{FILE}")
    beat.output.wait_for("Sending due task hourly")
    assert beat.stop() == 0
    assert "Sending due task other" not in beat.output.text()
    kept = given.kept()["other"]
    assert datetime.datetime.fromisoformat(kept["last_run_at"].replace("Z", "+00:00")) == other
    assert kept["total_run_count"] == 7
    # The next start goes on from our own.
    beat = given.beat()
    beat.output.wait_for("beat: Waking up in")
    assert beat.stop() == 0
    assert "Took over" not in beat.output.text() and "Sending due task" not in beat.output.text()
    server.broker.delete(given.queue)


def test_what_celerys_beat_wrote_down_and_nobody_can_read_is_told_of(project):
    given = project(hourly=note("hour", "hourly"))
    with shelve.open(str(given.folder / FILE)) as theirs:
        theirs["entries"] = {"hourly": "no entry"}
    told = "Celery's schedule file .* cannot be read: all entries count as run just now"
    dry = given.line("beat", "--dry-run", "--until", "59m", "-s", str(given.folder / FILE))
    assert dry.returncode == 0 and not dry.stdout and re.search(told, dry.stderr), dry
    beat = given.beat()
    beat.output.wait_for(told)
    beat.output.wait_for("beat: Waking up in")
    assert beat.stop() == 0


def test_no_run_is_doubled_when_beat_is_killed(project):
    """In the midst of its ticks, each time at another one: the runs are told apart by a log outside of the broker."""
    given = project(**{f"e{i}": note("second", f"e{i}") for i in range(5)})
    worker = given.worker()
    for turn in range(KILLS):
        beat = given.beat(level="info")
        # The last of these may have been sent or not.
        beat.output.wait_for(f"(?s)(Sending due task.*){{{turn + 2}}}", timeout=2 * SECONDS)
        beat.kill()
    # What the last one kept and did not begin to send is due again.
    beat = given.beat(level="info")
    beat.output.wait_for("Sending due task")
    assert beat.stop() == 0
    eventually(lambda: given.server.length(given.queue) == 0, "the queue is empty")
    assert worker.stop() == 0
    runs = given.counts()
    kept = {name: run["total_run_count"] for name, run in given.kept().items() if name.startswith("e")}
    assert runs, "something ran"
    for name, count in kept.items():
        # What was kept and not sent was lost with its beat.
        assert runs[name] <= count, (name, count, runs)
    assert sum(kept.values()) - KILLS <= sum(runs.values())
    assert sum(runs.values()) == len({run["id"] for run in given.noted()})


def limited(*arguments, env):
    """A beat that may do no more than the modes of files say, as root may otherwise."""
    command = [sys.executable, "-m", "celeriac", *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    return Process(command, {"PYTHONPATH": os.pathsep.join([str(ROOT / "python"), HERE]), **env})


def test_no_run_is_doubled_where_the_folder_cannot_be_flushed(project, server, tmp_path):
    """What can be written and not read cannot be flushed: it is told of, and what was sent is known as sent nevertheless."""
    names = [f"e{i}" for i in range(3)]
    given = project(**{name: note("hour", name) for name in names})
    given.folder = tmp_path / "folder"
    given.folder.mkdir()
    given.keep(**dict.fromkeys(names, datetime.timedelta(hours=2)))
    given.folder.chmod(0o300)
    try:
        beat = given.beat(run=limited)
        beat.output.wait_for("Cannot keep that 3 tasks that are due were sent: write the schedule file .*: .*ermission denied")
        beat.output.wait_for("(?s)(Sending due task e.*){3}Waking up in")
        beat.kill()
        beat = given.beat(run=limited)
        beat.output.wait_for("beat: Waking up in")
        # The last runs are written then, too.
        assert beat.stop() == 1
        assert "Sending due task" not in beat.output.text()
    finally:
        given.folder.chmod(0o700)
    assert server.length(given.queue) == 3
    assert {run["total_run_count"] for run in given.kept().values()} == {1}
    server.broker.delete(given.queue)


def test_the_second_of_two_beats_waits_for_the_first(project, server):
    given = project(tick=note("second", "tick"))
    first = given.beat()
    first.output.wait_for("Sending due task tick")
    second = given.beat()
    second.output.wait_for("another beat has .*: this one waits until it ends")
    first.kill()
    second.output.wait_for("Sending due task tick")
    assert second.stop() == 0
    third = given.beat()
    third.output.wait_for("beat: Starting")
    assert third.stop() == 0
    server.broker.delete(given.queue)


def test_two_workers_with_a_beat_send_once(project):
    """And a worker that is killed leaves no beat behind: the other one's takes over."""
    given = project(tick=note("second", "tick"))
    options = ["-B", "-s", str(given.folder / FILE)]
    workers = [given.worker(*options, "-n", f"w{i}@test") for i in range(2)]
    beats = [child(worker.pid) for worker in workers]
    eventually(lambda: len(given.noted()) >= 3, given.noted)
    leader = next(i for i in range(2) if "Sending due task" in workers[i].output.text())
    assert "Sending due task" not in workers[1 - leader].output.text()
    workers[leader].output.wait_for("signal beat_embedded_init")
    since = workers[1 - leader].output.mark()
    workers[leader].kill()
    workers[1 - leader].output.wait_for("Sending due task tick", since=since)
    eventually(lambda: not is_alive(beats[leader]), "its beat is gone")
    assert workers[1 - leader].stop() == 0
    assert not is_alive(beats[1 - leader])
    total = given.kept()["tick"]["total_run_count"]
    assert len(given.noted()) <= total
    assert len({run["id"] for run in given.noted()}) == len(given.noted())


def test_a_worker_that_begins_again_has_one_beat(project):
    given = project(tick=note("second", "tick"))
    worker = given.worker("-B", "-s", str(given.folder / FILE))
    former = child(worker.pid)
    worker.output.wait_for("Sending due task tick")
    since = worker.output.mark()
    os.kill(worker.pid, signal.SIGHUP)
    worker.output.wait_for(r"(?s)ready\..*Sending due task tick", since=since)
    eventually(lambda: not is_alive(former), "the former beat is gone")
    assert worker.stop() == 0


def test_a_workers_beat_that_is_killed_is_followed_by_another(project):
    """And a keeper that is killed leaves it to go on, and to end with the worker."""
    given = project(tick=note("second", "tick"))
    worker = given.worker("-B", "-s", str(given.folder / FILE))
    worker.output.wait_for("Sending due task tick")
    former, since = child(worker.pid), worker.output.mark()
    os.kill(former, signal.SIGKILL)
    ended = rf"The process {former} ended though nobody stopped it \(signal 9 \(SIGKILL\)\): another one begins in 1.00 second"
    worker.output.wait_for(rf"(?s){ended}.*signal beat_embedded_init.*Sending due task tick", since=since)
    beat = child(worker.pid)
    assert beat != former
    since = worker.output.mark()
    os.kill(keeper(worker.pid), signal.SIGKILL)
    worker.output.wait_for("(?s)(Sending due task tick.*){2}", since=since)
    assert worker.stop() == 0
    assert not is_alive(beat)
    assert len({run["id"] for run in given.noted()}) == len(given.noted()) <= given.kept()["tick"]["total_run_count"]


def keeper(pid):
    """The process that keeps the beat of a worker: the first that the worker forked."""
    return children(pid)[0]


def child(pid):
    """The process of the beat of a worker."""
    mine = keeper(pid)
    eventually(lambda: children(mine), "there is a beat")
    return children(mine)[0]


def children(pid):
    return [int(one) for one in open(f"/proc/{pid}/task/{pid}/children").read().split()]


def is_alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_waits_for_a_broker_that_is_away(project, server):
    port = free_port()
    given = project(tick=note("second", "tick")).with_(BEATEN_BROKER=f"redis://127.0.0.1:{port}/0")
    beat = given.beat()
    beat.output.wait_for(r"beat: Connection error: .*Trying again in 2.0 seconds\.\.\.")
    began = time.monotonic()
    assert beat.stop() == 0
    assert time.monotonic() - began < 8


def test_a_scheduler_that_is_nobodys_runs_in_celerys_beat(project, server):
    given = project(tick=note("second", "tick"))
    beat = given.beat("-S", "beaten:Own")
    beat.output.wait_for("The scheduler beaten:Own runs in Celery's own beat")
    beat.output.wait_for("own scheduler applies tick")
    server.take(given.queue)
    # In the midst of sending, a signal may be lost to what Celery's own beat is in.
    beat.output.wait_for("(?s)applies tick.*sent. id.*Waking up")
    assert beat.stop() == 0
    server.broker.delete(given.queue)


def test_what_an_entry_raises_hinders_no_other(project, server):
    lazy = {"task": "beaten.note", "schedule": "second", "lazy": "/nowhere"}
    beat = project(tick=note("second", "tick"), lost=lazy, odd={"schedule": "second"}).beat("-S", "redis")
    beat.output.wait_for("The entry odd has no task, and is left out")
    beat.output.wait_for("(?s)No such file or directory.*Sending due task tick.*No such file or directory.*Sending due task tick")
    assert beat.stop() == 0


def test_an_entry_that_is_malformed_hinders_no_other(project, server):
    """As with stock, which says of some of these when it looks that it cannot calculate their next run."""
    beaten = {"task": "beaten.note", "schedule": "second"}
    given = project(
        tick=note("second", "tick"), number={**beaten, "args": 16}, listed={**beaten, "kwargs": ["a"]},
        optional={**beaten, "options": 16}, never=note("never"), empty=note("empty"), minutely=note("read once"),
    )  # fmt: skip
    dry = given.line("beat", "--dry-run", "--until", "2m", "-s", str(given.folder / FILE))
    assert dry.returncode == 0, dry
    assert "The entry empty is left out: " in dry.stderr, dry
    assert dry.stdout.count("  minutely (beaten.note)") == 2 and "  empty (" not in dry.stdout, dry
    for scheduler in ([], ["-S", "redis"]):
        beat = given.beat(*scheduler)
        beat.output.wait_for("The entry empty is left out: .*A list is empty")
        beat.output.wait_for("Cannot calculate the next run of 'never', trying again in ")
        for name in ("number", "listed", "optional"):
            beat.output.wait_for(f"(?s)(Couldn't apply scheduled task {name}.*){{2}}")
        beat.output.wait_for("(?s)(Sending due task tick.*){2}")
        assert beat.stop() == 0
    server.broker.delete(given.queue)


@pytest.mark.parametrize("run", [stock, Celeriac], ids=["stock", "ours"])
def test_a_schedule_that_does_not_say_when_to_ask_again_is_asked_again(run, project, server):
    given = project(silent=note("silent", "silent"))
    beat = given.beat("--max-interval", "1", run=run)
    beat.output.wait_for("(?s)(Sending due task silent.*){2}")
    assert stop_beat(beat) == 0
    server.broker.delete(given.queue)


def test_ctrl_c_ends_it(project, server):
    beat = project(tick=note("second", "tick")).beat()
    beat.output.wait_for("Sending due task tick")
    assert beat.stop(signal.SIGINT) == 0
    assert "beat: Shutting down..." in beat.output.text() and "Traceback" not in beat.output.text()


def test_a_dry_run_says_what_would_be_sent(project, server):
    given = project(nightly=note("nightly"), tick=note(3600 * 12), half=note("half"))
    ended = given.line("beat", "--dry-run", "--until", "3d", "-s", str(given.folder / FILE))
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    nightly = [line for line in lines if line.endswith("  nightly (beaten.note)")]
    assert len(nightly) == 3 and all(" 04:30:00+0" in line for line in nightly), ended.stdout
    assert sum(line.endswith("  tick (beaten.note)") for line in lines) in (5, 6)
    assert lines[-1] == "known to Python alone: half"
    assert server.length(given.queue) == 0 and not (given.folder / OURS).exists()


def test_it_runs_in_the_background(project, server):
    given = project(tick=note("second", "tick"))
    pidfile, log = given.folder / "beat.pid", given.folder / "beat.log"
    ended = given.line("beat", "--detach", "--pidfile", str(pidfile), "-f", str(log), "-l", "info", "-s", str(given.folder / FILE))
    assert ended.returncode == 0, ended.stderr
    server.take(given.queue)
    pid = int(pidfile.read_text())
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not is_alive(pid), "it is gone")
    assert not pidfile.exists()
    assert "Sending due task tick" in log.read_text() and "beat: Shutting down..." in log.read_text()
    server.broker.delete(given.queue)


def rust(server, folder, *words):
    environment = {"WORKER_PERIODIC": str(folder / "log"), "CELERY_BROKER_URL": server.broker_url}
    return Process([EXAMPLE_WORKER, *words], env=environment)


def test_a_program_in_rust_has_a_beat(server, tmp_path):
    settings = ["task.default_queue=rust-beat"]
    beat = rust(server, tmp_path, "beat", "-l", "info", "-s", tmp_path / FILE, *settings)
    beat.output.wait_for(r"Scheduler: Sending due task tick \(rust.append\)")
    envelope = server.take("rust-beat")
    assert envelope["headers"]["celery_beat_task"] is True
    assert loads(envelope["body"]) if envelope["properties"]["body_encoding"] != "base64" else True
    assert beat.stop() == 0
    beat.output.wait_for("beat: Shutting down...")
    dry = rust(server, tmp_path, "beat", "--dry-run", "--until", "1d", "-s", tmp_path / FILE)
    dry.output.wait_for(r" 04:30:00\+00:00  by name \(rust.append\)")
    server.broker.delete("rust-beat")


def test_a_worker_in_rust_has_one_too(server, tmp_path):
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-Q", "rust-b", "task.default_queue=rust-b"]
    worker = rust(server, tmp_path, "worker", "-B", "-s", tmp_path / FILE, "-l", "info", *quiet)
    worker.output.wait_for(r"Scheduler: Sending due task tick \(rust.append\)")
    eventually((tmp_path / "log").exists, "the task ran")
    assert worker.stop() == 0
    assert json.loads((tmp_path / OURS).read_text())["entries"]["tick"]["total_run_count"] >= 1


def test_a_beat_in_a_worker_in_rust_that_fails_is_followed_by_another(server, tmp_path):
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-Q", "rust-c", "task.default_queue=rust-c"]
    folder = tmp_path / "not yet"
    worker = rust(server, tmp_path, "worker", "-B", "-s", folder / FILE, "-l", "info", *quiet)
    worker.output.wait_for(r"beat raised exception: lock the schedule file .*")
    worker.output.wait_for(r"It ended though nobody stopped it: another one begins in 1.00 second")
    folder.mkdir()
    worker.output.wait_for(r"Scheduler: Sending due task tick \(rust.append\)")
    assert worker.stop() == 0
    assert (folder / OURS).exists()


SCHEDULE = """
broker_url = "{url}"
[beat_schedule.tick]
task = "rust.append"
schedule = 1.0
args = ["{log}"]
kwargs = {{ line = "from the file" }}
options = {{ queue = "rust-d", headers = {{ mine = 1 }} }}
[beat_schedule."every night"]
task = "shop.other"
schedule = {{ crontab = {{ minute = 30, hour = "{hour}" }} }}
"""


def test_a_settings_file_has_periodic_tasks(server, tmp_path):
    settings = tmp_path / "celeriac.toml"

    def words(*given, hour="4"):
        settings.write_text(SCHEDULE.format(url=server.broker_url, log=tmp_path / "log", hour=hour))
        return [EXAMPLE_WORKER, "--config", settings, *given, "-s", tmp_path / FILE]

    def line(*given, **more):
        return subprocess.run(words(*given, **more), capture_output=True, text=True, timeout=SECONDS)

    dry = line("beat", "--dry-run", "--until", "1d")
    assert dry.stdout.count(" 04:30:00+00:00  every night (shop.other)") == 1, dry
    refused = line("beat", hour="25")
    assert refused.returncode == 1 and "beat_schedule.every night.schedule: " in refused.stderr, refused
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "info", "-Q", "rust-d"]
    worker = Process(words("worker", "-B", *quiet))
    worker.output.wait_for(r"Scheduler: Sending due task tick \(rust.append\)")
    eventually((tmp_path / "log").exists, "the task ran")
    assert worker.stop() == 0
    assert "from the file" in (tmp_path / "log").read_text()
