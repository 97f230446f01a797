//! The worker's promises on RabbitMQ, where a lost connection takes its deliveries along.

#![allow(clippy::unwrap_used, reason = "a test fails where its broker does")]

mod support;

#[path = "worker/rig.rs"]
#[allow(dead_code, reason = "shared with the worker's tests without a broker")]
mod rig;

#[path = "worker_amqp/delayed.rs"]
mod delayed;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::amqp_client::{AmqpConnectOptions, AmqpUrls, Failover};
use celeriac::backend::{BackendOptions, MemoryBackend, ResultBackend};
use celeriac::config::{Config, QueueDefinition};
use celeriac::protocol::{Body, Embed, Map, Message, Signature, State, Value};
use celeriac::task::{Outcome, Run, TaskOptions};
use celeriac::time::Clock;
use celeriac::transport::{AmqpTransport, Connection, Publication, Queue, Transport};
use celeriac::worker::{Shutdown, Worker, WorkerHandle, WorkerOptions};
use celeriac::{App, ErrorKind};
use tokio::sync::Semaphore;

use rig::{Handler, late, message};
use support::rabbitmq_server::{RabbitServer, VHost};
use support::{LONG, eventually};

/// A worker on a vhost of its own, with tasks that wait at a gate.
struct Office {
    vhost: VHost,
    backend: Arc<MemoryBackend>,
    connection: Arc<dyn Connection>,
    handle: WorkerHandle,
    running: tokio::task::JoinHandle<celeriac::Result<()>>,
    /// The ids of the runs that began, in order.
    begun: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
}

fn transport(vhost: &VHost) -> Arc<dyn Transport> {
    let urls = AmqpUrls::parse(&vhost.url(), Failover::RoundRobin, fastrand::Rng::with_seed(1)).expect("our own URL");
    Arc::new(AmqpTransport::new(urls, AmqpConnectOptions::default()))
}

fn worker(app: App, vhost: &VHost, backend: Arc<MemoryBackend>) -> Worker {
    let options = WorkerOptions { hostname: "w1@test".into(), queues: vec![QueueDefinition::named("celery")], seed: 1 };
    Worker::with_parts(app, options, transport(vhost), backend, Clock::system()).expect("a good app")
}

impl Office {
    async fn open(options: TaskOptions, change: impl FnOnce(&mut Config)) -> Option<Self> {
        let vhost = RabbitServer::shared().await?.vhost();
        let (begun, gate) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Semaphore::new(0)));
        let (begins, waits) = (Arc::clone(&begun), Arc::clone(&gate));
        let gated = Handler {
            name: "gated",
            options,
            run: move |context: celeriac::TaskContext, _| {
                begins.lock().unwrap().push(context.request().id.clone());
                let gate = Arc::clone(&waits);
                Run::from_future(async move {
                    gate.acquire().await.expect("the gate stays").forget();
                    Outcome::Success(Value::Null)
                })
            },
        };
        let mut app = App::new("test").task(gated);
        let config = app.config_mut();
        (config.worker_concurrency, config.worker_prefetch_multiplier) = (Some(1), 4);
        change(config);
        let backend = Arc::new(MemoryBackend::new(BackendOptions::default()).expect("the defaults are good"));
        let connection = transport(&vhost).connect().await.unwrap();
        connection.declare(&[Queue::direct("celery")]).await.unwrap();
        let worker = worker(app, &vhost, Arc::clone(&backend));
        let handle = worker.handle();
        let running = tokio::spawn(worker.run());
        handle.ready().await;
        Some(Office { vhost, backend, connection, handle, running, begun, gate })
    }

    async fn send(&self, messages: Vec<Message>) {
        let batch = messages.into_iter().map(|message| Publication::to_queue("celery", message)).collect();
        for accepted in self.connection.publish(batch).await.unwrap() {
            accepted.unwrap();
        }
    }

    /// Cuts all connections; our own is made again.
    async fn cut(&mut self) {
        assert!(self.vhost.cut() > 1);
        self.connection.lost().await;
        self.connection = transport(&self.vhost).connect().await.unwrap();
    }

    async fn has_begun(&self, count: usize) {
        eventually("the runs have begun", || async { self.begun.lock().unwrap().len() == count }).await;
    }

    async fn unacknowledged(&self, count: usize) {
        eventually("so many are not acknowledged", || async { self.vhost.depth("celery").unacknowledged == count })
            .await;
    }

    async fn close(self) -> Vec<String> {
        self.handle.shutdown(Shutdown::Warm);
        self.running.await.unwrap().unwrap();
        let depth = self.vhost.depth("celery");
        assert_eq!((depth.ready, depth.unacknowledged), (0, 0));
        std::mem::take(&mut *self.begun.lock().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_begun_runs_once_though_it_is_delivered_again() {
    let Some(mut office) = Office::open(TaskOptions::default(), |_| {}).await else { return };
    office.send(["1", "2", "3", "4"].iter().map(|id| message("gated", id, vec![])).collect()).await;
    office.has_begun(1).await;
    office.unacknowledged(3).await;
    office.cut().await;
    // It comes over the next connection, with the others.
    office.send(vec![message("gated", "5", vec![])]).await;
    office.unacknowledged(4).await;
    office.gate.add_permits(5);
    office.has_begun(5).await;
    office.unacknowledged(0).await;
    assert_eq!(office.close().await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_late_goes_on_and_runs_again() {
    let Some(mut office) = Office::open(late(), |_| {}).await else { return };
    office.send(vec![message("gated", "1", vec![])]).await;
    office.has_begun(1).await;
    office.unacknowledged(1).await;
    office.cut().await;
    office.unacknowledged(1).await;
    office.gate.add_permits(1);
    office.has_begun(2).await;
    let stored = office.backend.wait("1", Some(Duration::from_secs(10))).await.unwrap().unwrap();
    assert_eq!(stored.status, State::Success);
    office.gate.add_permits(1);
    office.unacknowledged(0).await;
    assert_eq!(office.close().await, ["1", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_late_is_ended_if_that_is_wanted() {
    let cancel = |config: &mut Config| config.worker_cancel_long_running_tasks_on_connection_loss = true;
    let Some(mut office) = Office::open(late(), cancel).await else { return };
    office.send(vec![message("gated", "1", vec![])]).await;
    office.has_begun(1).await;
    office.cut().await;
    // With one place in the pool the second run begins only when the first has ended.
    office.has_begun(2).await;
    office.gate.add_permits(1);
    office.unacknowledged(0).await;
    assert_eq!(office.close().await, ["1", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_ends_the_worker() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let connection = transport(&vhost).connect().await.unwrap();
    let transient = Queue { durable: false, ..Queue::direct("celery") };
    connection.declare(&[transient]).await.unwrap();
    let backend = Arc::new(MemoryBackend::new(BackendOptions::default()).expect("the defaults are good"));
    let error = worker(App::new("test"), &vhost, backend).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().starts_with("PreconditionFailed(406, "), "{error}");
}

/// It fails whoever sends to it, as under Celery, and holds up nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_another_connections_alone_is_not_waited_for() {
    let queues = |config: &mut Config| {
        let theirs = QueueDefinition { exclusive: Some(true), ..QueueDefinition::named("theirs") };
        config.task_queues = vec![QueueDefinition::named("celery"), theirs];
    };
    let Some(office) = Office::open(TaskOptions::default(), queues).await else { return };
    let theirs = Queue { exclusive: true, auto_delete: true, ..Queue::direct("theirs") };
    office.connection.declare(&[theirs]).await.unwrap();
    let followed = |id: &str, queue: &str| {
        let callback = Signature { options: Map::from([("task_id", "after")]), ..Signature::new("gated") };
        let callbacks = Some(Value::List(vec![callback.queue(queue).into()]));
        let mut message = message("gated", id, vec![]);
        message.set_body(&Body { embed: Embed { callbacks, ..Embed::default() }, ..Body::default() }).unwrap();
        message
    };
    office.send(vec![followed("1", "theirs"), followed("2", "celery")]).await;
    office.gate.add_permits(3);
    office.has_begun(3).await;
    let stored = office.backend.wait("1", Some(LONG)).await.unwrap().unwrap();
    assert_eq!(stored.status, State::Failure);
    let raised = rig::raised(&stored);
    assert_eq!(
        (raised.exc_type.as_str(), raised.exc_module.as_deref()),
        ("OperationalError", Some("kombu.exceptions"))
    );
    assert!(raised.to_string().contains("ResourceLocked(405, "), "{raised}");
    office.unacknowledged(0).await;
    assert_eq!(office.close().await, ["1", "2", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_taken_is_waited_for() {
    let Some(office) = Office::open(TaskOptions::default(), |_| {}).await else { return };
    // Another worker of the same name consumes all the same.
    let mut app = App::new("test").task(rig::echo());
    app.config_mut().worker_concurrency = Some(1);
    let backend = Arc::clone(&office.backend);
    let second = worker(app, &office.vhost, backend);
    let handle = second.handle();
    let running = tokio::spawn(second.run());
    tokio::time::timeout(LONG, handle.ready()).await.expect("it is ready without its mailbox");
    handle.shutdown(Shutdown::Warm);
    running.await.unwrap().unwrap();
    office.close().await;
}
