//! [`Rig`]: a worker without a broker, and the tasks that it is given.

use std::sync::Arc;
use std::time::Duration;

use celeriac::App;
use celeriac::backend::{BackendOptions, MemoryBackend, ResultBackend};
use celeriac::config::QueueDefinition;
use celeriac::protocol::{Body, Exception, Map, Message, MetaResult, TaskMeta, Value};
use celeriac::task::{Arguments, Outcome, Run, Task, TaskContext, TaskOptions};
use celeriac::time::Clock;
use celeriac::transport::{Connection, MemoryTransport, Publication, Transport};
use celeriac::worker::{Autoscale, Shutdown, Worker, WorkerHandle, WorkerOptions};

/// A worker on a broker and a backend of its own, and what a client sees of it.
pub(crate) struct Rig {
    pub(crate) transport: MemoryTransport,
    pub(crate) backend: Arc<MemoryBackend>,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) clock: Clock,
    pub(crate) handle: WorkerHandle,
    pub(crate) running: tokio::task::JoinHandle<celeriac::Result<()>>,
}

/// A task made of a name, options and a function.
pub(crate) struct Handler<F> {
    pub(crate) name: &'static str,
    pub(crate) options: TaskOptions,
    pub(crate) run: F,
}

impl<F: Fn(TaskContext, Arguments) -> Run + Send + Sync + 'static> Task for Handler<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn options(&self) -> &TaskOptions {
        &self.options
    }

    fn run(&self, context: TaskContext, arguments: Arguments) -> Run {
        (self.run)(context, arguments)
    }
}

pub(crate) fn task<F: Fn(TaskContext, Arguments) -> Outcome + Send + Sync + Clone + 'static>(
    name: &'static str,
    options: TaskOptions,
    run: F,
) -> impl Task {
    let run = move |context, arguments| {
        let run = run.clone();
        Run::from_future(async move { run(context, arguments) })
    };
    Handler { name, options, run }
}

/// Answers with its first argument.
pub(crate) fn echo() -> impl Task {
    task("echo", TaskOptions::default(), |_, arguments| {
        Outcome::Success(arguments.args.into_iter().next().unwrap_or_default())
    })
}

/// Never ends.
pub(crate) fn forever(name: &'static str, options: TaskOptions) -> impl Task {
    Handler { name, options, run: |_, _| Run::from_future(std::future::pending()) }
}

pub(crate) fn late() -> TaskOptions {
    TaskOptions { acks_late: Some(true), ..TaskOptions::default() }
}

impl Rig {
    pub(crate) async fn start(app: App) -> Self {
        Rig::scaled(app, None).await
    }

    /// One whose pool grows and shrinks by itself.
    pub(crate) async fn scaled(app: App, autoscale: Option<Autoscale>) -> Self {
        let backend = Arc::new(MemoryBackend::new(BackendOptions::default()).expect("the defaults are good"));
        Rig::start_with(app, autoscale, backend.clone(), backend).await
    }

    /// A worker that stores through `door`, and in the end in `backend`.
    pub(crate) async fn start_on(app: App, backend: Arc<MemoryBackend>, door: Arc<dyn ResultBackend>) -> Self {
        Rig::start_with(app, None, backend, door).await
    }

    async fn start_with(
        app: App,
        autoscale: Option<Autoscale>,
        backend: Arc<MemoryBackend>,
        door: Arc<dyn ResultBackend>,
    ) -> Self {
        let transport = MemoryTransport::new();
        let clock = Clock::manual("2026-11-22T12:00:00Z".parse().expect("a time"));
        let options =
            WorkerOptions { hostname: "w1@test".into(), queues: vec![QueueDefinition::named("celery")], seed: 1 };
        let shared: Arc<dyn Transport> = Arc::new(transport.clone());
        let worker = Worker::with_parts(app, options, shared, door, clock.clone()).expect("a good app");
        let worker = worker.with_autoscale(autoscale);
        let connection = transport.connect().await.expect("memory connects");
        let handle = worker.handle();
        let running = tokio::spawn(worker.run());
        handle.ready().await;
        Rig { transport, backend, connection, clock, handle, running }
    }

    pub(crate) async fn send(&self, message: Message) {
        self.connection.publish(vec![Publication::to_queue("celery", message)]).await.expect("memory publishes");
    }

    pub(crate) async fn result(&self, id: &str) -> TaskMeta {
        let wait = self.backend.wait(id, Some(Duration::from_secs(30)));
        wait.await.expect("memory answers").unwrap_or_else(|| panic!("{id} is not ready in time"))
    }

    /// Waits until nothing waits and nothing is out.
    pub(crate) async fn idle(&self) {
        while self.transport.unsettled() > 0 || !self.transport.waiting("celery").is_empty() {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn dead_letters(&self) -> Vec<Message> {
        self.transport.waiting("celeriac.dead-letters")
    }

    /// Waits for an end that nobody asked for.
    pub(crate) async fn ended(self) -> celeriac::Result<()> {
        self.running.await.expect("the worker does not panic")
    }

    pub(crate) async fn stop(self, how: Shutdown) -> MemoryTransport {
        self.handle.shutdown(how);
        self.running.await.expect("the worker does not panic").expect("the worker stops in good order");
        self.transport
    }
}

pub(crate) fn message(name: &str, id: &str, args: Vec<Value>) -> Message {
    let mut message = Message {
        headers: Map::from([("lang", "py"), ("task", name), ("id", id)]),
        content_type: Some("application/json".into()),
        content_encoding: Some("utf-8".into()),
        ..Message::default()
    };
    message.properties.routing_key = Some("celery".into());
    message.properties.exchange = Some(String::new());
    message.set_body(&Body { args, ..Body::default() }).expect("simple values encode");
    message
}

pub(crate) fn with_header(mut message: Message, name: &str, value: impl Into<Value>) -> Message {
    message.headers.insert(name, value);
    message
}

pub(crate) fn raised(meta: &TaskMeta) -> &Exception {
    match &meta.result {
        MetaResult::Exception(exception) => exception,
        MetaResult::Value(value) => panic!("not an exception: {value:?}"),
    }
}
