//! What becomes of tasks of a pool that have no run to say so: the test is the pool, and carries it out.

use std::time::Duration;

use celeriac::backend::{DisabledBackend, ResultBackend};
use celeriac::protocol::{Exception, Map, Message, MetaResult, State, Value};
use celeriac::task::{CallEnd, Fate, How, Order, Raised, TaskOptions};
use celeriac::worker::Shutdown;
use tokio::sync::mpsc;

use super::elsewhere::{self, Asked, concluding, next, stored};
use super::rig::{Rig, late, message, raised, with_header};

async fn start(options: TaskOptions) -> (Rig, mpsc::UnboundedReceiver<Asked>) {
    let (app, calls) = concluding(options);
    (Rig::start(app).await, calls)
}

/// The fate that the pool is given now, of which task, and where it says what it did.
async fn fate(calls: &mut mpsc::UnboundedReceiver<Asked>) -> (String, Fate, Asked) {
    let (mut call, end) = next(calls).await;
    let fate = call.fate.take().expect("it is not to be run");
    (call.request.id.clone(), fate, (call, end))
}

/// Runs a message whose process is lost, and returns what the pool is told then.
async fn lose(rig: &Rig, calls: &mut mpsc::UnboundedReceiver<Asked>) -> (String, Fate, Asked) {
    rig.send(message("python", "one", vec![])).await;
    let (call, end) = next(calls).await;
    assert_eq!(call.fate, None);
    call.accepted(7);
    end.send(CallEnd::Lost("exitcode 3".into())).expect("the worker waits");
    fate(calls).await
}

fn refused() -> CallEnd {
    let exception = Exception::new("OperationalError", "no such table");
    CallEnd::Failure(Raised { shown: exception.to_string(), exception, traceback: "Traceback".into() })
}

#[tokio::test]
async fn a_lost_process_is_told_to_the_pool_and_the_message_waits_for_that() {
    let (rig, mut calls) = start(late()).await;
    let (id, fate, (call, end)) = lose(&rig, &mut calls).await;
    let text = "WorkerLostError('Worker exited prematurely: exitcode 3.')";
    assert_eq!((id.as_str(), fate.how, fate.exception.to_string().as_str()), ("one", How::Lost, text));
    assert_eq!(rig.transport.unsettled(), 1);
    // Something else than the worker would store.
    assert!(call.store(stored("one", State::Failure, Exception::new("ValueError", "theirs"))).await);
    assert_eq!(rig.transport.unsettled(), 1);
    end.send(CallEnd::Ignore).expect("the worker waits");
    rig.idle().await;
    assert_eq!(raised(&rig.result("one").await).to_string(), "ValueError('theirs')");
    assert!(rig.dead_letters().is_empty());
    rig.stop(Shutdown::Warm).await;
}

/// Runs a message whose body is being read, which ends so; and what is asked of the pool then.
async fn end_reading(rig: &Rig, calls: &mut mpsc::UnboundedReceiver<Asked>, message: Message, how: CallEnd) -> Asked {
    rig.send(message).await;
    let (call, end) = next(calls).await;
    call.reading();
    end.send(how).expect("the worker waits");
    next(calls).await
}

/// The third part of a body, as Celery writes it.
fn nothing_follows() -> Map {
    ["callbacks", "errbacks", "chain", "chord"].into_iter().map(|name| (name, Value::Null)).collect()
}

fn lost() -> CallEnd {
    CallEnd::Lost("exitcode 3".into())
}

/// It has had its run, though its task has not begun: its body is read no more, and kept where it is to be kept.
#[tokio::test]
async fn what_ended_with_its_body_is_concluded_without_it() {
    let kept = TaskOptions { acks_on_failure: Some(false), ..late() };
    // The options, what is unsettled while the pool concludes it, and how many dead letters there are in the end.
    for (options, unsettled, letters) in [(TaskOptions::default(), 0, 0), (late(), 1, 0), (kept, 1, 1)] {
        let (rig, mut calls) = start(options).await;
        let (mut call, end) = end_reading(&rig, &mut calls, elsewhere::pickled(), lost()).await;
        let fate = call.fate.take().expect("it is not to be run");
        assert_eq!((fate.how, fate.unread), (How::Lost, Some(nothing_follows())));
        assert_eq!(rig.transport.unsettled(), unsettled);
        end.send(CallEnd::Ignore).expect("the worker waits");
        rig.idle().await;
        assert_eq!(rig.transport.unsettled(), 0);
        let kept: Vec<_> = rig.dead_letters().into_iter().map(|letter| letter.body).collect();
        assert_eq!(kept, vec![elsewhere::pickled().body; letters]);
        rig.stop(Shutdown::Warm).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hard_limit_that_passes_while_a_body_is_read_acknowledges_it() {
    let limit = Some(Duration::from_secs(3));
    let (rig, mut calls) = start(TaskOptions { time_limit: limit, ..TaskOptions::default() }).await;
    rig.send(elsewhere::pickled()).await;
    let (mut call, end) = next(&mut calls).await;
    call.reading();
    assert_eq!((call.order().await, rig.transport.unsettled()), (Order::Kill, 1));
    // What its process was told to end with may be taken for what is wrong with the body.
    end.send(CallEnd::Undecodable { refused: false, reason: "SystemExit".into() }).expect("the worker waits");
    let (mut call, end) = next(&mut calls).await;
    let fate = call.fate.take().expect("it is not to be run");
    assert_eq!(rig.transport.unsettled(), 0, "it has had its run");
    assert_eq!((fate.how, fate.unread), (How::TimeLimit, Some(nothing_follows())));
    end.send(CallEnd::Ignore).expect("the worker waits");
    rig.idle().await;
    assert_eq!(rig.transport.unsettled(), 0);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn what_follows_a_body_that_is_not_read_again_is_told_where_it_is_known() {
    let (rig, mut calls) = start(TaskOptions::default()).await;
    let mut followed = message("python", "one", vec![]);
    followed.body = br#"[["\u0041"], {}, {"chord": {"task": "body"}}]"#.to_vec().into();
    let (mut call, end) = end_reading(&rig, &mut calls, followed, lost()).await;
    let unread = call.fate.take().and_then(|fate| fate.unread).expect("it is not to be read");
    let body: Map = [("task", "body")].into_iter().collect();
    assert_eq!(unread.get("chord"), Some(&Value::Map(body)));
    end.send(CallEnd::Ignore).expect("the worker waits");
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}

/// By the worker and not by a pool, which would send it without its arguments.
#[tokio::test]
async fn what_ended_with_its_body_is_sent_again_whole() {
    let early = TaskOptions { acks_late: Some(false), ..retried(1) };
    for options in [retried(1), early] {
        let (rig, mut calls) = start(options).await;
        let (call, end) = end_reading(&rig, &mut calls, elsewhere::pickled(), lost()).await;
        assert_eq!((call.fate.is_none(), call.request.retries), (true, 1));
        assert_eq!(call.message.body, elsewhere::pickled().body);
        call.accepted(7);
        end.send(CallEnd::Ignore).expect("the worker waits");
        rig.idle().await;
        assert_eq!(rig.transport.unsettled(), 0);
        rig.stop(Shutdown::Warm).await;
    }
}

#[tokio::test]
async fn the_policy_decides_unless_the_pool_knows_better() {
    let lost = TaskOptions { acks_on_failure: Some(false), ..late() };
    let requeued = TaskOptions { reject_on_worker_lost: Some(true), ..late() };
    let done = || CallEnd::Success { result: "7".into(), runtime: Default::default() };
    let back = || CallEnd::Reject { reason: String::new(), requeue: true };
    let again = || {
        let exception = Exception::billiard("WorkerLostError", "gone");
        CallEnd::Retry(Raised { shown: exception.to_string(), exception, traceback: "Traceback".into() })
    };
    let retried = TaskOptions { retry_on_worker_lost: Some(true), ..requeued.clone() };
    // Where no retries are left the message is settled as a failure's, and does not go back.
    let spent = TaskOptions { max_retries: Some(Some(0)), ..retried.clone() };
    let thrown = TaskOptions { acks_on_failure: Some(false), ..spent.clone() };
    // The options, what the pool says, how many dead letters there are then, and whether the message comes again.
    let rows = [
        (lost.clone(), CallEnd::Ignore, 1, false),
        (lost.clone(), done(), 0, false),
        (lost, refused(), 1, false),
        (requeued.clone(), back(), 0, true),
        (requeued.clone(), CallEnd::Ignore, 0, false),
        (requeued, done(), 0, false),
        (retried.clone(), again(), 0, false),
        (retried, back(), 0, true),
        (spent, CallEnd::Ignore, 0, false),
        (thrown, CallEnd::Ignore, 1, false),
    ];
    for (options, says, letters, comes_again) in rows {
        let (rig, mut calls) = start(options).await;
        let (_, _, (_call, end)) = lose(&rig, &mut calls).await;
        end.send(says.clone()).expect("the worker waits");
        if comes_again {
            let (call, end) = next(&mut calls).await;
            assert_eq!((call.request.id.as_str(), call.fate.as_ref()), ("one", None));
            end.send(CallEnd::Ignore).expect("the worker waits");
        }
        rig.idle().await;
        assert_eq!(rig.dead_letters().len(), letters, "{says:?}");
        rig.stop(Shutdown::Warm).await;
    }
}

#[tokio::test]
async fn what_the_pool_does_not_get_to_the_worker_does_or_gives_back() {
    let (rig, mut calls) = start(late()).await;
    let (_, _, (_call, end)) = lose(&rig, &mut calls).await;
    end.send(CallEnd::NotBegun).expect("the worker waits");
    assert!(raised(&rig.result("one").await).to_string().starts_with("WorkerLostError("));
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;

    // Where the pool has a backend that the worker has not, nobody would know.
    let (app, mut calls) = concluding(late());
    let memory =
        std::sync::Arc::new(celeriac::backend::MemoryBackend::new(Default::default()).expect("the defaults are good"));
    let rig = Rig::start_on(app, memory, std::sync::Arc::new(DisabledBackend)).await;
    let (_, _, (_call, end)) = lose(&rig, &mut calls).await;
    end.send(CallEnd::Lost("exitcode 1".into())).expect("the worker waits");
    let (call, end) = next(&mut calls).await;
    assert_eq!((call.request.id.as_str(), call.fate.as_ref()), ("one", None));
    end.send(CallEnd::Ignore).expect("the worker waits");
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_pool_is_told_of_limits_and_of_what_is_not_run() {
    let limit = std::time::Duration::from_millis(20);
    let (rig, mut calls) = start(TaskOptions { time_limit: Some(limit), ..late() }).await;
    rig.send(message("python", "slow", vec![])).await;
    let (mut call, end) = next(&mut calls).await;
    call.accepted(7);
    assert_eq!(call.order().await, Order::Kill);
    end.send(CallEnd::Lost("signal 15 (SIGTERM)".into())).expect("the worker waits");
    rig.send(with_header(message("python", "old", vec![]), "expires", "2000-01-01T00:00:00Z")).await;
    rig.send(message("python", "odd", vec![])).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        let (mut call, end) = next(&mut calls).await;
        let Some(fate) = call.fate.take() else {
            end.send(CallEnd::Undecodable { refused: true, reason: "no".into() }).expect("the worker waits");
            continue;
        };
        told.push((call.request.id.clone(), fate.how, fate.exception.to_string()));
        end.send(CallEnd::Ignore).expect("the worker waits");
    }
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let expired = How::Revoked { signal: None, is_expired: true };
    assert_eq!(
        told,
        [
            ("odd".to_owned(), How::Failed, "ContentDisallowed('no')".to_owned()),
            ("old".to_owned(), expired, "TaskRevokedError('expired')".to_owned()),
            ("slow".to_owned(), How::TimeLimit, "TimeLimitExceeded(0.02)".to_owned()),
        ]
    );
    rig.idle().await;
    assert_eq!(rig.dead_letters().len(), 1);
    for id in ["odd", "old", "slow"] {
        assert_eq!(rig.backend.fetch(id).await.expect("memory answers").map(|meta| meta.result), None::<MetaResult>);
    }
    rig.stop(Shutdown::Warm).await;
}

/// Options of a task that is run again at once, as often as that, and else goes back.
fn retried(most: u32) -> TaskOptions {
    TaskOptions {
        retry_on_worker_lost: Some(true),
        reject_on_worker_lost: Some(true),
        max_retries: Some(Some(most)),
        default_retry_delay: Some(Duration::ZERO),
        ..late()
    }
}

/// What is stored now.
async fn state(rig: &Rig) -> Option<State> {
    rig.backend.fetch("one").await.expect("memory answers").map(|meta| meta.status)
}

#[tokio::test]
async fn where_no_pool_retries_a_lost_run_the_worker_does() {
    let (rig, mut calls) = elsewhere::start(retried(1)).await;
    let pickled = elsewhere::pickled();
    rig.send(pickled.clone()).await;
    let (call, end) = next(&mut calls).await;
    call.accepted(7);
    end.send(CallEnd::Lost("exitcode 3".into())).expect("the worker waits");
    let (call, end) = next(&mut calls).await;
    while state(&rig).await != Some(State::Retry) {
        tokio::task::yield_now().await;
    }
    let meta = rig.backend.fetch("one").await.expect("memory answers").expect("it is stored");
    assert_eq!(raised(&meta).to_string(), "WorkerLostError('Worker exited prematurely: exitcode 3.')");
    assert_eq!((call.request.id.as_str(), call.request.retries, &call.message.body), ("one", 1, &pickled.body));
    // It is not its own parent, for it did not send itself.
    let headers = &call.request.headers;
    assert_eq!((headers.get("x-custom"), headers.get("parent_id")), (Some(&"kept".into()), None));
    assert_ne!(call.request.delivery_info.get("redelivered"), Some(&true.into()));
    // No retries are left, and it does not go back.
    call.accepted(8);
    end.send(CallEnd::Lost("exitcode 3".into())).expect("the worker waits");
    rig.idle().await;
    assert_eq!(state(&rig).await, Some(State::Failure));
    assert!(rig.dead_letters().is_empty());
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_retry_for_a_lost_process_that_cannot_be_sent_leaves_all_as_it_would_be_without() {
    let (rig, mut calls) = elsewhere::start(retried(9)).await;
    rig.send(message("python", "one", vec![])).await;
    let (call, end) = next(&mut calls).await;
    call.accepted(7);
    rig.transport.refuse_messages("celery", true);
    end.send(CallEnd::Lost("exitcode 3".into())).expect("the worker waits");
    let (call, end) = next(&mut calls).await;
    assert_eq!((call.request.id.as_str(), call.request.retries), ("one", 0));
    assert_eq!((call.request.delivery_info.get("redelivered"), state(&rig).await), (Some(&true.into()), None));
    end.send(CallEnd::Ignore).expect("the worker waits");
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn what_is_killed_by_its_limit_or_its_workers_end_is_not_retried_as_lost() {
    let limit = Some(Duration::from_millis(20));
    let (rig, mut calls) = elsewhere::start(TaskOptions { time_limit: limit, ..retried(9) }).await;
    rig.send(message("python", "one", vec![])).await;
    let (mut call, end) = next(&mut calls).await;
    call.accepted(7);
    assert_eq!(call.order().await, Order::Kill);
    end.send(CallEnd::Lost("signal 15 (SIGTERM)".into())).expect("the worker waits");
    assert_eq!(raised(&rig.result("one").await).to_string(), "TimeLimitExceeded(0.02)");
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;

    let (rig, mut calls) = elsewhere::start(retried(9)).await;
    rig.send(message("python", "one", vec![])).await;
    let (mut call, end) = next(&mut calls).await;
    call.accepted(7);
    rig.handle.shutdown(Shutdown::Cold);
    assert_eq!(call.order().await, Order::Kill);
    end.send(CallEnd::Lost("signal 15 (SIGTERM)".into())).expect("the worker waits");
    let transport = rig.stop(Shutdown::Cold).await;
    let left = transport.waiting("celery");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].headers.get("retries"), None);
}
