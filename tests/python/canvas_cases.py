"""Canvases, and what must come of them whoever runs their tasks. Each case is a function of a `Canvas`.

They hold for stock workers, of which `test_canvas.py` asks them first.
"""

import uuid

import pytest
from celery import chain, chord, group
from celery.canvas import StampingVisitor
from celery.exceptions import NotRegistered
from celery.result import GroupResult

from canvas import ChordError, as_dict

CASES = {}
# What stock Celery does otherwise before 5.7: a chord whose tasks did not run at all does not tell what stands behind it,
# and an errback that raises keeps the failed task from being acknowledged. Mixed fleets leave these out.
SINCE_5_7 = set()
# What clients of 5.3 send otherwise: a chord's own `root_id`, and the errors of a body that is a chain.
FROM_NEWER_CLIENTS = set()


def case(function):
    CASES[function.__name__] = function
    return function


def from_newer_clients(function):
    FROM_NEWER_CLIENTS.add(function.__name__)
    return function


def since_5_7(function):
    SINCE_5_7.add(function.__name__)
    return function


# Links.


@case
def one_link(c):
    then, child = c.named(c.s("ids"))
    result = c.s("add", 1, 2).apply_async(link=then)
    assert c.value(result) == 3
    assert c.value(child) == [result.id, result.id, 3]
    assert c.children(result) == [child]
    assert c.children(child) == []
    assert c.meta(child)["parent_id"] == result.id


@case
def several_links(c):
    links = [c.named(c.s("ids")), c.named(c.s("mul", 10)), c.named(c.s("identity"))]
    sig = c.s("add", 1, 2)
    for then, _ in links:
        sig.link(then)
    result = sig.apply_async()
    assert [c.value(child) for _, child in links] == [[result.id, result.id, 3], 30, 3]
    grouped, = c.ended(result).children
    assert sorted(grouped.children, key=lambda child: child.id) == sorted(
        (c.result(child) for _, child in links), key=lambda child: child.id)


@case
def links_of_links(c):
    last, last_id = c.named(c.s("ids"))
    then, then_id = c.named(c.s("add", 10))
    result = c.s("add", 1, 2).apply_async(link=_linked(then, last))
    assert c.value(last_id) == [result.id, then_id, 13]
    assert c.children(then_id) == [last_id]


def _linked(sig, *links):
    for link in links:
        sig.link(link)
    return sig


@case
def a_link_that_takes_nothing(c):
    then, child = c.named(c.si("ids", "own"))
    result = c.s("add", 1, 2).apply_async(link=then)
    assert c.value(child) == [result.id, result.id, "own"]


@case
def a_link_with_arguments_of_its_own(c):
    then, child = c.named(c.s("echo", "own", key="value"))
    result = c.s("identity", [1]).apply_async(link=then)
    assert c.value(child) == [[[1], "own"], {"key": "value"}]
    assert c.value(result) == [1]


@case
def links_that_are_canvases(c):
    body, body_id = c.named(c.s("xsum"))
    last, last_id = c.named(c.s("ids"))
    in_group, in_group_id = c.named(c.s("add", 100))
    sig = _linked(
        c.s("add", 1, 2), chord([c.s("add", 1), c.s("add", 2)], body), chain(c.s("mul", 2), last),
        group([in_group, c.s("mul", 3)]))
    result = sig.apply_async()
    assert c.value(body_id) == 4 + 5
    assert c.value(last_id)[0] == result.id and c.value(last_id)[2] == 6
    assert c.value(in_group_id) == 103


@case
def no_link_is_called_after_a_failure(c):
    then, child = c.named(c.s("identity"))
    result = c.s("fail", "ValueError", "no").apply_async(link=then)
    assert type(c.error(result)) is ValueError
    c.is_nowhere(child)


@case
def a_link_to_a_task_that_nobody_knows(c):
    then, child = c.named(c.s("nobody"))
    result = c.s("add", 1, 2).apply_async(link=then)
    assert c.value(result) == 3
    assert type(c.error(child)) is NotRegistered


@case
def links_keep_their_options(c):
    then, child = c.named(c.s("ids").set(priority=3, headers={"tenant": "acme"}, expires=600, time_limit=60))
    result = c.s("add", 1, 2).apply_async(link=then, priority=6, headers={"tenant": "other"})
    assert c.value(child) == [result.id, result.id, 3]


@case
def results_that_are_not_kept(c):
    last, last_id = c.named(c.s("ids"))
    result = chain(c.s("add", 1, 2).set(ignore_result=True), last).apply_async()
    assert c.value(result)[2] == 3
    assert c.meta(result.parent.id) is None


# Errbacks.


@case
def an_old_errback_is_sent_the_id(c):
    errback, child = c.named(c.s("ids"))
    result = c.s("fail", "ValueError", "no").apply_async(link_error=errback)
    assert type(c.error(result)) is ValueError
    assert c.value(child) == [result.id, result.id, result.id]


@case
def several_old_errbacks(c):
    errbacks = [c.named(c.s("ids")), c.named(c.s("identity")), c.named(c.si("ids", "own"))]
    result = c.s("fail", "KeyError", "k").apply_async(link_error=[sig for sig, _ in errbacks])
    assert [c.value(child) for _, child in errbacks] == [
        [result.id, result.id, result.id], result.id, [result.id, result.id, "own"]]


@case
def a_new_errback_is_called_with_the_error(c):
    path = c.path()
    result = c.s("fail", "ValueError", "no").apply_async(link_error=c.s("note_failure", path=path))
    assert type(c.error(result)) is ValueError
    assert c.lines(path, 1) == [f"{result.id} ValueError no"]


@case
def errbacks_of_both_kinds(c):
    path, (old, child) = c.path(), c.named(c.s("identity"))
    new = [c.s("note_failure", path=path), c.s("note_failure", path=path)]
    result = c.s("fail", "ValueError", "no").apply_async(link_error=[new[0], old, new[1]])
    assert c.value(child) == result.id
    assert c.lines(path, 2) == [f"{result.id} ValueError no"] * 2


@case
def an_errback_that_nobody_here_knows(c):
    errback, child = c.named(c.s("nobody"))
    result = c.s("fail", "ValueError", "no").apply_async(link_error=errback)
    assert type(c.error(result)) is ValueError
    assert type(c.error(child)) is NotRegistered


@case
@since_5_7
def an_errback_that_fails(c):
    """Before 5.7 the task that failed is then never acknowledged."""
    path = c.path()
    errback, child = c.named(c.s("xsum"))
    result = c.s("fail", "ValueError", "no").apply_async(link_error=[errback, c.s("note_failure", path=path + "/nowhere/x")])
    assert type(c.error(result)) is ValueError
    assert type(c.error(child)) is TypeError


@case
def no_errback_is_called_after_a_success(c):
    path, (old, child) = c.path(), c.named(c.s("identity"))
    assert c.value(c.s("add", 1, 2).apply_async(link_error=[old, c.s("note_failure", path=path)])) == 3
    c.is_nowhere(child)
    with pytest.raises(FileNotFoundError):
        c.lines(path, 0)


@case
def errbacks_wait_until_retries_are_over(c):
    path = c.path()
    result = c.s("flaky", "k", 1).apply_async(link_error=c.s("note_failure", path=path))
    assert c.value(result) == 2
    failed = c.s("flaky", "k", 99).apply_async(retries=10, link_error=c.s("note_failure", path=path))
    assert type(c.error(failed)) is KeyError
    assert c.lines(path, 1) == [f"{failed.id} KeyError k"]


@case
def errbacks_of_wrong_arguments(c):
    path = c.path()
    result = c.s("mul", 1).apply_async(link_error=c.s("note_failure", path=path))
    assert type(c.error(result)) is TypeError
    line, = c.lines(path, 1)
    assert line.startswith(f"{result.id} TypeError ")


# Chains.


@case
def a_chain(c):
    result = chain(c.s("add", 1, 2), c.s("add", 4), c.s("mul", 10)).apply_async()
    assert c.value(result) == 70
    assert [c.value(result.parent), c.value(result.parent.parent)] == [7, 3]
    assert result.parent.parent.parent is None
    assert c.children(result.parent.parent) == [result.parent.id]
    assert c.children(result.parent) == [result.id]
    assert c.children(result) == []
    assert [value for _, value in result.parent.parent.collect()] == [3, 7, 70]


@case
def ids_along_a_chain(c):
    result = chain(c.s("ids", "x"), c.s("ids"), c.s("ids")).apply_async()
    second = result.parent
    first = second.parent
    assert c.value(first) == [first.id, None, "x"]
    assert c.value(second) == [first.id, first.id, [first.id, None, "x"]]
    assert c.value(result)[:2] == [first.id, second.id]
    assert c.meta(result.id)["parent_id"] == second.id


@case
def a_chain_of_immutable_steps(c):
    result = chain(c.s("add", 1, 2), c.si("add", 5, 5), c.s("echo", "own", key=1), c.si("ids", "last")).apply_async()
    assert c.value(result)[2] == "last"
    assert c.value(result.parent) == [[10, "own"], {"key": 1}]


@case
def a_long_chain(c):
    result = chain(c.s("add", 0, 1), *(c.s("add", 1) for _ in range(29))).apply_async()
    assert c.value(result) == 30


@case
def chains_in_chains(c):
    result = chain(
        c.s("add", 1, 1), chain(c.s("add", 1), chain(c.s("add", 10), c.s("mul", 2))), c.s("add", 1)).apply_async()
    assert c.value(result) == 27


@case
def a_failure_in_the_middle_of_a_chain(c):
    result = chain(c.s("add", 1, 2), c.si("fail", "ValueError", "no"), c.s("add", 1), c.s("ids")).apply_async()
    for failed in [result, result.parent, result.parent.parent]:
        with pytest.raises(ValueError, match="no"):
            c.value(failed)
    c.settle()
    assert [failed.state for failed in [result, result.parent, result.parent.parent]] == ["FAILURE"] * 3
    assert c.value(result.parent.parent.parent) == 3


@case
def a_failure_at_the_beginning_of_a_chain(c):
    path, (old, child) = c.path(), c.named(c.s("identity"))
    sig = chain(c.s("fail", "KeyError", "no"), c.s("add", 1), c.s("add", 2))
    sig.link_error(c.s("note_failure", path=path))
    sig.link_error(old)
    result = sig.apply_async()
    assert type(c.error(result)) is KeyError
    first = result.parent.parent
    assert c.value(child) == first.id
    assert c.lines(path, 1) == [f"{first.id} KeyError no"]


@case
def a_chain_with_a_link_and_an_errback(c):
    path, (then, child) = c.path(), c.named(c.s("ids"))
    sig = chain(c.s("add", 1, 2), c.s("add", 1))
    sig.link(then)
    sig.link_error(c.s("note_failure", path=path))
    result = sig.apply_async()
    assert c.value(child)[1:] == [result.id, 4]
    with pytest.raises(FileNotFoundError):
        c.lines(path, 0)


@case
def a_chain_whose_step_is_retried(c):
    result = chain(c.si("flaky", "k", 1), c.s("add", 40), c.s("ids")).apply_async()
    assert c.value(result) == [result.parent.parent.id, result.parent.id, 42]
    assert c.children(result.parent.parent)[-1] == result.parent.id


@case
def options_along_a_chain(c):
    sig = chain(c.s("add", 1, 2), c.s("add", 1).set(countdown=0.1), c.s("ids").set(priority=3, expires=600))
    result = sig.apply_async(priority=6, headers={"tenant": "acme"}, expires=900, soft_time_limit=30)
    assert c.value(result)[2] == 4


@case
def groups_in_a_chain(c):
    sig = chain(c.s("add", 1, 1), group([c.s("add", 1), c.s("mul", 10), c.s("identity")]), c.s("xsum"), c.s("ids"))
    result = sig.apply_async()
    assert c.value(result)[1:] == [result.parent.id, 3 + 20 + 2]


@case
def a_chain_that_ends_in_a_group(c):
    result = chain(c.s("add", 1, 1), group([c.s("add", 1), c.s("mul", 10)])).apply_async()
    assert isinstance(result, GroupResult)
    assert c.value(result) == [3, 20]
    assert c.value(result.parent) == 2
    grouped, = c.ended(result.parent.id).children
    assert [child.id for child in grouped.children] == [child.id for child in result.children]


@case
def a_chain_that_begins_with_a_group(c):
    result = chain(group([c.s("add", 1, 1), c.s("add", 2, 2)]), c.s("xsum"), c.s("add", 1)).apply_async()
    assert c.value(result) == 7


@case
def a_group_after_a_group(c):
    sig = chain(group([c.s("add", 1, 1), c.s("add", 2, 2)]), group([c.s("xsum"), c.s("identity")]), c.s("echo"))
    assert c.value(sig.apply_async()) == [[[6, [2, 4]]], {}]


@case
def a_group_of_one_in_a_chain(c):
    result = chain(c.s("add", 1, 1), group([c.s("add", 1)]), c.s("identity")).apply_async()
    assert c.value(result) == 3


@case
@since_5_7
def a_failure_in_a_group_in_a_chain(c):
    result = chain(c.s("add", 1, 1), group([c.s("add", 1), c.si("fail", "ValueError", "no")]), c.s("xsum"), c.s("ids"))
    result = result.apply_async()
    assert type(c.error(result)) is ChordError
    assert type(c.error(result.parent)) is ChordError
    c.settle()


@case
@since_5_7
def a_failure_before_a_chord_in_a_chain(c):
    sig = chain(c.s("fail", "ValueError", "no"), chord([c.s("add", 1), c.s("add", 2)], c.s("xsum")), c.s("ids"))
    result = sig.apply_async()
    assert type(c.error(result)) is ValueError
    assert type(c.error(result.parent)) is ValueError


# Groups.


@case
def a_group(c):
    result = group([c.s("add", number, 1) for number in range(8)]).apply_async()
    assert c.value(result) == list(range(1, 9))
    assert result.successful() and result.completed_count() == 8
    assert {c.meta(child.id)["group_id"] for child in result.children} == {result.id}


@case
def a_saved_group(c):
    result = group([c.s("add", number, 1) for number in range(3)]).apply_async()
    result.save()
    restored = GroupResult.restore(result.id, app=c.app)
    assert c.value(restored) == [1, 2, 3]
    assert restored == result


@case
def ids_in_a_group(c):
    result = group([c.s("ids", "a"), c.s("ids", "b")]).apply_async(root_id="the root", parent_id="the parent")
    assert c.value(result) == [["the root", "the parent", "a"], ["the root", "the parent", "b"]]
    plain = group([c.s("ids", "a"), c.s("ids", "b")]).apply_async()
    first, second = plain.children
    assert c.value(plain) == [[first.id, None, "a"], [second.id, None, "b"]]


@case
def a_group_whose_member_fails(c):
    result = group([c.s("add", 1, 1), c.s("fail", "ValueError", "no"), c.s("add", 2, 2)]).apply_async()
    with pytest.raises(ValueError, match="no"):
        c.value(result)
    c.settle()
    assert (result.failed(), result.completed_count()) == (True, 2)
    two, error, four = result.get(propagate=False)
    assert (two, type(error), four) == (2, ValueError, 4)


@case
def groups_in_groups(c):
    result = group([c.s("add", 1, 1), group([c.s("add", 2, 2), group([c.s("add", 3, 3)])])]).apply_async()
    assert sorted(c.value(result)) == [2, 4, 6]


@case
def a_group_of_chains(c):
    result = group([chain(c.s("add", number, 1), c.s("mul", 10), c.s("ids")) for number in range(3)]).apply_async()
    assert [value[2] for value in c.value(result)] == [10, 20, 30]


@case
def a_group_with_links(c):
    """The link belongs to the first member, and takes nothing from it."""
    path, linked = c.path(), c.path()
    sig = group([c.s("add", 1, 1), c.s("fail", "ValueError", "no")])
    sig.link(c.s("append", linked, "linked"))
    sig.link_error(c.s("note_failure", path=path))
    result = sig.apply_async()
    assert c.lines(path, 1) == [f"{result.children[1].id} ValueError no"]
    assert c.lines(linked, 1)[0].startswith("linked")


@case
def an_empty_group(c):
    assert group([], app=c.app).apply_async().get(timeout=1) == []


@case
def a_group_that_is_spread_over_time(c):
    result = group([c.s("add", number, 1) for number in range(3)]).skew(0.05, 0.15, 0.05).apply_async()
    assert c.value(result) == [1, 2, 3]


# Chords.


@case
def a_chord(c):
    result = chord([c.s("add", number, number) for number in range(10)])(c.s("xsum"))
    assert c.value(result) == 90
    assert c.value(result.parent) == [2 * number for number in range(10)]
    c.settle()


@case
def ids_in_a_chord(c):
    """The member that completes it is its body's parent; what has no root is its own."""
    result = chord([c.s("ids", "a"), c.s("ids", "b")])(c.s("identity"))
    first, second = result.parent.children
    assert c.value(result) == [[first.id, None, "a"], [second.id, None, "b"]]
    alone = chord([c.s("add", 1, 1)])(c.s("ids"))
    member, = alone.parent.children
    assert c.value(alone) == [member.id, member.id, [2]]


@case
@from_newer_clients
def ids_that_are_given_to_a_chord(c):
    rooted = chord([c.s("add", 1, 1), c.s("add", 2, 2)], c.s("ids")).apply_async(root_id="the root", parent_id="another")
    root, parent, sums = c.value(rooted)
    assert (root, sums) == ("the root", [2, 4]) and parent in [child.id for child in rooted.parent.children]


@case
def a_chord_of_one(c):
    assert c.value(chord([c.s("add", 1, 1)])(c.s("xsum"))) == 2


@case
def a_chord_with_an_empty_header(c):
    assert c.value(chord([], app=c.app)(c.s("xsum"))) == 0


@case
def a_chord_of_a_hundred(c):
    result = chord([c.s("add", number, 0) for number in range(100)])(c.s("identity"))
    assert c.value(result) == list(range(100))
    c.settle()


@case
def a_chord_with_chains_in_its_header(c):
    header = [chain(c.s("add", number, 1), c.s("mul", 10), c.s("add", 1)) for number in range(4)]
    assert c.value(chord(header)(c.s("identity"))) == [11, 21, 31, 41]


@case
def a_chord_with_groups_in_its_header(c):
    header = [c.s("add", 0, 1), group([c.s("add", 1, 1), c.s("add", 1, 2)]), c.s("add", 2, 2)]
    assert sorted(c.value(chord(header)(c.s("identity")))) == [1, 2, 3, 4]


@case
def a_chord_with_chains_that_end_in_groups(c):
    header = [chain(c.s("add", 1, 1), group([c.s("add", 1), c.s("add", 2)])), c.s("add", 5, 5)]
    assert c.value(chord(header)(c.s("identity"))) == [[3, 4], 10]


@case
def a_chord_of_chords(c):
    header = [chord([c.s("add", number, 1), c.s("add", number, 2)], c.s("xsum")) for number in range(3)]
    assert c.value(chord(header)(c.s("identity"))) == [3, 5, 7]


@case
def chords_three_deep(c):
    inner = chord([c.s("add", 1, 1), c.s("add", 2, 2)], c.s("xsum"))
    middle = chord([inner, c.s("add", 3, 3)], c.s("xsum"))
    assert c.value(chord([middle, c.s("add", 4, 4)])(c.s("identity"))) == [12, 8]


@case
def a_chord_whose_body_is_a_chain(c):
    result = chord([c.s("add", 1, 1), c.s("add", 2, 2)])(chain(c.s("xsum"), c.s("mul", 10), c.s("ids")))
    assert c.value(result)[2] == 60


@case
def a_chord_whose_body_is_a_group(c):
    result = chord([c.s("add", 1, 1), c.s("add", 2, 2)])(group([c.s("xsum"), c.s("identity")]))
    assert c.value(result) == [6, [2, 4]]


@case
def a_chord_whose_body_is_a_chord(c):
    body = chord([c.s("xsum"), c.s("identity")], c.s("echo"))
    result = chord([c.s("add", 1, 1), c.s("add", 2, 2)])(body)
    assert c.value(result) == [[[6, [2, 4]]], {}]


@case
def a_chord_in_a_chain(c):
    result = chain(c.s("add", 1, 1), chord([c.s("add", 1), c.s("add", 2)], c.s("xsum")), c.s("mul", 10)).apply_async()
    assert c.value(result) == 70


@case
def a_chord_with_links(c):
    (on_body, on_body_id), (own, own_id) = c.named(c.s("ids")), c.named(c.s("mul", 2))
    body = _linked(c.s("xsum"), own)
    sig = chord([c.s("add", 1, 1), c.s("add", 2, 2)], body)
    sig.link(on_body)
    result = sig.apply_async()
    assert c.value(result) == 6
    assert c.value(on_body_id)[1:] == [result.id, 6]
    assert c.value(own_id) == 12


@case
def a_chord_whose_body_has_arguments(c):
    result = chord([c.s("add", 1, 1), c.s("add", 2, 2)])(c.s("echo", "own", key="value"))
    assert c.value(result) == [[[2, 4], "own"], {"key": "value"}]


@case
def a_chord_whose_body_takes_nothing(c):
    assert c.value(chord([c.s("add", 1, 1), c.s("add", 2, 2)])(c.si("identity", "own"))) == "own"


@case
def a_chord_whose_member_fails(c):
    path, (old, child) = c.path(), c.named(c.s("ids"))
    body = c.s("xsum").on_error(c.s("note_failure", path=path))
    body.link_error(old)
    result = chord([c.s("add", 1, 1), c.s("fail", "ValueError", "no"), c.s("add", 2, 2)])(body)
    error = c.error(result)
    failed = result.parent.children[1]
    assert type(error) is ChordError
    assert error.args == (f"Dependency {failed.id} raised ValueError('no')",)
    assert type(c.error(failed)) is ValueError
    assert c.value(child)[1:] == [result.id, result.id]
    line, = c.lines(path, 1)
    assert line == f"{result.id} ChordError {error.args[0]}"


@case
def a_chord_whose_members_all_fail(c):
    result = chord([c.s("fail", "ValueError", "no"), c.s("fail", "KeyError", "no")])(c.s("xsum"))
    assert type(c.error(result)) is ChordError
    c.settle()


@case
def a_chord_whose_body_fails(c):
    path, (then, child) = c.path(), c.named(c.s("identity"))
    body = _linked(c.si("fail", "ValueError", "no"), then).on_error(c.s("note_failure", path=path))
    result = chord([c.s("add", 1, 1), c.s("add", 2, 2)])(body)
    assert type(c.error(result)) is ValueError
    assert c.lines(path, 1) == [f"{result.id} ValueError no"]
    c.is_nowhere(child)


@case
def a_chord_whose_member_has_a_failing_chain(c):
    header = [chain(c.s("fail", "ValueError", "no"), c.s("add", 1), c.s("add", 2)), c.s("add", 2, 2)]
    result = chord(header)(c.s("xsum"))
    last = result.parent.children[0]
    assert c.error(result).args == (f"Dependency {last.id} raised ValueError('no')",)
    assert type(c.error(last)) is ValueError


@case
def a_failing_chord_in_a_chord(c):
    """The inner one fails; its body, which never runs, does not tell the outer one."""
    inner = chord([c.s("add", 1, 1), c.s("fail", "ValueError", "no")], c.s("xsum"))
    result = chord([inner, c.s("add", 2, 2)])(c.s("identity"))
    assert type(c.error(result.parent.children[0])) is ChordError
    c.is_nowhere(result.id)


@case
@since_5_7
def a_failing_chord_in_a_chain(c):
    sig = chain(c.s("add", 1, 1), chord([c.s("add", 1), c.si("fail", "ValueError", "no")], c.s("xsum")), c.s("ids"))
    result = sig.apply_async()
    assert type(c.error(result)) is ChordError
    assert type(c.error(result.parent)) is ChordError
    c.settle()


@case
@from_newer_clients
def a_failing_chord_whose_body_is_a_chain(c):
    result = chord([c.s("add", 1, 1), c.s("fail", "ValueError", "no")])(chain(c.s("xsum"), c.s("mul", 10), c.s("ids")))
    assert type(c.error(result)) is ChordError
    c.settle()


@case
@since_5_7
def a_failing_chord_whose_body_is_a_group(c):
    path = c.path()
    body = group([c.s("xsum").on_error(c.s("note_failure", path=path)), c.s("identity")])
    result = chord([c.s("add", 1, 1), c.s("fail", "ValueError", "no")])(body)
    assert [type(c.error(child)) for child in result.children] == [ValueError, ValueError]
    assert c.lines(path, 1) == [f"{result.children[0].id} ValueError no"]


@case
def a_chord_whose_member_is_retried(c):
    assert c.value(chord([c.s("flaky", "k", 1), c.s("add", 2, 2)])(c.s("identity"))) == [2, 4]


@case
def errbacks_of_a_chords_header(c):
    path = c.path()
    c.app.conf.task_allow_error_cb_on_chord_header = True
    try:
        sig = chord([c.s("add", 1, 1), c.s("fail", "ValueError", "no")], c.s("xsum"))
        sig.link_error(c.s("note_failure", path=path))
        result = sig.apply_async()
    finally:
        c.app.conf.task_allow_error_cb_on_chord_header = False
    error = c.error(result)
    failed = result.parent.children[1]
    assert c.lines(path, 2) == sorted(
        [f"{failed.id} ValueError no", f"{result.id} ChordError {error.args[0]}"])


@case
def a_chord_with_options(c):
    sig = chord([c.s("add", 1, 1).set(priority=3), c.s("add", 2, 2)], c.s("xsum").set(priority=6, expires=600))
    result = sig.apply_async(headers={"tenant": "acme"})
    assert c.value(result) == 6


# Chunks, maps.


@case
def a_map(c):
    assert c.value(c.map("xsum", [[1, 2], [3, 4], []]).apply_async()) == [3, 7, 0]


@case
def a_starmap(c):
    assert c.value(c.starmap("add", [[1, 2], [3, 4, 5]]).apply_async()) == [3, 12]


@case
def chunks(c):
    result = group([c.starmap("mul", [[n, n] for n in part]) for part in ([0, 1, 2], [3, 4, 5], [6])]).apply_async()
    assert c.value(result) == [[0, 1, 4], [9, 16, 25], [36]]


@case
def a_map_whose_item_fails(c):
    assert type(c.error(c.map("noop", [1]).apply_async())) is TypeError


@case
def maps_in_canvases(c):
    header = [c.map("xsum", [[1], [2]]), c.starmap("add", [[1, 2]])]
    assert c.value(chord(header)(c.s("identity"))) == [[1, 2], [3]]


# Tasks that put others in their place.


@case
def a_task_that_is_replaced(c):
    result = c.s("replace_with", as_dict(c.s("ids", "new"))).apply_async()
    assert c.value(result) == [result.id, result.id, "new"]


@case
def a_task_that_is_replaced_by_a_chain(c):
    path, (then, child) = c.path(), c.named(c.s("ids"))
    sig = c.s("replace_with", as_dict(chain(c.s("add", 1, 2), c.s("mul", 10))))
    result = sig.apply_async(link=then, link_error=c.s("note_failure", path=path))
    assert c.value(result) == 30
    assert c.value(child)[1:] == [result.id, 30]


@case
def a_task_that_is_replaced_by_a_group(c):
    result = c.s("replace_with", as_dict(group([c.s("add", 1, 2), c.s("mul", 10, 2)]))).apply_async()
    assert c.value(result) == [3, 20]


@case
def a_task_that_is_replaced_by_a_chord(c):
    result = c.s("replace_with", as_dict(chord([c.s("add", 1, 2), c.s("mul", 10, 2)], c.s("xsum")))).apply_async()
    assert c.value(result) == 23


@case
def a_replaced_task_in_a_chain(c):
    result = chain(
        c.s("add", 1, 2), c.si("replace_with", as_dict(chain(c.s("add", 5, 5), c.s("add", 1)))), c.s("mul", 10), c.s("ids"),
    ).apply_async()
    assert c.value(result)[2] == 110
    assert c.value(result.parent) == 110 and c.value(result.parent.parent) == 11


@case
def a_replaced_task_in_a_group(c):
    result = group([c.s("replace_with", as_dict(c.s("add", 1, 2))), c.s("add", 2, 2)]).apply_async()
    assert c.value(result) == [3, 4]


@case
def replaced_tasks_in_a_chord(c):
    header = [
        c.s("replace_with", as_dict(c.s("add", 1, 2))), c.s("add", 2, 2),
        c.s("replace_with", as_dict(chain(c.s("add", 3, 3), c.s("mul", 2)))),
        c.s("replace_with", as_dict(group([c.s("add", 4, 4), c.s("add", 5, 5)]))),
    ]
    *sums, grouped = c.value(chord(header)(c.s("identity")))
    # Celery 5.5 forgets the order of a group that takes a member's place, if it sends one for workers of 5.7.
    assert (sums, sorted(grouped)) == ([3, 4, 12], [8, 10])


@case
def a_body_that_is_replaced(c):
    inner = as_dict(chord([c.s("add", 1, 2), c.s("mul", 10, 2)], c.s("xsum")))
    result = chain(c.s("add", 1, 1), chord([c.s("add", 1), c.s("add", 2)], c.si("replace_with", inner)), c.s("add", 1))
    assert c.value(result.apply_async()) == 24


@case
def a_replacement_that_is_replaced(c):
    once = as_dict(c.s("replace_with", as_dict(c.s("ids", "new"))))
    result = chain(c.s("replace_with", once), c.s("echo", 1)).apply_async()
    assert c.value(result)[0][0][2] == "new"


@case
def a_replacement_that_fails(c):
    path = c.path()
    sig = chain(c.s("replace_with", as_dict(c.s("fail", "ValueError", "no"))), c.s("add", 1))
    sig.link_error(c.s("note_failure", path=path))
    result = sig.apply_async()
    assert type(c.error(result)) is ValueError
    assert c.lines(path, 1) == [f"{result.parent.id} ValueError no"]


@case
def a_task_that_is_added_to_a_chord(c):
    """It stands beside the one that added it, before or after."""
    added, added_id = c.named(c.s("add", 20, 20))
    header = [c.s("add_to_chord", as_dict(added)), c.s("add", 1, 1)]
    body = c.si("identity", "complete")
    assert c.value(chord(header)(body)) == "complete"
    assert c.value(added_id) == 40


@case
def nothing_is_added_where_there_is_no_chord(c):
    """The class of the error is the worker's own."""
    error = c.error(c.s("add_to_chord", as_dict(c.s("add", 1, 1))).apply_async())
    assert error.args == ("Current task is not member of any chord",)


# Stamps and headers.


class Tenants(StampingVisitor):
    """Stamps all of a canvas."""

    def on_signature(self, sig, **headers):
        return {"tenant": "acme", "stamped_headers": ["tenant"]}


@case
def stamps_along_a_canvas(c):
    (then, child), (errback, errback_id) = c.named(c.s("ids")), c.named(c.s("identity"))
    sig = chain(
        c.s("add", 1, 1), group([c.s("add", 1), c.s("add", 2)]), _linked(c.s("xsum"), then),
        c.s("add", 1).on_error(errback))
    sig.stamp(Tenants())
    assert c.value(sig.apply_async()) == 8
    assert c.value(child)[2] == 7
    c.is_nowhere(errback_id)


@case
def a_stamp_that_links_inherit(c):
    then, child = c.named(c.s("ids"))
    sig = _linked(c.s("add", 1, 1), then)
    sig.stamp(tenant="acme", append_stamps=True)
    assert c.value(sig.apply_async()) == 2
    assert c.value(child)[2] == 2


@case
def headers_of_a_project(c):
    sig = chain(c.s("add", 1, 1).set(headers={"first": 1}), c.si("flaky", "k", 0).set(headers={"second": [2]}))
    result = sig.apply_async(headers={"all": {"x": None}}, shadow="shown as")
    assert c.value(result) == 1


# Celery's own tasks that its clients no longer send.


@case
def the_old_task_of_groups(c):
    group_id, (first, second) = str(uuid.uuid4()), (c.named(c.s("add", nth)) for nth in (1, 2))
    result = [[group_id, None], [[[task_id, None], None] for _, task_id in (first, second)]]
    arguments = [[as_dict(sig) for sig, _ in (first, second)], result, group_id, [10]]
    sent = c.app.send_task("celery.group", arguments, queue=c.queue())
    assert [c.value(task_id) for _, task_id in (first, second)] == [11, 12]
    assert c.value(sent) == result
    assert c.children(sent) == [group_id]


@case
def the_old_task_of_groups_may_have_no_children(c):
    member, task_id = c.named(c.s("add", 1, 2))
    arguments = {"tasks": [as_dict(member)], "result": [["g", None], [[[task_id, None], None]]], "group_id": "g",
                 "partial_args": [], "add_to_parent": False}
    sent = c.app.send_task("celery.group", kwargs=arguments, queue=c.queue())
    assert c.value(task_id) == 3
    assert c.children(sent) == []


@case
def the_old_task_of_chords(c):
    body, body_id = c.named(c.s("xsum"))
    header = [as_dict(c.s("add", nth)) for nth in (1, 2)]
    sent = c.app.send_task("celery.chord", (header, as_dict(body)), {"partial_args": [10]}, queue=c.queue())
    assert c.value(sent)[0][0] == body_id
    assert c.value(body_id) == 23


# Signatures that come as arguments, and big canvases of all kinds.


@case
def all_at_once(c):
    inner = chord([chain(c.s("add", n, 1), group([c.s("add", 1), c.s("mul", 2)])) for n in range(2)], c.s("identity"))
    sig = chain(
        c.s("add", 1, 1),
        group([c.s("add", 1), chain(c.s("mul", 2), c.s("add", 1)), chord([c.s("add", 3), c.s("add", 4)], c.s("xsum"))]),
        c.s("xsum"), chord([inner.clone(), c.si("add", 9, 9)], c.s("echo")), c.s("ids"))
    result = sig.apply_async()
    assert c.value(result)[1] == result.parent.id
