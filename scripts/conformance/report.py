"""Which files are run, and what is said of the outcomes: stock and ours side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from conformance.reasons import BOTH_FAIL, NOT_RUN


@dataclass(frozen=True)
class Outcome:
    """How one test ended."""

    test: str
    outcome: str
    why: str = ""

    @property
    def name(self) -> str:
        return self.test.removeprefix("t/integration/")


#: Of each file, its tests in their order.
Results = dict[str, list[Outcome]]


def choose(files: list[str], only: Optional[list[str]]) -> tuple[list[str], dict[str, str]]:
    """The files that are run, and why others are not."""
    left_out = {name: NOT_RUN[name] for name in files if name in NOT_RUN}
    chosen = [name for name in files if name not in left_out]
    return [name for name in chosen if not only or name in only], left_out


def show(results: dict[str, Results], left_out: dict[str, str]) -> int:
    """Prints all of it; the exit code."""
    table(results)
    if len(results) < 2:
        listed("failed", flat(*results.values()).values(), lambda outcome: outcome.why)
        return 0
    stock, ours = flat(results["stock"]), flat(results["ours"])
    worse = [ours[test] for test in ours if fails(ours, test) and not fails(stock, test)]
    both = [ours[test] for test in ours if fails(ours, test) and fails(stock, test)]
    better = [stock[test] for test in stock if fails(stock, test) and not fails(ours, test)]
    listed("ours fails what stock passes", worse, lambda outcome: outcome.why)
    listed("both fail", both, explained)
    listed("ours passes after another try, stock at once", again(results), lambda outcome: outcome.why)
    listed("stock fails what ours passes", better, lambda outcome: outcome.why)
    print("\nnot run")
    for name, why in sorted(left_out.items()):
        print(f"  {name}: {why}")
    return 1 if worse else 0


def table(results: dict[str, Results]) -> None:
    kinds = list(results)
    columns = ("passed", "failed", "skipped")
    print("\n" + " " * 36 + "".join(f"{kind:>27}" for kind in kinds))
    print(f"{'':36}" + "".join(f"{column:>9}" for _ in kinds for column in columns))
    files = list(results[kinds[0]])
    for name in [*files, "in all"]:
        row = f"{name:36}"
        for kind in kinds:
            chosen = flat(results[kind] if name == "in all" else {name: results[kind][name]}).values()
            # What Celery's suite expects to fail is none that it asks of a worker, as little as what it leaves out.
            counts = Counter("skipped" if outcome.outcome == "xfailed" else outcome.outcome for outcome in chosen)
            row += "".join(f"{counts[column]:>9}" for column in columns)
        print(row)


def listed(title: str, outcomes: Iterable[Outcome], explain) -> None:
    outcomes = [outcome for outcome in outcomes if outcome.outcome in ("failed", "rerun")]
    print(f"\n{title}: {len(outcomes) or 'none'}")
    for outcome in outcomes:
        print(f"  {outcome.name}\n      {explain(outcome)}")


def again(results: dict[str, Results]) -> list[Outcome]:
    """The tests that Celery calls flaky, and that failed once with ours alone."""
    stock, ours = (
        flat({name: [one for one in outcomes if one.outcome == "rerun"] for name, outcomes in results[kind].items()})
        for kind in ("stock", "ours")
    )
    ended = flat(results["ours"])
    return [ours[test] for test in ours if test not in stock and not fails(ended, test)]


def flat(results: Results) -> dict[str, Outcome]:
    """How each test ended; of one that was run again, the last time."""
    return {outcome.test: outcome for outcomes in results.values() for outcome in outcomes}


def fails(outcomes: dict[str, Outcome], test: str) -> bool:
    return test not in outcomes or outcomes[test].outcome == "failed"


def explained(outcome: Outcome) -> str:
    for part, why in BOTH_FAIL.items():
        if part in outcome.name:
            return why
    return f"no reason is known: {outcome.why}"
