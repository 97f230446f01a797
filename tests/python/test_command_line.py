"""The command line of a project in Python: what it says of itself, what it reads from the environment, what `config check`
finds, and what of the settings Rust is told in other words."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from support import ROOT, SECONDS, environment
from test_prefork import Celeriac
from test_threads import check

pytestmark = pytest.mark.only("redis", "nothing here asks the broker more than to hand over a message")

PROJECT = """\
import datetime, os
import dateutil.tz
from zoneinfo import ZoneInfo
from celery import Celery
from celery.schedules import crontab

class Settings:
    CELERY_BROKER_URL, CELERY_RESULT_BACKEND = os.environ["BROKER"], os.environ["RESULTS"]
    CELERY_TASK_ROUTES = ("routed.router", {"nobody": "nowhere"})
    CELERY_TASK_ANNOTATIONS = [{"*": {"own": "everybody's"}}, {"routed.second": {"rate_limit": "100/s", "on_success": print}}]
    CELERY_BEAT_SCHEDULE = {"early": {"task": "routed.second", "schedule": crontab(hour=4, minute=30)}}
    locals().update({name: eval(value) for name, value in os.environ.items() if name in ("TIME_ZONE", "CELERY_TIMEZONE")})

def router(name, args, kwargs, options, task=None, **more):
    return {"queue": "routed"}

app = Celery("routed")
app.config_from_object(Settings, namespace=os.environ.get("NAMESPACE", "CELERY"))

@app.task
def first():
    return second.delay().get(disable_sync_subtasks=False)

@app.task(bind=True)
def second(self):
    return [self.request.delivery_info["routing_key"], self.own, os.getpid()]
"""


@pytest.fixture
def project(server, tmp_path):
    """What runs a command line in the folder of a project, to its end."""
    (tmp_path / "routed.py").write_text(PROJECT)
    (tmp_path / "added.py").write_text("print('added was imported')")
    # A machine's zones, where they are few.
    (tmp_path / "few" / "Etc").mkdir(parents=True)
    shutil.copy("/usr/share/zoneinfo/Etc/UTC", tmp_path / "few" / "Etc")

    def run(*words, program=("-m", "celeriac"), **variables):
        path = os.pathsep.join([str(ROOT / "python"), str(tmp_path)])
        given = {"PYTHONPATH": path, "BROKER": server.broker_url, "RESULTS": server.result_url, **variables}
        # Another suite's project may be Django's for this process.
        given["DJANGO_SETTINGS_MODULE"] = ""
        if words[-1:] == ("worker",):
            return Celeriac(*words, env=given)
        return subprocess.run(
            [sys.executable, *program, *words], env={**environment(), **given}, capture_output=True, text=True,
            timeout=2 * SECONDS, cwd=tmp_path,
        )  # fmt: skip

    return run


def test_help_is_about_a_project(project):
    says = project("--help").stdout
    assert "those in Python" in says and "python -m celeriac [OPTIONS]" in says, says
    assert all(word in says for word in ("-A, --app <APP>", "  config ", "  quickstart ")), says
    of_a_worker = project("worker", "--help").stdout
    assert project("worker", "--help", CELERY_WORKER_POOL="gevent").stdout == of_a_worker
    assert "prefork, threads or solo" in of_a_worker and "Replace a process after so many tasks" in of_a_worker
    assert "compiled into" not in says and "tokio" not in of_a_worker
    misplaced = project("worker", "-A", "routed")
    assert misplaced.returncode == 2 and "it goes before the command" in misplaced.stderr, misplaced


def test_a_workers_options_are_read_from_the_environment(project):
    options = {"POOL": "prefork", "CONCURRENCY": "1", "MAX_TASKS_PER_CHILD": "1", "INCLUDE": "added", "QUEUES": "routed", "MAX_MEMORY_PER_CHILD": "0"}
    worker = project("-A", "routed", "worker", **{f"CELERY_WORKER_{name}": value for name, value in options.items()})
    worker.output.wait_for("added was imported")
    ask = "import routed; print(routed.second.delay().get(timeout=60)[2])"
    pids = {project("-c", ask, program=()).stdout for _ in range(2)}
    assert len(pids) == 2, (pids, worker.output.text())
    assert worker.stop() == 0
    for name, value, said in [
        ("POOL", "gevent", "the pool gevent is not there"), ("MAX_TASKS_PER_CHILD", "none", "none is no number of tasks"),
    ]:
        refused = project("-A", "routed", "worker", **{f"CELERY_WORKER_{name}": value})
        refused.output.wait_for(said)
        refused.is_stopped = True
        assert refused._process.wait(SECONDS) == 2


def test_routers_and_annotations_are_celerys_to_ask(project):
    checked = project("-A", "routed", "config", "check")
    assert (checked.returncode, checked.stdout) == (0, "All settings are honoured.\n"), checked
    worker = project("-A", "routed", "worker", CELERY_WORKER_QUEUES="routed", CELERY_WORKER_CONCURRENCY="2")
    asked = project("-c", "import routed; print(routed.first.delay().get(timeout=60)[:2])", program=())
    assert asked.stdout == """['routed', "everybody's"]\n""", (asked, worker.output.text())
    assert worker.stop() == 0
    assert "no effect" not in worker.output.text()


@pytest.mark.parametrize("variables, named", [
    ({"TIME_ZONE": "'America/New_York'"}, "04:30:00-0[45]:00"),
    ({"CELERY_TIMEZONE": "ZoneInfo('America/New_York')"}, "04:30:00-0[45]:00"),
    ({"CELERY_TIMEZONE": "datetime.timezone(datetime.timedelta(hours=2))"}, "04:30:00\\+02:00"),
    ({"CELERY_TIMEZONE": "datetime.timezone(datetime.timedelta(hours=5, minutes=30))"}, "04:30:00\\+05:30"),
    ({"CELERY_TIMEZONE": "datetime.timezone(datetime.timedelta(hours=-3.5))"}, "04:30:00-03:30"),
    ({"CELERY_TIMEZONE": "dateutil.tz.gettz('Asia/Kolkata')"}, "04:30:00\\+05:30"),
    ({"TIME_ZONE": "'US/Eastern'", "TZDIR": "few"}, "04:30:00-0[45]:00"),
    ({"TIME_ZONE": "'Asia/Tokyo'", "CELERY_TIMEZONE": "datetime.timezone.utc"}, "04:30:00\\+00:00"),
    ({}, "04:30:00\\+00:00"),
])
def test_a_schedule_is_in_the_zone_that_the_project_names(project, variables, named):
    dry = project("-A", "routed", "beat", "--dry-run", "--until", "2d", **variables)
    assert len(re.findall(f" {named}  early", dry.stdout)) == 2, dry


def test_djangos_zone_is_no_slip_where_settings_have_no_namespace(project):
    checked = project("-A", "routed", "config", "check", NAMESPACE="", TIME_ZONE="'Asia/Tokyo'")
    assert (checked.returncode, checked.stdout) == (0, "All settings are honoured.\n"), checked


def test_a_result_is_dated_in_the_zone_that_the_project_names(project):
    zone = {"TIME_ZONE": "'Asia/Tokyo'"}
    worker = project("-A", "routed", "worker", CELERY_WORKER_QUEUES="routed", CELERY_WORKER_CONCURRENCY="1", **zone)
    ask = "import routed; done = routed.second.delay(); done.get(timeout=60); print(done.backend.get_task_meta(done.id)['date_done'])"
    dated = project("-c", ask, program=(), **zone)
    assert dated.stdout.endswith("+09:00\n"), (dated, worker.output.text())
    assert worker.stop() == 0


def test_a_zone_without_a_name_is_refused(project):
    odd = {"CELERY_TIMEZONE": "dateutil.tz.tzrange('EST', dstabbr='EDT')"}
    for command in (("config", "check"), ("beat", "--dry-run", "--until", "2d")):
        refused = project("-A", "routed", *command, **odd)
        assert refused.returncode == 1 and refused.stderr.startswith("Error: timezone: "), refused


def test_what_would_stop_a_worker_is_found(server):
    def said(**settings):
        return check(server, **settings)[1].splitlines()

    assert said(CELERY_WORKER_POOL="gevent") == [
        "worker_pool: the pool gevent is not there: use threads, or async def tasks in prefork",
    ]
    [line] = said(CELERY_BROKER_URL="sqs://key:secret@")
    assert line.startswith("the broker sqs:// is not supported; ") and "secret" not in line
    assert said(CELERY_WORKER_CONCURENCY=3, CELERY_TASK_DEFALT_PRIORITY=3, CELERY_WORKER_HHTP="x", CELERY_OF_OURS=1) == [
        "CELERY_TASK_DEFALT_PRIORITY: no setting has this name; did you mean task_default_priority?",
        "CELERY_WORKER_CONCURENCY: no setting has this name; did you mean worker_concurrency?",
        "CELERY_WORKER_HHTP: no setting has this name; did you mean worker_http?",
    ]
    beside = {"CELERY_TASK_DEFAULT_QUEUE": "x", "CELERY_TASK_DEFAULT_QUEUES": "x", "CELERY_REDBEAT_REDIS_URL": "redis://"}
    assert said(**beside) == ["All settings are honoured."]
    assert said(CELERY_TASK_REJECT_ON_WORKER_LOST=True, CELERYD_HIJACK_ROOT_LOGGER=False) == ["All settings are honoured."]

