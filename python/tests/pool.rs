//! The pool's promises, kept without Python: the test is the nursery, and it is the children.

mod nest;
#[path = "pool/orders.rs"]
mod orders;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use celeriac::protocol::{Exception, Message, State};
use celeriac::task::{Call, CallEnd, Fate, How, Line, Order, Pool, Report, Request, StoredMeta};
use celeriac_python::frame::FromChild;
use celeriac_python::pool::{Prefork, PreforkOptions};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use nest::{Chick, Nest};

const SECONDS: Duration = Duration::from_secs(60);

/// A pool that is started, and its nursery.
fn pool(children: usize, max_tasks_per_child: Option<u32>) -> (Arc<Prefork>, Nest) {
    let (nest, socket) = Nest::new();
    (with(socket, children, PreforkOptions { max_tasks_per_child, ..PreforkOptions::default() }), nest)
}

fn with(nursery: UnixStream, children: usize, options: PreforkOptions) -> Arc<Prefork> {
    let pool = Arc::new(Prefork::new(nursery, options));
    pool.start(children);
    pool.start(children);
    pool
}

/// Hands over a call, which runs on its own.
fn call(pool: &Arc<Prefork>, id: &str) -> (JoinHandle<CallEnd>, Line) {
    let (call, line) = Call::new(request(id), message());
    (tokio::spawn(Arc::clone(pool).run(call)), line)
}

/// Hands over what has become of a task.
fn fate(pool: &Arc<Prefork>, id: &str) -> (JoinHandle<CallEnd>, Line) {
    let fate = Fate { how: How::Lost, exception: Exception::new("WorkerLostError", "gone"), unread: None };
    let (call, line) = Call::with_fate(request(id), message(), fate);
    (tokio::spawn(Arc::clone(pool).run(call)), line)
}

fn request(id: &str) -> Arc<Request> {
    Arc::new(Request { id: id.into(), task: "t".into(), ..Request::default() })
}

fn message() -> Message {
    Message { body: b"[[], {}, {}]".to_vec().into(), ..Message::default() }
}

fn success() -> CallEnd {
    CallEnd::Success { result: "None".into(), runtime: Duration::from_micros(9) }
}

fn meta(id: &str) -> StoredMeta {
    StoredMeta {
        task_id: id.into(),
        state: State::Success,
        payload: "{}".into(),
        reply_to: None,
        correlation_id: Some("c".into()),
    }
}

async fn end(run: JoinHandle<CallEnd>) -> CallEnd {
    timeout(SECONDS, run).await.expect("it ends in time").expect("it does not panic")
}

async fn accepted(line: &mut Line) -> u32 {
    match timeout(SECONDS, line.report()).await.expect("a report in time") {
        Report::Accepted { pid } => pid,
        other => panic!("{other:?}"),
    }
}

/// Runs so many calls that more short ones are expected.
async fn run_enough(pool: &Arc<Prefork>, child: &mut Chick) {
    for _ in 0..16 {
        assert_eq!(pool.places(), Some(1), "one for each child, until they are known to be short");
        run_one(pool, child).await;
    }
    // On a busy machine some were not.
    for _ in 0..100 {
        if pool.places() != Some(1) {
            break;
        }
        run_one(pool, child).await;
    }
}

/// Runs a call, so that its task is known to be short.
async fn run_one(pool: &Arc<Prefork>, child: &mut Chick) {
    let (run, _line) = call(pool, "first");
    assert_eq!(child.job().as_deref(), Some("first"));
    child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(run).await, success());
}

/// A child of a pool of one, and what it runs.
async fn running(pool: &Arc<Prefork>, nest: &mut Nest) -> (Chick, JoinHandle<CallEnd>, Line) {
    let mut child = nest.fork(71);
    child.ready();
    let (run, line) = begin(pool, &mut child).await;
    (child, run, line)
}

/// What a child runs that was free.
async fn begin(pool: &Arc<Prefork>, child: &mut Chick) -> (JoinHandle<CallEnd>, Line) {
    let (run, mut line) = call(pool, "a");
    assert_eq!(child.job().as_deref(), Some("a"));
    child.say(&[FromChild::Accepted]);
    accepted(&mut line).await;
    (run, line)
}

/// Two calls that one child has, the first of which has begun.
async fn two(pool: &Arc<Prefork>, child: &mut Chick) -> [(JoinHandle<CallEnd>, Line); 2] {
    several(pool, child, ["a", "b"]).await
}

/// The same of more. The child has all of them before the first begins: once that runs, it is taken for a short one for
/// milliseconds only, and nothing is given behind one that is not short.
async fn several<const COUNT: usize>(
    pool: &Arc<Prefork>,
    child: &mut Chick,
    ids: [&str; COUNT],
) -> [(JoinHandle<CallEnd>, Line); COUNT] {
    child.ready();
    run_enough(pool, child).await;
    assert_eq!(pool.places(), Some(8), "short ones may wait where they will be run");
    let mut calls = ids.map(|id| {
        let call = call(pool, id);
        assert_eq!(child.job().as_deref(), Some(id));
        call
    });
    child.say(&[FromChild::Accepted]);
    accepted(&mut calls[0].1).await;
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_to_a_child_that_is_free() {
    let (pool, mut nest) = pool(2, None);
    let (mut one, mut two) = (nest.fork(71), nest.fork(72));
    one.ready();
    let (first, mut line) = call(&pool, "a");
    assert_eq!(one.job().as_deref(), Some("a"));
    one.say(&[FromChild::Accepted]);
    assert_eq!((accepted(&mut line).await, pool.places()), (71, Some(2)));
    // Nobody knows how long it takes: the next one waits for whoever is free.
    let (second, mut line) = call(&pool, "b");
    two.ready();
    assert_eq!(two.job().as_deref(), Some("b"));
    let meta = meta("b");
    two.say(&[FromChild::Accepted, FromChild::Store { meta: meta.clone(), asks: Some(7) }]);
    assert_eq!(accepted(&mut line).await, 72);
    let Report::Store(told, answer) = line.report().await else { panic!("nothing to store") };
    assert_eq!(told, meta);
    answer.send(true).expect("the pool waits");
    assert_eq!(two.stored(), Some((7, true)));
    two.say(&[FromChild::Ended(CallEnd::Ignore)]);
    one.say(&[FromChild::Ended(success())]);
    assert_eq!((end(first).await, end(second).await), (success(), CallEnd::Ignore));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_child_takes_one_task_along_and_the_next_one_gets_the_rest() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    let [(running, _), (given, _)] = two(&pool, &mut child).await;
    let index = child.index;
    drop(child);
    nest.exited(index, "signal 9 (SIGKILL)");
    let CallEnd::Lost(how) = end(running).await else { panic!("it is not lost") };
    assert!(how.starts_with("signal 9 (SIGKILL) Job: "), "{how}");
    let mut next = nest.fork(72);
    assert_ne!(next.index, index);
    next.ready();
    assert_eq!(next.job().as_deref(), Some("b"));
    next.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(given).await, success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_kills_two_children_before_it_begins_is_lost_and_the_others_go_on() {
    let (pool, mut nest) = pool(1, None);
    let (fatal, mut line) = call(&pool, "fatal");
    let (next, _line) = call(&pool, "next");
    for pid in [71, 72] {
        let mut child = nest.fork(pid);
        child.ready();
        assert_eq!(child.job().as_deref(), Some("fatal"));
        assert!(child.claims());
        nest.exited(child.index, "signal 11 (SIGSEGV)");
    }
    // Its message is acknowledged, so that it comes to no other worker.
    assert_eq!(accepted(&mut line).await, 72);
    assert!(matches!(end(fatal).await, CallEnd::Lost(how) if how.starts_with("signal 11 (SIGSEGV) Job: ")));
    let mut child = nest.fork(73);
    child.ready();
    assert_eq!(child.job().as_deref(), Some("next"));
    child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(next).await, success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_child_has_said_is_heard_before_it_is_buried() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    child.ready();
    let (run, _line) = call(&pool, "a");
    child.job();
    child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    // Its socket stays open, as when it has forked a process that lives longer.
    nest.exited(child.index, "exitcode 0");
    assert_eq!(end(run).await, success());
    assert_ne!(nest.fork(72).index, child.index);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_replaced_after_its_tasks_and_when_it_makes_no_sense() {
    let (pool, mut nest) = pool(1, Some(1));
    let mut child = nest.fork(71);
    child.ready();
    run_one(&pool, &mut child).await;
    assert_eq!(child.job(), None, "it is told to end");
    nest.exited(child.index, "exitcode 0");
    let mut child = nest.fork(72);
    child.ready();
    child.say_bytes(b"\xff\xff\xff\xffno frame");
    assert_eq!(nest.signal(), (child.index, 15));
    nest.exited(child.index, "signal 15 (SIGTERM)");
    nest.fork(73);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_nurserys_children_take_the_places_of_those_that_have_ended_their_tasks() {
    let (pool, mut nest) = pool(2, None);
    let (mut busy, mut idle) = (nest.fork(71), nest.fork(72));
    busy.ready();
    let (running, line) = begin(&pool, &mut busy).await;
    idle.ready();
    let (mut other, socket) = Nest::new();
    pool.renew(socket, None);
    let (next, _line) = call(&pool, "b");
    assert_eq!(idle.job(), None, "it is given nothing more");
    nest.exited(idle.index, "exitcode 0");
    let mut new = other.fork(73);
    new.ready();
    assert_eq!(new.job().as_deref(), Some("b"));
    new.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(next).await, success());
    // Who has forked it ends it.
    line.order(Order::SoftLimit);
    assert_eq!(nest.signal(), (busy.index, 10));
    busy.say(&[FromChild::Ended(success())]);
    assert_eq!((end(running).await, busy.job()), (success(), None));
    nest.exited(busy.index, "exitcode 0");
    other.fork(74);
    assert!(nest.is_left(), "nobody needs the first one any more");
    assert!(timeout(Duration::from_millis(100), pool.failed()).await.is_err());
    drop(other);
    assert!(pool.failed().await.to_string().contains("is gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_grows_at_once_and_shrinks_when_a_child_is_idle() {
    let (pool, mut nest) = pool(1, None);
    let mut one = nest.fork(71);
    one.ready();
    let (run, _held) = begin(&pool, &mut one).await;
    pool.resize(2);
    let mut two = nest.fork(72);
    two.ready();
    let (other, _) = call(&pool, "b");
    assert_eq!(two.job().as_deref(), Some("b"));
    two.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(other).await, success());
    pool.resize(1);
    assert_eq!(two.job(), None, "the idle one ends");
    nest.exited(two.index, "exitcode 0");
    one.say(&[FromChild::Ended(success())]);
    assert_eq!(end(run).await, success());
    let (last, _) = call(&pool, "c");
    assert_eq!(one.job().as_deref(), Some("c"), "nobody has come in its place");
    one.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(last).await, success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_stops_when_its_children_have() {
    let (pool, mut nest) = pool(2, None);
    let (mut one, mut two) = (nest.fork(71), nest.fork(72));
    one.ready();
    let (_running, _held) = begin(&pool, &mut one).await;
    let (waiting, _line) = call(&pool, "b");
    let stopping = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.stop().await }
    });
    assert_eq!((one.job(), two.job()), (None, None));
    assert_eq!(end(waiting).await, CallEnd::NotBegun);
    nest.exited(one.index, "exitcode 0");
    nest.exited(two.index, "exitcode 0");
    timeout(SECONDS, stopping).await.expect("it stops in time").expect("it does not panic");
    assert_eq!(end(call(&pool, "late").0).await, CallEnd::NotBegun);
    assert!(nest.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_does_not_come_up_is_killed_and_replaced() {
    let (mut nest, socket) = Nest::new();
    let options = PreforkOptions { alive_timeout: Duration::from_secs(2), ..PreforkOptions::default() };
    let _pool = with(socket, 2, options);
    let (silent, mut other) = (nest.fork(71), nest.fork(72));
    other.ready();
    assert_eq!(nest.signal(), (silent.index, 9));
    nest.exited(silent.index, "signal 9 (SIGKILL)");
    nest.fork(73);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nursery_that_is_gone_ends_the_pool_and_gives_back_what_has_not_begun() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    let [(running, _line), (given, _other)] = two(&pool, &mut child).await;
    drop(nest);
    assert_eq!(end(given).await, CallEnd::NotBegun);
    assert!(matches!(end(running).await, CallEnd::Lost(how) if how.starts_with("signal 9 (SIGKILL) Job: ")));
    let why = timeout(SECONDS, pool.failed()).await.expect("it is told in time");
    assert_eq!(why.to_string(), "the process that forks the others is gone");
    assert_eq!(end(call(&pool, "late").0).await, CallEnd::NotBegun);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nursery_that_does_not_answer_ends_the_pool_and_what_runs_may_end() {
    let (mut nest, socket) = Nest::new();
    let pool = with(socket, 1, PreforkOptions { ping_every: Duration::from_millis(400), ..PreforkOptions::default() });
    let mut child = nest.fork(71);
    child.ready();
    let (running, _held) = begin(&pool, &mut child).await;
    let (waiting, _line) = call(&pool, "b");
    // From here on nothing is answered.
    let why = timeout(SECONDS, pool.failed()).await.expect("it is told in time");
    assert_eq!(why.to_string(), "the process that forks the others does not answer");
    assert_eq!(end(waiting).await, CallEnd::NotBegun);
    child.say(&[FromChild::Ended(success())]);
    assert_eq!(end(running).await, success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_ends_a_thread_and_nobody_waits_for_one_that_is_to_be_over() {
    let (mut nest, socket) = Nest::new();
    let pool = with(socket, 1, PreforkOptions { has_processes: false, ..PreforkOptions::default() });
    assert!(!pool.ends_runs());
    let mut thread = nest.fork(71);
    thread.ready();
    let (run, line) = begin(&pool, &mut thread).await;
    for order in [Order::SoftLimit, Order::Signal(15), Order::Kill] {
        line.order(order);
    }
    assert!(matches!(end(run).await, CallEnd::Lost(_)));
    // The thread goes on, and takes the next one when it is done.
    let (next, _line) = call(&pool, "b");
    thread.say(&[FromChild::Ended(success())]);
    assert_eq!(thread.job().as_deref(), Some("b"));
    thread.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(next).await, success());
    pool.resize(2);
    assert_eq!(nest.fork(72).index, 2, "nothing else was asked of the nursery");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_thread_that_reads_what_was_to_be_over_before() {
    let (mut nest, socket) = Nest::new();
    let pool = with(socket, 1, PreforkOptions { has_processes: false, ..PreforkOptions::default() });
    let mut thread = nest.fork(71);
    thread.ready();
    let (run, line) = call(&pool, "a");
    assert_eq!(thread.job().as_deref(), Some("a"));
    assert!(thread.claims(), "it takes it up");
    line.order(Order::Kill);
    // An order that comes after it is obeyed, too: this one is given time to come before.
    tokio::time::sleep(Duration::from_millis(100)).await;
    thread.say(&[FromChild::Reading]);
    assert!(matches!(end(run).await, CallEnd::Lost(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_whose_call_was_given_up_waits_for_no_answer() {
    let (mut nest, socket) = Nest::new();
    let pool = with(socket, 1, PreforkOptions { has_processes: false, ..PreforkOptions::default() });
    let mut thread = nest.fork(71);
    thread.ready();
    for is_dropped in [true, false] {
        let (run, line) = begin(&pool, &mut thread).await;
        if is_dropped {
            run.abort();
            assert!(timeout(SECONDS, run).await.expect("it ends in time").is_err());
        } else {
            line.order(Order::Kill);
            assert!(matches!(end(run).await, CallEnd::Lost(_)));
        }
        thread.say(&[FromChild::Store { meta: meta("a"), asks: Some(7) }]);
        assert_eq!(thread.stored(), Some((7, false)), "dropped: {is_dropped}");
        thread.say(&[FromChild::Ended(success())]);
    }
    // One that is given up while it waits.
    let (run, mut line) = begin(&pool, &mut thread).await;
    thread.say(&[FromChild::Store { meta: meta("a"), asks: Some(8) }]);
    let Report::Store(_, unanswered) = line.report().await else { panic!("nothing to store") };
    line.order(Order::Kill);
    assert!(matches!(end(run).await, CallEnd::Lost(_)));
    drop(unanswered);
    assert_eq!(thread.stored(), Some((8, false)));
}

/// How many bytes of memory this process has.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("among others");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes << 10
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_costs_its_room_once() {
    const LARGE: usize = 64 << 20;
    let (pool, mut nest) = pool(1, None);
    let (mut child, run, mut line) = running(&pool, &mut nest).await;
    let before = resident();
    child.say(&[FromChild::Store { meta: StoredMeta { payload: vec![7; LARGE].into(), ..meta("a") }, asks: Some(7) }]);
    let Report::Store(told, answer) = line.report().await else { panic!("nothing to store") };
    assert_eq!(told.payload.len(), LARGE);
    drop(told);
    answer.send(true).expect("the pool waits");
    assert_eq!(child.stored(), Some((7, true)));
    child.say(&[FromChild::Ended(success())]);
    assert_eq!(end(run).await, success());
    let grown = resident().saturating_sub(before);
    assert!(grown < LARGE / 4, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_task_goes_before_tasks_to_who_is_free() {
    let (pool, mut nest) = pool(1, Some(2));
    let mut child = nest.fork(71);
    let (told, _line) = fate(&pool, "lost");
    let (run, _running) = call(&pool, "a");
    child.ready();
    assert_eq!(child.job().as_deref(), Some("lost"));
    // It is no run: the child has two of these all the same, and may be ended by neither.
    child.say(&[FromChild::Accepted, FromChild::Ended(CallEnd::Ignore)]);
    assert_eq!(end(told).await, CallEnd::Ignore);
    assert_eq!(child.job().as_deref(), Some("a"));
    child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(run).await, success());
    run_one(&pool, &mut child).await;
    assert_eq!(child.job(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_task_waits_for_no_task() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    child.ready();
    let (run, mut line) = call(&pool, "long");
    child.job();
    child.say(&[FromChild::Accepted]);
    accepted(&mut line).await;
    let told = [fate(&pool, "one"), fate(&pool, "two")];
    let mut clerk = nest.fork(72);
    clerk.ready();
    // It takes no task.
    let (next, _next_line) = call(&pool, "next");
    for id in ["one", "two"] {
        assert_eq!(clerk.job().as_deref(), Some(id));
        clerk.say(&[FromChild::Accepted, FromChild::Ended(CallEnd::Ignore)]);
    }
    for (told, _) in told {
        assert_eq!(end(told).await, CallEnd::Ignore);
    }
    assert_eq!(clerk.job(), None, "there is nothing left for it");
    nest.exited(clerk.index, "exitcode 0");
    child.say(&[FromChild::Ended(success())]);
    assert_eq!((end(run).await, child.job().as_deref()), (success(), Some("next")));
    child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(next).await, success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kills_the_process_that_carries_it_out_is_not_tried_again() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    child.ready();
    let (fatal, _line) = fate(&pool, "fatal");
    child.job();
    let (next, _next_line) = fate(&pool, "next");
    child.say(&[FromChild::Accepted]);
    nest.exited(child.index, "exitcode 3");
    assert!(matches!(end(fatal).await, CallEnd::Lost(_)));
    let mut child = nest.fork(72);
    child.ready();
    assert_eq!(child.job().as_deref(), Some("next"));
    drop(nest);
    // Nobody forks any more.
    let (late, _late_line) = fate(&pool, "late");
    assert_eq!(end(late).await, CallEnd::NotBegun);
    drop((next, child));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_long_call_goes_to_who_is_idle() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    let [(long, _long_line), (given, mut given_line)] = two(&pool, &mut child).await;
    pool.resize(2);
    let mut idle = nest.fork(72);
    idle.ready();
    assert_eq!(idle.job().as_deref(), Some("b"), "it has not begun where it was");
    idle.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!((accepted(&mut given_line).await, end(given).await), (72, success()));
    child.say(&[FromChild::Ended(success())]);
    assert_eq!(end(long).await, success());
    assert!(!child.claims(), "it passes over what was taken back");
    // What comes then is its own.
    let both = [call(&pool, "c"), call(&pool, "d")];
    for child in [&mut child, &mut idle] {
        child.job();
        child.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    }
    for (run, _line) in both {
        assert_eq!(end(run).await, success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_been_claimed_stays_where_it_is() {
    let (pool, mut nest) = pool(1, None);
    let mut child = nest.fork(71);
    let [(long, _long_line), (given, _given_line)] = two(&pool, &mut child).await;
    // It is about to begin, and the end of the one before is on its way.
    assert!(child.claims());
    pool.resize(2);
    let mut idle = nest.fork(72);
    idle.ready();
    let (next, _next_line) = call(&pool, "next");
    assert_eq!(idle.job().as_deref(), Some("next"));
    child.say(&[FromChild::Ended(success()), FromChild::Ended(success())]);
    assert_eq!((end(long).await, end(given).await), (success(), success()));
    idle.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(next).await, success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_has_hung_up_and_does_not_end_is_killed_and_replaced() {
    let (mut nest, socket) = Nest::new();
    let options = PreforkOptions { exit_timeout: Duration::from_millis(200), ..PreforkOptions::default() };
    let pool = with(socket, 1, options);
    let mut child = nest.fork(71);
    let [(running, _line), (given, _given_line)] = two(&pool, &mut child).await;
    let index = child.index;
    drop(child);
    assert_eq!(nest.signal(), (index, 9));
    nest.exited(index, "signal 9 (SIGKILL)");
    assert!(matches!(end(running).await, CallEnd::Lost(how) if how.starts_with("signal 9 (SIGKILL) Job: ")));
    let (mut next, place) = nest.fork_in_place(72);
    assert_eq!(place, 0, "it has the place of the one before");
    next.ready();
    assert_eq!(next.job().as_deref(), Some("b"));
    next.say(&[FromChild::Accepted, FromChild::Ended(success())]);
    assert_eq!(end(given).await, success());
}
