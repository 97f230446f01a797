//! What is done to a call that runs, or waits, and to nothing else.

use std::time::Duration;

use celeriac::task::{CallEnd, Order, Pool, Report};
use celeriac_python::frame::FromChild;
use tokio::time::sleep;

use super::{call, end, fate, pool, run_one, running, several, success, two};

/// Nothing is seen to happen for so long.
const WHILE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn orders_become_signals() {
    let (pool, mut nest) = pool(1, None);
    let (child, run, line) = running(&pool, &mut nest).await;
    for (order, signal) in [(Order::SoftLimit, 10), (Order::Signal(12), 12), (Order::Kill, 15)] {
        line.order(order);
        assert_eq!(nest.signal(), (child.index, signal), "{order:?}");
    }
    // It does not heed SIGTERM.
    assert_eq!(nest.signal(), (child.index, 9));
    nest.exited(child.index, "signal 9 (SIGKILL)");
    assert!(matches!(end(run).await, CallEnd::Lost(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_body_is_read_is_ended_as_one_that_runs() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    child.ready();
    let (run, mut line) = call(&pool, "a");
    assert_eq!(child.job().as_deref(), Some("a"));
    assert!(child.claims(), "it takes it up");
    child.say(&[FromChild::Reading]);
    assert!(matches!(line.report().await, Report::Reading));
    line.order(Order::SoftLimit);
    assert_eq!(nest.signal(), (child.index, 10));
    line.order(Order::Kill);
    assert_eq!(nest.signal(), (child.index, 15));
    nest.exited(child.index, "signal 15 (SIGTERM)");
    // It has had its run, and no other process is given it.
    assert!(matches!(end(run).await, CallEnd::Lost(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_wanted_before_its_body_was_read_is_ended_then() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    child.ready();
    let (run, line) = call(&pool, "a");
    assert_eq!(child.job().as_deref(), Some("a"));
    assert!(child.claims(), "it takes it up");
    line.order(Order::Kill);
    child.say(&[FromChild::Reading]);
    assert_eq!(nest.signal(), (child.index, 15));
    nest.exited(child.index, "signal 15 (SIGTERM)");
    assert!(matches!(end(run).await, CallEnd::Lost(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_begun_does_not_begin_when_it_is_not_wanted() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    let (waiting, line) = call(&pool, "never");
    line.order(Order::Signal(15));
    assert_eq!(end(waiting).await, CallEnd::NotBegun);
    let [(running, first), (given, second)] = two(&pool, &mut child).await;
    second.order(Order::Kill);
    first.order(Order::Kill);
    assert_eq!(nest.signal(), (child.index, 15));
    nest.exited(child.index, "signal 15 (SIGTERM)");
    assert!(matches!(end(running).await, CallEnd::Lost(_)));
    assert_eq!(end(given).await, CallEnd::NotBegun);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_in_a_child_that_is_to_end() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    let [(running, line), (given, _given_line)] = two(&pool, &mut child).await;
    line.order(Order::Kill);
    assert_eq!(nest.signal(), (child.index, 15));
    // Its task has caught what SIGTERM raises, and returns.
    child.say(&[FromChild::Ended(success())]);
    assert_eq!(end(running).await, success());
    let (next, _next_line) = call(&pool, "c");
    assert!(!child.claims(), "what it was given was taken back");
    assert_eq!(nest.signal(), (child.index, 9));
    assert_eq!(child.job(), None, "it was given nothing more");
    nest.exited(child.index, "signal 9 (SIGKILL)");
    let mut other = nest.fork(72);
    other.ready();
    for (id, run) in [("b", given), ("c", next)] {
        assert_eq!(other.job().as_deref(), Some(id));
        other.say(&[FromChild::Accepted, FromChild::Ended(success())]);
        assert_eq!(end(run).await, success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_call_that_is_signalled_waits_elsewhere() {
    for order in [Order::SoftLimit, Order::Signal(12)] {
        let (pool, mut nest) = pool(1, None);
        let mut child = nest.fork(71);
        let [(running, line), (given, _given_line)] = two(&pool, &mut child).await;
        line.order(order);
        nest.signal();
        assert!(!child.claims(), "{order:?} might have come to it");
        child.say(&[FromChild::Ended(success())]);
        assert_eq!(end(running).await, success());
        assert_eq!(child.job().as_deref(), Some("b"));
        child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
        assert_eq!(end(given).await, success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_to_a_child_until_the_signal_for_the_call_before_it_has_come() {
    for (order, number) in [(Order::SoftLimit, 10), (Order::Signal(12), 12)] {
        let (pool, mut nest) = pool(1, None);
        let (mut child, run, line) = running(&pool, &mut nest).await;
        line.order(order);
        line.order(order);
        let asked = [nest.late_signal(), nest.late_signal()];
        assert_eq!(asked, [(child.index, number); 2], "{order:?}");
        child.say(&[FromChild::Ended(success())]);
        assert_eq!(end(run).await, success());
        let (told, _told_line) = fate(&pool, "fate");
        let mut clerk = nest.fork(72);
        clerk.ready();
        assert_eq!(clerk.job().as_deref(), Some("fate"), "it waits for no signal");
        let (next, _next_line) = call(&pool, "b");
        assert!(child.is_silent(WHILE), "{order:?} would come to it");
        nest.delivered(child.index);
        assert!(child.is_silent(WHILE), "there is another one");
        nest.delivered(child.index);
        assert_eq!(child.job().as_deref(), Some("b"));
        child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
        clerk.say(&[FromChild::Accepted, FromChild::Ended(CallEnd::Ignore)]);
        assert_eq!((end(next).await, end(told).await), (success(), CallEnd::Ignore));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_signal_for_the_call_before_it_has_kept_from_beginning_is_not_blamed_for_that() {
    let (pool, mut nest) = pool(1, None);
    let (mut child, run, line) = running(&pool, &mut nest).await;
    let (innocent, _innocent_line) = call(&pool, "b");
    line.order(Order::Signal(15));
    assert_eq!(nest.signal(), (child.index, 15));
    child.say(&[FromChild::Ended(success())]);
    assert_eq!((end(run).await, child.job().as_deref()), (success(), Some("b")));
    for (how, pid) in [("exitcode 15", 72), ("signal 11 (SIGSEGV)", 73)] {
        nest.exited(child.index, how);
        child = nest.fork(pid);
        child.ready();
        assert_eq!(child.job().as_deref(), Some("b"), "two deaths would be its own");
    }
    child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(innocent).await, success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_begun_meanwhile_is_not_signalled_for_the_call_before_it() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    let [(running, line), (given, _given_line), (last, _last_line)] = several(&pool, &mut child, ["a", "b", "c"]).await;
    // The second begins, and the news of that is on its way.
    assert!(child.claims());
    // The first has not been short: nothing is given behind it any more.
    sleep(Duration::from_millis(20)).await;
    for order in [Order::SoftLimit, Order::Signal(15), Order::Kill] {
        line.order(order);
    }
    assert!(nest.is_silent(WHILE), "nobody is signalled");
    assert!(!child.claims(), "the third waits until it is known");
    child.say(&[FromChild::Ended(success()), FromChild::Ended(success())]);
    assert_eq!((end(running).await, end(given).await), (success(), success()));
    assert_eq!(child.job().as_deref(), Some("c"), "it is given anew");
    child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(last).await, success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_is_killed() {
    let (pool, mut nest) = pool(1, None);
    let (child, run, _line) = running(&pool, &mut nest).await;
    run.abort();
    assert_eq!(nest.signal(), (child.index, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_run_is_taken_back_before_it_begins() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    let [(first, _first_line), (doomed, line)] = two(&pool, &mut child).await;
    line.order(Order::Signal(15));
    assert_eq!(end(doomed).await, CallEnd::NotBegun);
    child.say(&[FromChild::Ended(success())]);
    assert_eq!(end(first).await, success());
    assert!(!child.claims());
    // Nobody was harmed for it.
    run_one(&pool, &mut child).await;
    pool.resize(2);
    assert_ne!(nest.fork(72).index, child.index);
}
