//! What is done to a call that runs, or waits, and to nothing else.

use std::time::Duration;

use celeriac::task::{CallEnd, Order, Pool};
use celeriac_python::frame::FromChild;
use tokio::time::sleep;

use super::{accepted, call, end, pool, run_one, success, two};

#[tokio::test(flavor = "multi_thread")]
async fn orders_become_signals() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    child.ready();
    let (run, mut line) = call(&pool, "a");
    child.job();
    child.say(&[FromChild::Accepted]);
    accepted(&mut line).await;
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
async fn what_has_begun_meanwhile_is_not_signalled_for_the_call_before_it() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    let [(running, line), (given, _given_line)] = two(&pool, &mut child).await;
    let (last, _last_line) = call(&pool, "c");
    assert_eq!(child.job().as_deref(), Some("c"));
    // The second begins, and the news of that is on its way.
    assert!(child.claims());
    // The first has not been short: nothing is given behind it any more.
    sleep(Duration::from_millis(20)).await;
    for order in [Order::SoftLimit, Order::Signal(15), Order::Kill] {
        line.order(order);
    }
    assert!(nest.is_silent(Duration::from_millis(300)), "nobody is signalled");
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
    let mut child = nest.fork(71);
    child.ready();
    let (run, mut line) = call(&pool, "a");
    child.job();
    child.say(&[FromChild::Accepted]);
    accepted(&mut line).await;
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
