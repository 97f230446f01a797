//! The writer against a backend that answers when the test says so.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::*;
use crate::backend::Until;
use crate::protocol::{ResultTuple, State, TaskMeta, Value};

/// Answers one batch for each permit: with the next of `answers`; with `Ok` where there is none.
#[derive(Debug, Default)]
struct Scripted {
    batches: Mutex<Vec<Vec<String>>>,
    answers: Mutex<VecDeque<Option<ErrorKind>>>,
    permits: Option<Semaphore>,
    latency: Duration,
}

impl Scripted {
    fn answering(answers: impl IntoIterator<Item = ErrorKind>) -> Arc<Self> {
        Arc::new(Scripted { answers: Mutex::new(answers.into_iter().map(Some).collect()), ..Scripted::default() })
    }

    fn gated() -> Arc<Self> {
        Arc::new(Scripted { permits: Some(Semaphore::new(0)), ..Scripted::default() })
    }

    fn release(&self, batches: usize) {
        self.permits.as_ref().unwrap().add_permits(batches);
    }

    /// The batches that have arrived, each as its payloads.
    fn seen(&self) -> Vec<String> {
        self.batches.lock().unwrap().iter().map(|batch| batch.join(" ")).collect()
    }
}

#[async_trait]
impl ResultBackend for Scripted {
    fn uri(&self) -> String {
        "scripted://".into()
    }

    fn service(&self) -> &'static str {
        "Redis"
    }

    fn encode(&self, request: &StoreRequest) -> Result<EncodedResult> {
        if request.meta.task_id.is_empty() {
            return Err(Error::new(ErrorKind::Encode, "no id"));
        }
        let payload = Bytes::from(request.meta.task_id.clone());
        let task_id = request.meta.task_id[..1].to_owned();
        Ok(EncodedResult { task_id, state: request.meta.status.clone(), payload, reply_to: None })
    }

    async fn store_encoded(&self, batch: &[EncodedResult]) -> Result<()> {
        let payloads = batch.iter().map(|result| String::from_utf8_lossy(&result.payload).into_owned()).collect();
        self.batches.lock().unwrap().push(payloads);
        tokio::time::sleep(self.latency).await;
        if let Some(permits) = &self.permits {
            permits.acquire().await.unwrap().forget();
        }
        match self.answers.lock().unwrap().pop_front().flatten() {
            Some(kind) => Err(Error::new(kind, "as the test says")),
            None => Ok(()),
        }
    }

    async fn fetch(&self, _: &str) -> Result<Option<TaskMeta>> {
        Ok(None)
    }

    async fn fetch_many(&self, _: &[&str]) -> Result<Vec<Option<TaskMeta>>> {
        Ok(Vec::new())
    }

    async fn wait(&self, _: &str, _: Option<Duration>) -> Result<Option<TaskMeta>> {
        Ok(None)
    }

    async fn wait_many(&self, _: &[&str], _: Until, _: Option<Duration>) -> Result<Vec<Option<TaskMeta>>> {
        unreachable!()
    }

    async fn save_group(&self, _: &ResultTuple) -> Result<()> {
        unreachable!()
    }

    async fn restore_group(&self, _: &str) -> Result<Option<ResultTuple>> {
        unreachable!()
    }

    async fn forget_group(&self, _: &str) -> Result<()> {
        unreachable!()
    }

    async fn forget(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

/// `a1` is result 1 of task `a`.
fn result(name: &str) -> StoreRequest {
    StoreRequest { meta: TaskMeta::new(name, State::Success, Value::Null), reply_to: None }
}

fn options() -> WriterOptions {
    WriterOptions { jitter: fastrand::Rng::with_seed(1), ..WriterOptions::default() }
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_gathers_while_one_is_under_way_is_the_next_batch() {
    let backend = Scripted::gated();
    let writer = ResultWriter::start(backend.clone(), options());
    let first = writer.store(result("a1"));
    until(|| backend.seen() == ["a1"]).await;
    let rest: Vec<_> = ["b1", "c1", "a2", "b2"].map(|name| writer.store(result(name))).into();
    backend.release(1);
    first.await.unwrap();
    until(|| backend.seen().len() == 2).await;
    backend.release(1);
    for stored in rest {
        stored.await.unwrap();
    }
    assert_eq!(backend.seen(), ["a1", "b1 c1 a2 b2"]);
}

#[tokio::test(start_paused = true)]
async fn far_away_batches_go_side_by_side_and_one_task_waits_for_itself() {
    let backend = Arc::new(Scripted {
        latency: Duration::from_millis(2),
        permits: Some(Semaphore::new(1)),
        ..Scripted::default()
    });
    let writer = ResultWriter::start(backend.clone(), options());
    writer.store(result("z1")).await.unwrap();
    let mut stored = Vec::new();
    for (name, batches) in [("a1", 2), ("b1", 3), ("a2", 3), ("c1", 4), ("d1", 5)] {
        stored.push(writer.store(result(name)));
        until(|| backend.seen().len() == batches).await;
    }
    stored.push(writer.store(result("e1")));
    backend.release(100);
    for stored in stored {
        stored.await.unwrap();
    }
    let seen = backend.seen();
    assert_eq!(seen[..5], ["z1", "a1", "b1", "c1", "d1"], "four at once, and `a2` not beside `a1`");
    assert!(seen[5..].join(" ").contains("a2") && seen[5..].join(" ").contains("e1"), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn lost_connections_are_retried_for_ever_with_growing_pauses() {
    let backend = Scripted::answering([ErrorKind::Connection; 50]);
    let writer = ResultWriter::start(backend.clone(), options());
    let began = Instant::now();
    writer.store(result("a1")).await.unwrap();
    assert_eq!(backend.seen().len(), 51);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(23) && took < Duration::from_secs(50), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_give_up_and_then_callers_are_told() {
    let backend = Scripted::answering([ErrorKind::Connection; 4]);
    let retry_policy = RetryPolicy { max_retries: Some(3), ..RetryPolicy::default() };
    let writer = ResultWriter::start(backend.clone(), WriterOptions { retry_policy, ..options() });
    assert_eq!(writer.store(result("a1")).await.unwrap_err().kind(), ErrorKind::Connection);
    assert_eq!(backend.seen().len(), 4);
    writer.store(result("a2")).await.unwrap();
}

#[tokio::test]
async fn one_result_that_is_refused_is_no_obstacle_to_others() {
    let backend = Scripted::gated();
    backend.answers.lock().unwrap().extend([Some(ErrorKind::Backend), None, Some(ErrorKind::Backend)]);
    let writer = ResultWriter::start(backend.clone(), options());
    let (one, other) = (writer.store(result("a1")), writer.store(result("b1")));
    until(|| !backend.seen().is_empty()).await;
    let later = writer.store(result("c1"));
    backend.release(4);
    one.await.unwrap();
    let error = other.await.unwrap_err();
    assert!(error.kind() == ErrorKind::Backend && error.to_string().contains("as the test says"));
    later.await.unwrap();
    assert_eq!(backend.seen(), ["a1 b1", "a1", "b1", "c1"]);
    assert_eq!(writer.store(result("")).await.unwrap_err().kind(), ErrorKind::Encode);
}

#[tokio::test]
async fn stopping_stores_what_there_is_and_twice_is_harmless() {
    let backend = Scripted::gated();
    let writer = ResultWriter::start(backend.clone(), options());
    let stored: Vec<_> = (0..2000).map(|number| writer.store(result(&format!("{number}")))).collect();
    backend.release(2000);
    writer.stop().await;
    for stored in stored {
        stored.await.unwrap();
    }
    writer.clone().stop().await;
    let error = writer.store(result("a1")).await.unwrap_err();
    assert!(error.to_string().contains("has stopped"), "{error}");
    assert_eq!(backend.seen().iter().map(|batch| batch.split(' ').count()).sum::<usize>(), 2000);
}

#[tokio::test]
async fn results_are_stored_although_nobody_waits_for_them() {
    let backend = Scripted::gated();
    let writer = ResultWriter::start(backend.clone(), options());
    drop(writer.store(result("a1")));
    drop(writer);
    until(|| backend.seen() == ["a1"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_logged_once() {
    // What other tests do at the same time must not turn our lines off: with a listener for the whole process, they cannot.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let log = Log::default();
    let layer = tracing_subscriber::fmt().with_writer({
        let log = log.clone();
        move || log.clone()
    });
    let _guard = tracing::subscriber::set_default(layer.with_ansi(false).finish());
    let backend = Scripted::answering([ErrorKind::Connection; 5]);
    let writer = ResultWriter::start(backend.clone(), options());
    writer.store(result("a1")).await.unwrap();
    backend.answers.lock().unwrap().extend([Some(ErrorKind::Authentication); 3]);
    writer.store(result("a2")).await.unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("Connection to Redis lost: Retry (0/Inf) now. (as the test says)").count(), 2, "{text}");
    backend.answers.lock().unwrap().extend([Some(ErrorKind::Unready); 3]);
    writer.store(result("a3")).await.unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(
        text.matches("Redis takes no results for now: Retry (0/Inf) now. (as the test says)").count(),
        1,
        "{text}"
    );
    assert_eq!(text.matches("Redis is there again: results are stored.").count(), 3, "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn settings_say_how_lost_connections_are_retried() {
    let policy = RetryPolicy { max_retries: Some(7), interval_start: Duration::from_secs(2), ..RetryPolicy::default() };
    // The policy, result_backend_always_retry, result_backend_max_retries: how often, and the first pause in seconds.
    let rows = [
        (None, false, None, None, 0),
        (None, false, Some(5), None, 0),
        (None, true, Some(5), Some(5), 0),
        (Some(policy.clone()), false, Some(5), Some(7), 2),
        (Some(policy.clone()), true, None, None, 2),
        (Some(policy), true, Some(5), Some(5), 2),
    ];
    for (retry_policy, always_retry, max_retries, expected, start) in rows {
        let mut config = Config { result_backend_always_retry: always_retry, ..Config::default() };
        config.result_backend_max_retries = max_retries;
        config.result_backend_transport_options.retry_policy = retry_policy;
        let policy = WriterOptions::from(&config).retry_policy;
        assert_eq!((policy.max_retries, policy.interval_start.as_secs()), (expected, start), "{config:?}");
    }
}
