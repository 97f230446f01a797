//! The worker's promises, kept without a broker: a task's way from a message to its result and settlement.

#[path = "worker/canvas.rs"]
mod canvas;
#[path = "worker/commands.rs"]
mod commands;
#[path = "worker/control.rs"]
mod control;
#[path = "worker/elsewhere.rs"]
mod elsewhere;
#[path = "worker/fates.rs"]
mod fates;
#[path = "worker/hostile.rs"]
mod hostile;
#[path = "worker/observed.rs"]
mod observed;
#[path = "worker/rig.rs"]
mod rig;
#[path = "worker/steering.rs"]
mod steering;
#[path = "worker/trace.rs"]
mod trace;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::App;
use celeriac::backend::ResultBackend;
use celeriac::config::Config;
use celeriac::protocol::{Exception, Message, MetaResult, State, Value};
use celeriac::task::{Interrupt, Outcome, Retry, Run, TaskContext, TaskOptions};
use celeriac::transport::{Publication, Transport};
use celeriac::worker::Shutdown;

use rig::{Handler, Rig, echo, forever, late, message, raised, task, with_header};

#[tokio::test]
async fn a_message_becomes_a_result() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    rig.send(message("echo", "one", vec![7.into()])).await;
    let meta = rig.result("one").await;
    assert_eq!((meta.status, meta.result), (State::Success, MetaResult::Value(7.into())));
    assert!(meta.date_done.is_some());
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_panic_is_a_failure_and_the_worker_goes_on() {
    let broken = task("broken", TaskOptions::default(), |_, _| panic!("out of tune"));
    let rig = Rig::start(App::new("test").task(broken).task(echo())).await;
    rig.send(message("broken", "one", vec![])).await;
    rig.send(message("echo", "two", vec![1.into()])).await;
    assert!(raised(&rig.result("one").await).to_string().contains("out of tune"));
    assert_eq!(rig.result("two").await.status, State::Success);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_retry_is_published_as_celery_publishes_it() {
    let options = TaskOptions { max_retries: Some(Some(1)), ..TaskOptions::default() };
    let flaky = task("flaky", options, |_, _| {
        Outcome::Retry(Retry::default().exception(Exception::new("KeyError", "k")).countdown(Duration::from_secs(60)))
    });
    let rig = Rig::start(App::new("test").task(flaky)).await;
    rig.send(with_header(message("flaky", "one", vec![3.into()]), "x-custom", "kept")).await;
    // The new message is held for its ETA, so it is out and not waiting; shut down, it is back in the queue.
    while rig.backend.fetch("one").await.expect("memory answers").is_none() {
        tokio::task::yield_now().await;
    }
    let stored = rig.backend.fetch("one").await.expect("memory answers").expect("just seen");
    assert_eq!((&stored.status, raised(&stored).to_string()), (&State::Retry, "KeyError('k')".to_owned()));
    let transport = rig.stop(Shutdown::Warm).await;
    let [again] = transport.waiting("celery").try_into().expect("one message waits");
    for (name, value) in [
        ("id", Value::from("one")),
        ("retries", 1.into()),
        ("eta", "2026-11-22T12:01:00+00:00".into()),
        ("parent_id", "one".into()),
        ("ignore_result", false.into()),
        ("x-custom", "kept".into()),
    ] {
        assert_eq!(again.headers.get(name), Some(&value), "{name}");
    }
}

#[tokio::test]
async fn no_retries_left_is_the_failure_that_was_named() {
    let options = TaskOptions { max_retries: Some(Some(0)), ..TaskOptions::default() };
    let flaky = task("flaky", options, |_, _| {
        Interrupt::from(Retry::default().exception(Exception::new("KeyError", "k"))).into()
    });
    let rig = Rig::start(App::new("test").task(flaky)).await;
    rig.send(message("flaky", "one", vec![])).await;
    let meta = rig.result("one").await;
    assert_eq!((&meta.status, raised(&meta).to_string()), (&State::Failure, "KeyError('k')".to_owned()));
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn an_error_is_retried_by_itself_and_later_each_time() {
    let options = TaskOptions {
        autoretry: true,
        max_retries: Some(Some(3)),
        retry_backoff: Some(Duration::from_secs(2)),
        retry_backoff_max: Some(Duration::from_secs(7)),
        retry_jitter: Some(false),
        ..TaskOptions::default()
    };
    let broken = task("broken", options, |_, _| Interrupt::from(Exception::new("KeyError", "k")).into());
    let rig = Rig::start(App::new("test").task(broken)).await;
    for (retries, id) in [(0, "first"), (1, "second"), (2, "third"), (3, "last")] {
        rig.send(with_header(message("broken", id, vec![]), "retries", retries)).await;
    }
    let last = rig.result("last").await;
    assert_eq!((&last.status, raised(&last).to_string()), (&State::Failure, "KeyError('k')".to_owned()));
    for id in ["first", "second", "third"] {
        while rig.backend.fetch(id).await.expect("memory answers").is_none() {
            tokio::task::yield_now().await;
        }
    }
    let transport = rig.stop(Shutdown::Warm).await;
    let again = transport.waiting("celery").into_iter();
    let header = |message: &Message, name| message.headers.get(name).cloned().unwrap_or_default();
    let mut found: Vec<_> = again.map(|one| ["retries", "eta"].map(|name| header(&one, name))).collect();
    found.sort_by_key(|[retries, _]| retries.as_i64());
    let expected = [(1, "02"), (2, "04"), (3, "07")];
    let expected =
        expected.map(|(retries, second)| [retries.into(), format!("2026-11-22T12:00:{second}+00:00").into()]);
    assert_eq!(found, expected);
}

#[tokio::test]
async fn expired_tasks_are_revoked_and_do_not_run() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let counting = task("counting", TaskOptions::default(), move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        Outcome::Success(Value::Null)
    });
    let rig = Rig::start(App::new("test").task(counting)).await;
    rig.send(with_header(message("counting", "one", vec![]), "expires", "2026-11-22T11:59:59+00:00")).await;
    let meta = rig.result("one").await;
    assert_eq!((&meta.status, raised(&meta).to_string()), (&State::Revoked, "TaskRevokedError('expired')".to_owned()));
    rig.idle().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_is_held_until_its_eta() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    rig.send(with_header(message("echo", "one", vec![1.into()]), "eta", "2026-11-22T12:00:10+00:00")).await;
    rig.send(message("echo", "two", vec![2.into()])).await;
    rig.result("two").await;
    assert_eq!(rig.backend.fetch("one").await.expect("memory answers"), None);
    rig.clock.advance(Duration::from_secs(10));
    assert_eq!(rig.result("one").await.status, State::Success);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(start_paused = true)]
async fn limits_end_a_handler() {
    let limited = |time_limit, soft_time_limit| TaskOptions { time_limit, soft_time_limit, ..TaskOptions::default() };
    let app = App::new("test")
        .task(forever("hard", limited(Some(Duration::from_secs(2)), None)))
        .task(forever("soft", limited(None, Some(Duration::from_millis(1500)))));
    let rig = Rig::start(app).await;
    rig.send(message("hard", "one", vec![])).await;
    rig.send(message("soft", "two", vec![])).await;
    assert_eq!(raised(&rig.result("one").await).to_string(), "TimeLimitExceeded(2)");
    assert_eq!(raised(&rig.result("two").await).to_string(), "SoftTimeLimitExceeded()");
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn what_stock_throws_away_is_kept_with_its_reason() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    let mut no_id = message("echo", "", vec![]);
    no_id.headers.remove("id");
    let mut no_type = message("echo", "no-type", vec![]);
    no_type.content_type = None;
    let mut pickled = message("echo", "pickled", vec![]);
    pickled.content_type = Some("application/x-python-serialize".into());
    let mut cut = message("echo", "cut", vec![]);
    cut.body = cut.body.slice(..4);
    let rows = [
        (message("nobody", "unknown", vec![]), Some("NotRegistered('nobody')"), "unregistered task of type 'nobody'"),
        (no_id, None, "the header 'id' is missing"),
        (no_type, Some("InvalidTaskError("), "no content type"),
        (pickled, Some("ContentDisallowed("), "Refusing to deserialize untrusted content of type pickle"),
        (cut, Some("DecodeError("), ""),
        (with_header(message("echo", "eta", vec![]), "eta", 5), Some("InvalidTaskError("), "invalid ETA value 5"),
        (
            with_header(message("echo", "zip", vec![]), "compression", "odd"),
            Some("DecodeError("),
            "unknown compression",
        ),
        (Message::default(), None, ""),
    ];
    for (number, (message, exception, reason)) in rows.into_iter().enumerate() {
        let id = message.headers.get("id").and_then(Value::as_str).map(str::to_owned);
        rig.send(message.clone()).await;
        if let (Some(id), Some(exception)) = (id, exception) {
            let shown = raised(&rig.result(&id).await).to_string();
            assert!(shown.starts_with(exception), "{shown}");
        }
        rig.idle().await;
        let letters = rig.dead_letters();
        assert_eq!(letters.len(), number + 1, "{reason}");
        let letter = letters.last().expect("just counted");
        let death = letter.headers.get("x-celeriac-death").and_then(Value::as_map).expect("a note").clone();
        let noted = death.get("reason").and_then(Value::as_str).expect("a reason").to_owned();
        assert!(noted.contains(reason), "{noted}");
        assert_eq!(death.get("queue"), Some(&"celery".into()));
        assert_eq!(letter.body, message.body);
    }
    rig.send(message("echo", "after", vec![1.into()])).await;
    assert_eq!(rig.result("after").await.status, State::Success);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_cold_shutdown_gives_back_what_is_acknowledged_late() {
    let rig =
        Rig::start(App::new("test").task(forever("late", late())).task(forever("early", TaskOptions::default()))).await;
    rig.send(message("late", "one", vec![])).await;
    rig.send(message("early", "two", vec![])).await;
    while rig.transport.unsettled() != 1 || !rig.transport.waiting("celery").is_empty() {
        tokio::task::yield_now().await;
    }
    let backend = Arc::clone(&rig.backend);
    let transport = rig.stop(Shutdown::Cold).await;
    let waiting: Vec<_> = transport.waiting("celery");
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].headers.get("id"), Some(&"one".into()));
    let early = backend.fetch("two").await.expect("memory answers").expect("its end is stored");
    assert_eq!(early.status, State::Retry);
}

#[tokio::test]
async fn a_warm_shutdown_finishes_what_runs_and_gives_back_the_rest() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let begun = Arc::new(tokio::sync::Semaphore::new(0));
    let (waits, begins) = (Arc::clone(&gate), Arc::clone(&begun));
    let gated = Handler {
        name: "gated",
        options: late(),
        run: move |_, _| {
            let (gate, begun) = (Arc::clone(&waits), Arc::clone(&begins));
            Run::from_future(async move {
                begun.add_permits(1);
                gate.acquire().await.expect("the gate stays").forget();
                Outcome::Success(Value::Null)
            })
        },
    };
    let config = Config { worker_concurrency: Some(1), ..Config::default() };
    let rig = Rig::start(App::new("test").task(gated).with_config(config)).await;
    for id in ["one", "two", "three"] {
        rig.send(message("gated", id, vec![])).await;
    }
    begun.acquire().await.expect("it begins").forget();
    rig.handle.shutdown(Shutdown::Warm);
    let (backend, transport) = (Arc::clone(&rig.backend), rig.transport.clone());
    while transport.waiting("celery").len() < 2 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    rig.stop(Shutdown::Warm).await;
    let status = backend.fetch("one").await.expect("memory answers").map(|meta| meta.status);
    assert_eq!(status, Some(State::Success));
    assert_eq!((transport.waiting("celery").len(), transport.unsettled()), (2, 0));
}

/// What no serializer has a form for.
fn too_deep() -> Value {
    (0..1100).fold(Value::from(1), |inner, _| Value::List(vec![inner]))
}

/// A log that a test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics with it").write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_is_called_a_success_that_cannot_be_stored() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    // With one subscriber alone, a thread of another test that says a line first would decide for all that nobody hears it.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let _logging = tracing::subscriber::set_default(subscriber);
    let deep = task("deep", TaskOptions::default(), |_, _| Outcome::Success(too_deep()));
    let rig = Rig::start(App::new("test").task(deep).task(echo())).await;
    rig.send(message("echo", "good", vec![7.into()])).await;
    rig.result("good").await;
    rig.send(message("deep", "bad", vec![])).await;
    assert_eq!(raised(&rig.result("bad").await).exc_type, "EncodeError");
    rig.stop(Shutdown::Warm).await;
    let said = String::from_utf8(log.0.lock().expect("nobody panics with it").clone()).expect("text");
    let of = |what: &str| said.lines().filter(|line| line.contains(what)).count();
    assert_eq!((of("Task echo[good] succeeded in "), of("Task deep[bad] succeeded")), (1, 0), "{said}");
    assert_eq!(of("Task deep[bad] raised unexpected: EncodeError("), 1, "{said}");
}

/// The arguments of what was raised are stored as texts where the serializer has no form for them
/// (celery/utils/serialization.py `ensure_serializable`); a retry that has been published stays one.
#[tokio::test(start_paused = true)]
async fn what_was_raised_is_stored_though_its_arguments_cannot_be_encoded() {
    let raised_by = |context: &TaskContext| {
        let exception = Exception::with_args("KeyError", "builtins", [Value::from("bad"), too_deep()]);
        match context.request().retries {
            0 => Outcome::Retry(context.retry().exception(exception).countdown(Duration::from_secs(60))),
            _ => Outcome::Failure { exception, traceback: None },
        }
    };
    let raising = task("raising", TaskOptions::default(), move |context, _| raised_by(&context));
    let rig = Rig::start(App::new("test").task(raising)).await;
    let states: Vec<_> = [State::Retry, State::Failure].into();
    rig.send(message("raising", "one", vec![])).await;
    for expected in states {
        let meta = loop {
            match rig.backend.fetch("one").await.expect("memory answers") {
                Some(meta) if meta.status == expected => break meta,
                Some(meta) if meta.status.is_ready() => panic!("{meta:?}"),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let Exception { exc_type, exc_message, .. } = raised(&meta);
        assert_eq!((exc_type.as_str(), &exc_message[0]), ("KeyError", &Value::from("bad")));
        assert!(exc_message[1].as_str().is_some_and(|text| text.starts_with("[[[")), "{exc_message:?}");
        rig.clock.advance(Duration::from_secs(61));
    }
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_during_a_warm_shutdown_is_made_again_for_what_is_still_to_be_sent() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let gated = Handler {
        name: "gated",
        options: late(),
        run: move |context: TaskContext, _| {
            let gate = Arc::clone(&waits);
            Run::from_future(async move {
                gate.acquire().await.expect("the gate stays").forget();
                Outcome::Retry(context.retry())
            })
        },
    };
    let rig = Rig::start(App::new("test").task(gated)).await;
    rig.send(message("gated", "one", vec![])).await;
    while rig.transport.unsettled() != 1 {
        tokio::task::yield_now().await;
    }
    rig.handle.shutdown(Shutdown::Warm);
    while rig.transport.consumers() > 0 {
        tokio::task::yield_now().await;
    }
    rig.transport.disconnect();
    gate.add_permits(1);
    let transport = rig.stop(Shutdown::Warm).await;
    let waiting: Vec<_> = transport.waiting("celery").into_iter().map(|message| message.headers).collect();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].get("retries"), Some(&1.into()));
    assert_eq!(transport.unsettled(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_made_again_and_running_work_is_settled_over_it() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let gated = Handler {
        name: "gated",
        options: late(),
        run: move |_, _| {
            let gate = Arc::clone(&waits);
            Run::from_future(async move {
                gate.acquire().await.expect("the gate stays").forget();
                Outcome::Success(Value::Null)
            })
        },
    };
    let rig = Rig::start(App::new("test").task(gated).task(echo())).await;
    rig.send(message("gated", "one", vec![])).await;
    while rig.transport.unsettled() != 1 {
        tokio::task::yield_now().await;
    }
    rig.transport.disconnect();
    gate.add_permits(1);
    assert_eq!(rig.result("one").await.status, State::Success);
    let connection = rig.transport.connect().await.expect("memory connects");
    connection.publish(vec![Publication::to_queue("celery", message("echo", "two", vec![]))]).await.expect("it is up");
    assert_eq!(rig.result("two").await.status, State::Success);
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}
