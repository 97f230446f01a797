//! Tasks whose messages a pool runs: the test is the pool.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use celeriac::backend::{BackendOptions, EncodedResult, MemoryBackend, ResultBackend, StoreRequest, Until};
use celeriac::protocol::{
    Body, Embed, Exception, Map, Message, MetaResult, ResultTuple, Signature, State, TaskMeta, Value,
};
use celeriac::task::{
    Arguments, Call, CallEnd, Order, Outcome, Pool, Raised, Run, StoredMeta, Task, TaskContext, TaskOptions,
};
use celeriac::worker::Shutdown;
use celeriac::{App, Error, ErrorKind};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::rig::{Handler, Rig, late, message, raised, with_header};

/// A call that the test is to answer.
pub(crate) type Asked = (Call, oneshot::Sender<CallEnd>);

/// Hands the calls that it gets to the test.
#[derive(Debug)]
struct Desk {
    asked: mpsc::UnboundedSender<Asked>,
    places: usize,
    size: usize,
    /// It cannot end a run.
    is_helpless: bool,
    /// It can run nothing any more.
    failing: Notify,
    concludes: bool,
    /// How often it was started, and how often stopped.
    counts: [AtomicUsize; 2],
}

#[celeriac::async_trait]
impl Pool for Desk {
    fn run(self: Arc<Self>, call: Call) -> Pin<Box<dyn Future<Output = CallEnd> + Send>> {
        let (end, ended) = oneshot::channel();
        assert_eq!(self.count(), [1, 0]);
        self.asked.send((call, end)).expect("the test listens");
        Box::pin(async move { ended.await.unwrap_or(CallEnd::NotBegun) })
    }

    fn concludes(&self) -> bool {
        self.concludes
    }

    fn places(&self) -> Option<usize> {
        Some(self.places)
    }

    fn ends_runs(&self) -> bool {
        !self.is_helpless
    }

    async fn failed(&self) -> Error {
        self.failing.notified().await;
        Error::new(ErrorKind::Io, "the pool is gone")
    }

    fn start(&self, size: usize) {
        assert_eq!(size, self.size);
        self.counts[0].fetch_add(1, Ordering::Relaxed);
    }

    async fn stop(&self) {
        self.counts[1].fetch_add(1, Ordering::Relaxed);
    }
}

impl Desk {
    fn new(size: usize, places: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<Asked>) {
        let (asked, calls) = mpsc::unbounded_channel();
        let (is_helpless, failing, counts) = (false, Notify::new(), Default::default());
        (Arc::new(Desk { asked, places, size, is_helpless, failing, concludes: false, counts }), calls)
    }

    fn count(&self) -> [usize; 2] {
        [0, 1].map(|at: usize| self.counts[at].load(Ordering::Relaxed))
    }
}

/// A task that is run at the desk.
struct Elsewhere(&'static str, TaskOptions, Arc<Desk>);

impl Task for Elsewhere {
    fn name(&self) -> &str {
        self.0
    }

    fn options(&self) -> &TaskOptions {
        &self.1
    }

    fn pool(&self) -> Option<Arc<dyn Pool>> {
        Some(self.2.clone())
    }

    fn run(&self, _: TaskContext, _: Arguments) -> Run {
        Run::from_function(|| Outcome::failure(Exception::new("RuntimeError", "not here")))
    }
}

/// A worker of one task, `python`, and the calls that come to its pool.
pub(crate) async fn start(options: TaskOptions) -> (Rig, mpsc::UnboundedReceiver<Asked>) {
    let (app, calls) = app(options);
    (Rig::start(app).await, calls)
}

fn app(options: TaskOptions) -> (App, mpsc::UnboundedReceiver<Asked>) {
    let (desk, calls) = Desk::new(250, 1);
    (App::new("test").task(Elsewhere("python", options, desk)), calls)
}

/// The same, but for a pool that carries out fates.
pub(crate) fn concluding(options: TaskOptions) -> (App, mpsc::UnboundedReceiver<Asked>) {
    let (asked, calls) = mpsc::unbounded_channel();
    let (is_helpless, failing, counts) = (false, Notify::new(), Default::default());
    let desk = Arc::new(Desk { asked, places: 1, size: 250, is_helpless, failing, concludes: true, counts });
    (App::new("test").task(Elsewhere("python", options, desk)), calls)
}

pub(crate) async fn next(calls: &mut mpsc::UnboundedReceiver<Asked>) -> Asked {
    tokio::time::timeout(Duration::from_secs(30), calls.recv()).await.expect("a call in time").expect("a pool")
}

/// What the tracer would hand over.
pub(crate) fn stored(id: &str, state: State, result: impl Into<MetaResult>) -> StoredMeta {
    let meta = TaskMeta::new(id, state.clone(), result);
    let backend = MemoryBackend::new(BackendOptions::default()).expect("the defaults are good");
    let payload = backend.encode(&StoreRequest { meta, reply_to: None }).expect("a simple value").payload;
    StoredMeta { task_id: id.into(), state, payload, reply_to: None, correlation_id: None }
}

/// A message whose body is read nowhere but in Python.
pub(crate) fn pickled() -> Message {
    let mut pickled = with_header(message("python", "one", vec![]), "x-custom", "kept");
    (pickled.content_type, pickled.content_encoding) =
        (Some("application/x-python-serialize".into()), Some("binary".into()));
    pickled.body = b"\x80\x04only Python reads this".to_vec().into();
    pickled
}

fn success() -> CallEnd {
    CallEnd::Success { result: "7".into(), runtime: Duration::from_millis(5) }
}

fn failure() -> CallEnd {
    CallEnd::Failure(Raised {
        exception: Exception::new("ValueError", "bad"),
        shown: "ValueError('bad')".into(),
        traceback: "Traceback".into(),
    })
}

#[tokio::test]
async fn a_body_is_handed_over_as_it_came_and_acknowledged_when_it_begins() {
    let (rig, mut calls) = start(TaskOptions::default()).await;
    let pickled = pickled();
    rig.send(pickled.clone()).await;
    let (call, end) = next(&mut calls).await;
    assert_eq!(call.message.body, pickled.body);
    assert_eq!(call.message.content_type, pickled.content_type);
    assert_eq!(call.request.headers.get("x-custom"), Some(&"kept".into()));
    assert_eq!((call.request.hostname.as_str(), rig.transport.unsettled()), ("w1@test", 1));
    call.accepted(7);
    // It is acknowledged while it runs.
    rig.idle().await;
    end.send(success()).expect("the worker waits");
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn what_the_tracer_has_stored_is_not_stored_again() {
    let (rig, mut calls) = start(late()).await;
    rig.send(message("python", "one", vec![1.into()])).await;
    let (call, end) = next(&mut calls).await;
    call.accepted(7);
    // A result that no conclusion of the worker's own would give.
    assert!(call.store(stored("one", State::Success, 42)).await, "it is stored while the task goes on");
    assert_eq!(rig.transport.unsettled(), 1);
    end.send(success()).expect("the worker waits");
    rig.idle().await;
    assert_eq!(rig.result("one").await.result, MetaResult::Value(42.into()));
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn nothing_is_stored_that_the_tracer_has_not_stored() {
    let (rig, mut calls) = start(late()).await;
    for (id, end) in [("one", success()), ("two", failure()), ("three", CallEnd::Ignore)] {
        rig.send(message("python", id, vec![])).await;
        let (call, answer) = next(&mut calls).await;
        call.accepted(7);
        answer.send(end).expect("the worker waits");
        rig.idle().await;
        assert_eq!(rig.backend.fetch(id).await.expect("memory answers"), None, "{id}");
    }
    assert!(rig.dead_letters().is_empty());
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_given_as_much_as_it_takes_from_start_to_stop() {
    let (desk, mut calls) = Desk::new(1, 2);
    let mut app = App::new("test");
    app.config_mut().worker_concurrency = Some(1);
    for name in ["python", "another"] {
        app = app.task(Elsewhere(name, TaskOptions::default(), desk.clone()));
    }
    let rig = Rig::start(app).await;
    for id in ["one", "two", "three"] {
        rig.send(message(if id == "two" { "another" } else { "python" }, id, vec![])).await;
    }
    let (one, _two) = (next(&mut calls).await, next(&mut calls).await);
    // Time passes only when there is nothing else to do.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(calls.try_recv().is_err(), "there is no place for a third");
    one.1.send(success()).expect("the worker waits");
    assert_eq!(next(&mut calls).await.0.request.id, "three");
    rig.stop(Shutdown::Cold).await;
    assert_eq!(desk.count(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn handlers_take_nothing_of_a_pools_window() {
    let (desk, mut calls) = Desk::new(1, 2);
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let run = move |_, _| {
        let gate = opened.clone();
        Run::from_future(async move {
            gate.acquire().await.expect("never closed").forget();
            Outcome::Success(Value::Null)
        })
    };
    let mut app = App::new("test").task(Handler { name: "handler", options: late(), run });
    app.config_mut().worker_concurrency = Some(1);
    let rig = Rig::start(app.task(Elsewhere("python", late(), desk))).await;
    for (name, count) in [("handler", 60), ("python", 20)] {
        for number in 0..count {
            rig.send(message(name, &format!("{name} {number}"), vec![])).await;
        }
    }
    // All handlers run unacknowledged, and one process with two calls has the eight messages that it would have alone.
    let _called = (next(&mut calls).await, next(&mut calls).await);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.transport.waiting("celery").len(), 12);
    gate.add_permits(60);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((rig.transport.waiting("celery").len(), rig.transport.unsettled()), (12, 8));
    rig.stop(Shutdown::Cold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_given_messages_in_their_order() {
    let (desk, mut calls) = Desk::new(250, 100);
    let rig = Rig::start(App::new("test").task(Elsewhere("python", TaskOptions::default(), desk))).await;
    for number in 0..200 {
        rig.send(message("python", &number.to_string(), vec![])).await;
    }
    for number in 0..200 {
        let (call, end) = next(&mut calls).await;
        assert_eq!(call.request.id, number.to_string());
        end.send(success()).expect("the worker waits");
    }
    rig.stop(Shutdown::Warm).await;
}

/// A backend that stores when it is allowed to.
#[derive(Debug)]
struct Gate(Arc<MemoryBackend>, Semaphore);

#[celeriac::async_trait]
impl ResultBackend for Gate {
    fn uri(&self) -> String {
        self.0.uri()
    }
    fn service(&self) -> &'static str {
        self.0.service()
    }
    fn encode(&self, request: &StoreRequest) -> celeriac::Result<EncodedResult> {
        self.0.encode(request)
    }
    async fn store_encoded(&self, batch: &[EncodedResult]) -> celeriac::Result<()> {
        self.1.acquire().await.expect("it is not closed").forget();
        self.0.store_encoded(batch).await
    }
    async fn fetch(&self, id: &str) -> celeriac::Result<Option<TaskMeta>> {
        self.0.fetch(id).await
    }
    async fn fetch_many(&self, ids: &[&str]) -> celeriac::Result<Vec<Option<TaskMeta>>> {
        self.0.fetch_many(ids).await
    }
    async fn wait(&self, id: &str, timeout: Option<Duration>) -> celeriac::Result<Option<TaskMeta>> {
        self.0.wait(id, timeout).await
    }
    async fn wait_many(
        &self,
        ids: &[&str],
        until: Until,
        timeout: Option<Duration>,
    ) -> celeriac::Result<Vec<Option<TaskMeta>>> {
        self.0.wait_many(ids, until, timeout).await
    }
    async fn forget(&self, id: &str) -> celeriac::Result<()> {
        self.0.forget(id).await
    }
    async fn save_group(&self, group: &ResultTuple) -> celeriac::Result<()> {
        self.0.save_group(group).await
    }
    async fn restore_group(&self, id: &str) -> celeriac::Result<Option<ResultTuple>> {
        self.0.restore_group(id).await
    }
    async fn forget_group(&self, id: &str) -> celeriac::Result<()> {
        self.0.forget_group(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_acknowledgement_waits_for_what_was_handed_over() {
    let (app, mut calls) = app(late());
    let memory = Arc::new(MemoryBackend::new(BackendOptions::default()).expect("the defaults are good"));
    let gate = Arc::new(Gate(memory.clone(), Semaphore::new(0)));
    let rig = Rig::start_on(app, memory, gate.clone()).await;
    rig.send(message("python", "one", vec![])).await;
    let (call, end) = next(&mut calls).await;
    call.accepted(7);
    drop(call.store(stored("one", State::Success, 42)));
    end.send(success()).expect("the worker waits");
    // Time passes only when there is nothing else to do.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.transport.unsettled(), 1, "the backend has nothing yet");
    gate.1.add_permits(1);
    rig.idle().await;
    assert_eq!(rig.result("one").await.result, MetaResult::Value(42.into()));
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn the_policy_decides_what_becomes_of_the_message() {
    let strict = TaskOptions { acks_on_failure: Some(false), ..late() };
    let (rig, mut calls) = start(strict).await;
    rig.send(message("python", "failed", vec![])).await;
    let (call, end) = next(&mut calls).await;
    call.accepted(7);
    end.send(failure()).expect("the worker waits");
    rig.idle().await;
    assert_eq!(rig.dead_letters().len(), 1);

    rig.send(message("python", "rejected", vec![])).await;
    let (call, end) = next(&mut calls).await;
    call.accepted(7);
    end.send(CallEnd::Reject { reason: "no".into(), requeue: true }).expect("the worker waits");
    let (call, end) = next(&mut calls).await;
    assert_eq!(call.request.delivery_info.get("redelivered"), Some(&true.into()));
    call.accepted(7);
    end.send(CallEnd::Reject { reason: "never".into(), requeue: false }).expect("the worker waits");
    // Nobody else stores that a task has thrown its message away.
    let meta = rig.result("rejected").await;
    assert_eq!(raised(&meta).to_string(), "Reject('never', False)");
    rig.idle().await;
    assert_eq!(rig.dead_letters().len(), 2);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_lost_process_is_told_in_celerys_words_and_what_follows_is_told_too() {
    let (rig, mut calls) = start(TaskOptions::default()).await;
    let mut sent = message("python", "one", vec![]);
    let errback = Signature { options: Map::from([("task_id", "errback")]), ..Signature::new("python") };
    let errbacks = Some(vec![Value::from(errback)].into());
    sent.set_body(&Body { embed: Embed { errbacks, ..Embed::default() }, ..Body::default() }).expect("it encodes");
    rig.send(sent).await;
    let (call, end) = next(&mut calls).await;
    call.accepted(7);
    end.send(CallEnd::Lost("signal 9 (SIGKILL) Job: 2".into())).expect("the worker waits");
    let meta = rig.result("one").await;
    let expected = "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL) Job: 2.')";
    assert_eq!((&meta.status, raised(&meta).to_string().as_str()), (&State::Failure, expected));
    let (errback, end) = next(&mut calls).await;
    assert_eq!((errback.request.id.as_str(), errback.request.parent_id.as_deref()), ("errback", Some("one")));
    end.send(success()).expect("the worker waits");
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_lost_process_takes_its_message_along_or_gives_it_back() {
    let (rig, mut calls) = start(TaskOptions { reject_on_worker_lost: Some(true), ..late() }).await;
    rig.send(message("python", "one", vec![])).await;
    let (call, end) = next(&mut calls).await;
    call.accepted(7);
    end.send(CallEnd::Lost("exitcode 3".into())).expect("the worker waits");
    let (call, end) = next(&mut calls).await;
    assert_eq!(call.request.id, "one");
    assert_eq!(rig.backend.fetch("one").await.expect("memory answers"), None);
    // A process that is lost when the success is stored has done its work.
    call.accepted(8);
    drop(call.store(stored("one", State::Success, 42)));
    end.send(CallEnd::Lost("exitcode 3".into())).expect("the worker waits");
    rig.idle().await;
    assert_eq!(rig.result("one").await.status, State::Success);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(start_paused = true)]
async fn limits_are_ordered_and_count_from_the_moment_the_task_begins() {
    let limits = TaskOptions {
        soft_time_limit: Some(Duration::from_secs(1)),
        time_limit: Some(Duration::from_secs(3)),
        ..late()
    };
    let (rig, mut calls) = start(limits).await;
    rig.send(message("python", "one", vec![])).await;
    let (mut call, end) = next(&mut calls).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    call.accepted(7);
    let began = tokio::time::Instant::now();
    assert_eq!(call.order().await, Order::SoftLimit);
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(call.order().await, Order::Kill);
    assert_eq!(began.elapsed().as_secs(), 3);
    end.send(CallEnd::Lost("signal 15 (SIGTERM)".into())).expect("the worker waits");
    assert_eq!(raised(&rig.result("one").await).to_string(), "TimeLimitExceeded(3)");
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(start_paused = true)]
async fn limits_count_while_a_body_is_read_which_acknowledges_nothing() {
    let limits = TaskOptions { time_limit: Some(Duration::from_secs(3)), ..TaskOptions::default() };
    let (rig, mut calls) = start(limits).await;
    rig.send(pickled()).await;
    let (mut call, end) = next(&mut calls).await;
    call.reading();
    let began = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.transport.unsettled(), 1, "it is not known whether it can be read");
    call.accepted(7);
    assert_eq!(call.order().await, Order::Kill);
    assert_eq!(began.elapsed().as_secs(), 3, "what was spent with its body counts");
    assert_eq!(rig.transport.unsettled(), 0);
    end.send(CallEnd::Lost("signal 15 (SIGTERM)".into())).expect("the worker waits");
    assert_eq!(raised(&rig.result("one").await).to_string(), "TimeLimitExceeded(3)");
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_as_it_is_about_to_be_killed_has_ended() {
    let (rig, mut calls) = start(TaskOptions { time_limit: Some(Duration::from_secs(3)), ..late() }).await;
    rig.send(message("python", "one", vec![])).await;
    let (mut call, end) = next(&mut calls).await;
    call.accepted(7);
    assert_eq!(call.order().await, Order::Kill);
    drop(call.store(stored("one", State::Success, 42)));
    end.send(success()).expect("the worker waits");
    rig.idle().await;
    assert_eq!(rig.result("one").await.status, State::Success);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_cold_shutdown_kills_and_gives_back() {
    let (rig, mut calls) = start(late()).await;
    rig.send(message("python", "one", vec![])).await;
    let (mut call, end) = next(&mut calls).await;
    call.accepted(7);
    let handle = rig.handle.clone();
    handle.shutdown(Shutdown::Cold);
    assert_eq!(call.order().await, Order::Kill);
    end.send(CallEnd::Lost("signal 15 (SIGTERM)".into())).expect("the worker waits");
    let transport = rig.stop(Shutdown::Cold).await;
    assert_eq!(transport.waiting("celery").len(), 1);
}

#[tokio::test]
async fn what_the_pool_does_not_begin_goes_back() {
    let (rig, mut calls) = start(TaskOptions::default()).await;
    rig.send(message("python", "one", vec![])).await;
    drop(next(&mut calls).await);
    let (call, _end) = next(&mut calls).await;
    assert_eq!(call.request.id, "one");
    rig.stop(Shutdown::Cold).await;
}

#[tokio::test]
async fn a_body_that_cannot_be_decoded_is_refused_as_any_other() {
    let (rig, mut calls) = start(TaskOptions::default()).await;
    for (id, refused, class) in [("one", true, "ContentDisallowed"), ("two", false, "DecodeError")] {
        rig.send(Message { body: b"?".to_vec().into(), ..message("python", id, vec![]) }).await;
        let (_call, end) = next(&mut calls).await;
        end.send(CallEnd::Undecodable { refused, reason: "no sense".into() }).expect("the worker waits");
        assert_eq!(raised(&rig.result(id).await).to_string(), format!("{class}('no sense')"));
    }
    rig.idle().await;
    let [one, _] = rig.dead_letters().try_into().expect("two dead letters");
    assert_eq!(one.headers.get("id"), Some(&"one".into()));
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_message_of_version_1_is_handed_over_as_one_of_version_2() {
    let (rig, mut calls) = start(TaskOptions::default()).await;
    let mut old = message("python", "", vec![]);
    old.headers = Map::default();
    old.body = br#"{"task": "python", "id": "one", "args": [1], "kwargs": {}}"#.to_vec().into();
    rig.send(old).await;
    let (call, end) = next(&mut calls).await;
    assert_eq!(call.request.headers.get("id"), Some(&"one".into()));
    assert!(call.message.body.starts_with(b"[[1], {}, {"), "{:?}", call.message.body);
    end.send(success()).expect("the worker waits");
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_pool_is_gone_finishes_what_runs_gives_back_the_rest_and_says_why() {
    let (desk, mut calls) = Desk::new(1, 1);
    let mut app = App::new("test");
    app.config_mut().worker_concurrency = Some(1);
    let rig = Rig::start(app.task(Elsewhere("python", late(), desk.clone()))).await;
    for id in ["running", "waiting"] {
        rig.send(message("python", id, vec![])).await;
    }
    let (call, end) = next(&mut calls).await;
    call.accepted(7);
    desk.failing.notify_one();
    // Time passes only when there is nothing else to do.
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(call.store(stored("running", State::Success, 42)));
    end.send(success()).expect("the worker waits");
    let (transport, backend) = (rig.transport.clone(), rig.backend.clone());
    assert_eq!(rig.ended().await.expect_err("it cannot go on").to_string(), "the pool is gone");
    assert!(calls.try_recv().is_err(), "nothing more was begun");
    assert_eq!(backend.fetch("running").await.expect("memory answers").map(|meta| meta.status), Some(State::Success));
    assert_eq!((transport.unsettled(), backend.fetch("waiting").await.expect("memory answers")), (0, None));
    assert_eq!(desk.count(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_can_end_a_run_there_are_no_limits() {
    let (desk, mut calls) = Desk::new(250, 1);
    let desk = Arc::new(Desk { is_helpless: true, ..Arc::into_inner(desk).expect("it is new") });
    let limits = TaskOptions {
        soft_time_limit: Some(Duration::from_secs(1)),
        time_limit: Some(Duration::from_secs(3)),
        ..late()
    };
    let rig = Rig::start(App::new("test").task(Elsewhere("python", limits, desk))).await;
    rig.send(message("python", "one", vec![])).await;
    let (mut call, end) = next(&mut calls).await;
    call.accepted(7);
    let order = tokio::time::timeout(Duration::from_secs(60), call.order());
    assert!(order.await.is_err(), "it is told nothing");
    end.send(success()).expect("the worker waits");
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}
