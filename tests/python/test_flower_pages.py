"""Flower's pages in Chromium: each shows of our worker what it shows of a stock one, and each button does what it says.

Screenshots are left in `.build/flower`.
"""

import re

import pytest

from browser import Browser
from faults import eventually
from monitored import FATES, OURS, QUEUES, STOCK, masked, same
from support import ROOT

SCREENSHOTS = ROOT / ".build" / "flower"
TABS = ["pool", "broker", "queues", "tasks", "limits", "config", "system", "other"]

# Rows of a tab that one of the two alone has, by the tab and the row's first cell.
ONLY_STOCK = {
    ("pool", "Writes"): "how often the parent wrote to its children",
    ("limits", "stock.append"): "a Python task of this suite",
    ("config", "include"): "modules to import",
    ("config", "worker_cancel_long_running_tasks_on_connection_loss"): "the default of both, which stock shows when it is written down",
    ("config", "worker_disable_prefetch"): "Celery writes the default down",
}
ONLY_OURS = {
    ("limits", "rust.block"): "a Rust task of the example worker, as those below",
    ("limits", "rust.panic"): "",
    ("limits", "rust.progress"): "",
    ("limits", "rust.send"): "",
    ("limits", "rust.types"): "",
    ("config", "worker_concurrency"): "what -c said",
    ("config", "worker_send_task_events"): "what -E said",
}
# Rows whose values are others, and why.
OTHER_VALUES = {
    ("pool", "Implementation"): "celeriac:tokio: there is no Python class",
    ("pool", "Processes"): "the worker itself: it has no children",
    ("pool", "Put guarded by semaphore"): "true: nothing begins without a place",
    ("pool", "Worker PID"): "",
    ("pool", "Prefetch Count"): "a held task that has expired widens ours until its time has come",
    ("config", "broker_url"): "Celery shows a password that there is not",
    ("other", "uptime"): "",
}
# Rows of a task's page whose values are others.
OTHER_DETAILS = {"Traceback": "a task in Rust has the one that it gives, or none", "Clock": "counts what each has sent"}
# A row that is there or not with either: of a task that is its own parent, which a retry is, Celery's
# `State` keeps what it found when somebody first looked.
PARENT = "Parent"

# The tables of the tab that is shown, by their captions: the text of their cells.
TABLES = """
    const cells = row => [...row.cells].map(cell => cell.innerText.trim());
    return Object.fromEntries([...document.querySelectorAll('.tab-pane.show table')].map(table => [
        table.caption.innerText, [...table.rows].map(cells)]));
"""
DETAILS = """
    return [...document.querySelectorAll('.detail-row')].map(row =>
        [row.querySelector('dt').innerText.trim(), row.querySelector('dd').innerText.trim()]);
"""
BUTTONS = "return [...document.querySelectorAll('.detail-actions button')].map(button => button.id)"
SUMMARY = "return ['online', 'active', 'succeeded', 'failed'].map(name => document.getElementById('workers-' + name).innerText)"
ROWS = "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(row => [...row.cells].map(cell => cell.innerText.trim()))"


class Pages(Browser):
    """Flower's."""

    def __init__(self, flower, folder):
        super().__init__(folder)
        self.flower = flower

    def go(self, path):
        self.open(self.flower.url + path)

    def keep(self, name):
        self.screenshot(SCREENSHOTS / f"{name}.png")

    def tab(self, name):
        """The tables of a tab, once it is shown."""
        self.click(f"#worker-tab-{name}")
        self.wait_for(f"!!document.querySelector('#tab-{name}.show.active')")
        return self.script(TABLES)

    def press(self, selector):
        """Presses a button; what Flower says then, and whether it is bad."""
        self.script("document.querySelectorAll('#toast-container .toast').forEach(toast => toast.remove())")
        self.click(selector)
        toast = self.wait_for("(document.querySelector('#toast-container .toast')?.innerText || '').trim()")
        return toast, self.script("return !!document.querySelector('#toast-container .text-bg-danger')")


@pytest.fixture(scope="module")
def pages(fleet, folder):
    pages = Pages(fleet.flower, folder)
    yield pages
    complaints = pages.complaints()
    pages.close()
    assert not complaints


def test_the_list_of_workers(pages, sent):
    pages.go("/workers")

    def listed():
        """The rows, and what stands above them: of one moment, and when no heartbeat is late."""
        rows, summary = pages.script(f"return [(() => {{{ROWS}}})(), (() => {{{SUMMARY}}})()]", "#workers-table")
        rows = {row[0]: row[1:6] for row in rows}
        is_whole = rows.keys() >= QUEUES.keys() and all(row[:2] == ["Online", "2"] for row in rows.values())
        return (rows, summary) if is_whole and summary[0] == "2" else None

    rows, summary = eventually(listed, pages.text)
    pages.keep("workers")
    # Received: all but what nobody has registered; failed: that one too.
    assert same(rows) == ["Online", "2", "11", "3", "2"]
    assert summary == ["2", "4", "4", "6"]


@pytest.fixture(scope="module")
def tabs(pages, sent):
    """The tables of each tab, by node."""
    def shown(node):
        pages.go(f"/worker/{node}")
        tables = {}
        for tab in TABS:
            tables[tab] = pages.tab(tab)
            if node == OURS:
                pages.keep(f"worker-{tab}")
        return tables

    return {node: shown(node) for node in QUEUES}


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_of_a_workers_page(tabs, sent, tab):
    def rows(node, alone):
        """Sorted: the order of tasks is the order in which they came."""
        # Celery counts in among the revoked what has expired, and ours does not (src/worker/revoked.rs).
        left_out = alone.keys() | {("tasks", sent[node]["expired"])}
        kept = {caption: [row for row in table if (tab, row[0]) not in left_out] for caption, table in tabs[node][tab].items()}
        return {caption: sorted(shape(*map(masked, row)) for row in table) for caption, table in kept.items()}

    def shape(name, *values):
        if (tab, name) in OTHER_VALUES or tab == "system":
            return name, *map(bool, values)
        # The process that runs a task: a child's there, the worker's own here.
        return name, *(re.sub(r"^\d{2,}$", "<number>", value) if tab == "tasks" else value for value in values)

    stock, ours = rows(STOCK, ONLY_STOCK), rows(OURS, ONLY_OURS)
    assert all(stock.values())
    for caption in stock:
        assert ours[caption] == stock[caption], caption
    assert ours.keys() == stock.keys()


def test_what_differs_does(tabs):
    """No row of the tables above is there for nothing."""
    def names(node):
        return {(tab, row[0]) for tab, tables in tabs[node].items() for table in tables.values() for row in table}

    stock, ours = names(STOCK), names(OURS)
    assert ONLY_STOCK.keys() == {row for row in stock - ours if "-" not in row[1]}
    assert ONLY_OURS.keys() == {row for row in ours - stock if "-" not in row[1]}


def test_the_list_of_tasks(pages, sent):
    pages.go("/tasks")
    pages.wait_for("document.querySelectorAll('#tasks-table tbody tr[id]').length === 15")
    pages.keep("tasks")
    shown = {}
    for node in QUEUES:
        pages.go(f"/tasks?worker={node}")
        pages.wait_for(f"document.querySelectorAll('#tasks-table tbody tr[id]').length === {len(FATES)}")
        fates = {task_id: fate for fate, task_id in sent[node].items()}
        rows = pages.script(ROWS, "#tasks-table")
        # Columns: name, uuid, state, received, runtime, worker.
        shown[node] = {fates[row[1].split()[0]]: (row[0], row[2], bool(row[3]), bool(row[4])) for row in rows}
        assert {row[5] for row in rows} == {node}
    assert same(shown)["succeeded"] == ("rust.add", "SUCCESS", True, True)
    pages.click("[data-task-state=FAILURE]")
    pages.wait_for("document.querySelectorAll('#tasks-table tbody tr[id]').length === 6")


@pytest.mark.parametrize("fate", FATES)
def test_a_tasks_page(pages, sent, fate):
    def details(node):
        pages.go(f"/task/{sent[node][fate]}")
        if node == OURS:
            pages.keep(f"task-{fate.replace(' ', '-')}")
        rows = {name: "" if name in OTHER_DETAILS else masked(value) for name, value in pages.script(DETAILS)}
        rows.pop(PARENT, None)
        return rows | {"buttons": pages.script(BUTTONS)}

    rows = same({node: details(node) for node in QUEUES})
    state = FATES[fate][0]
    assert (rows["Status"], rows["Worker"]) == (state, "<node>")
    assert rows["buttons"] == {"STARTED": ["task-terminate"], "RECEIVED": ["task-revoke"]}.get(state, [])


def test_the_brokers_page(pages, fleet, sent):
    pages.go("/broker")
    pages.keep("broker")
    rows = {row[0]: row[1:] for row in pages.script(ROWS, "#queue-table")}
    assert same({node: rows[queue] for node, queue in QUEUES.items()})[0] == "0"


def test_a_task_is_terminated_and_one_revoked(pages, fleet, sent):
    for node in QUEUES:
        for fate in ("running", "running too", "reserved"):
            task_id = sent[node][fate]
            fleet.flower.told(task_id, "STARTED", "started")
            pages.go(f"/task/{task_id}")
            assert pages.press("#task-terminate") == (f"Revoked '{task_id}'", False)
            fleet.flower.told(task_id, "REVOKED", "revoked")
        task_id = sent[node]["scheduled"]
        pages.go(f"/task/{task_id}")
        assert pages.press("#task-revoke") == (f"Revoked '{task_id}'", False)
        eventually(lambda: task_id in fleet.flower.worker(node)["revoked"], "among the revoked")


def test_the_buttons_for_limits(pages, fleet):
    def said(node):
        pages.go(f"/worker/{node}")
        pages.tab("limits")
        row = "[id='task-%s-rust.add']"
        pages.type("[aria-label='Rate limit for rust.add']", "7")
        pages.type("[aria-label='Timeout for rust.add']", "30")
        return [pages.press(row % button) for button in ("rate-limit", "timeout-soft", "timeout-hard")]

    assert same({node: said(node) for node in QUEUES}) == [
        ("new rate limit set successfully", False), ("time limits set successfully", False),
        ("time limits set successfully", False),
    ]
    for node in QUEUES:
        assert "rust.add [rate_limit=7]" in fleet.flower.worker(node)["registered"]


def test_the_buttons_for_the_pool(pages, fleet):
    def said(node):
        pages.go(f"/worker/{node}")
        pages.type("#pool-size", "2")
        grown = pages.press("#worker-pool-grow")
        pages.type("#pool-size", "1")
        shrunk = pages.press("#worker-pool-shrink")
        pages.type("#min-autoscale", "1")
        pages.type("#max-autoscale", "4")
        return [(masked(text), bad) for text, bad in (grown, shrunk, pages.press("#worker-pool-autoscale"))]

    grown, shrunk, scaled = same({node: said(node) for node in QUEUES})
    assert grown == ("Growing '<node>' worker's pool by 2", False)
    assert shrunk == ("Shrinking '<node>' worker's pool by 1", False)
    assert scaled == ("Failed to autoscale '<node>' worker: ValueError('Autoscale not enabled')", True)


def test_the_buttons_for_queues(pages, fleet):
    for node in QUEUES:
        queue = f"{node.split('@')[0]}-more"
        pages.go(f"/worker/{node}")
        pages.tab("queues")
        pages.type("#add-consumer-name", queue)
        assert pages.press("#worker-add-consumer") == (f"add consumer {queue}", False)
        fleet.flower.told(fleet.caller(node).send_with("add", (1, 2), queue=queue).id, "SUCCESS", "succeeded")
        fleet.flower.worker(node)
        pages.go(f"/worker/{node}")
        assert queue in str(pages.tab("queues"))
        assert pages.press(f"[id='worker-cancel-consumer-{queue}']") == (f"no longer consuming from {queue}", False)
        fleet.flower.worker(node)
        pages.go(f"/worker/{node}")
        assert queue not in str(pages.tab("queues"))


def test_the_actions(pages, fleet):
    for node, process in fleet.workers.items():
        pages.go(f"/worker/{node}")
        pages.click("#worker-group")
        pages.press("#worker-refresh")
        pages.click("#worker-group")
        restarted, bad = pages.press("#worker-pool-restart")
        assert bad and "Pool restarts not enabled" in restarted
        pages.click("#worker-group")
        assert pages.press("#worker-shutdown") == ("Shutting down!", False)
        assert process.ended() == 0, process.output.text()
    pages.go("/workers")
    pages.wait_for("document.querySelectorAll('#workers-table tr.worker-offline').length === 2")
