//! [`Rig`]: a worker whose tasks come from memory and whose results leave over RabbitMQ, and a producer for it.

use std::sync::Arc;

use celeriac::app::{AsyncResult, Producer};
use celeriac::backend::{BackendOptions, ResultBackend, RpcOptions, from_url};
use celeriac::config::QueueDefinition;
use celeriac::protocol::{Exception, Map, Signature, Value};
use celeriac::time::Clock;
use celeriac::transport::{MemoryTransport, Transport};
use celeriac::worker::{Shutdown, Worker, WorkerHandle, WorkerOptions};
use celeriac::{App, Interrupt, TaskContext, args, chord, signature};
use tokio::sync::Notify;

use crate::support::rabbitmq_server::{RabbitServer, VHost};

#[celeriac::task(name = "add")]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[celeriac::task(name = "fail")]
async fn fail() -> Result<(), Interrupt> {
    Err(Exception::with_args("ValueError", "builtins", [Value::from("bad"), 7.into()]).into())
}

#[celeriac::task(name = "steps")]
async fn steps(ctx: TaskContext) -> Result<String, Interrupt> {
    ctx.update_state("PROGRESS", Map::from([("done", 1)])).await?;
    Ok("é".to_owned())
}

#[celeriac::task(name = "again")]
async fn again(ctx: TaskContext) -> Result<u32, Interrupt> {
    if ctx.retries() < 1 {
        let retry = ctx.retry().exception(Exception::new("KeyError", "x")).countdown(std::time::Duration::ZERO);
        return Err(retry.into());
    }
    Ok(ctx.retries())
}

#[celeriac::task(name = "ignored", ignore_result)]
async fn ignored() -> i64 {
    1
}

#[celeriac::task(name = "hold")]
async fn hold(ctx: TaskContext) -> Result<i64, Interrupt> {
    ctx.update_state("HELD", Map::from([("at", 1)])).await?;
    RELEASED.notified().await;
    Ok(7)
}

/// Only one test holds.
static RELEASED: Notify = Notify::const_new();

#[celeriac::task(name = "chord")]
async fn sends_a_chord(ctx: TaskContext) -> Result<(), Interrupt> {
    ctx.send(chord([signature("add", args![1, 2])], signature("add", args![3]))).await?;
    Ok(())
}

pub(crate) struct Rig {
    pub(crate) vhost: VHost,
    pub(crate) producer: Producer,
    /// The producer's.
    pub(crate) client: Arc<dyn ResultBackend>,
    handle: WorkerHandle,
    running: tokio::task::JoinHandle<celeriac::Result<()>>,
}

pub(crate) fn options(vhost: &VHost) -> BackendOptions {
    BackendOptions { rpc: RpcOptions { broker_url: vhost.url(), ..RpcOptions::default() }, ..BackendOptions::default() }
}

pub(crate) fn backend(vhost: &VHost) -> Arc<dyn ResultBackend> {
    from_url(Some("rpc://"), &options(vhost)).unwrap()
}

pub(crate) fn app() -> App {
    App::new("test").task(add).task(fail).task(steps).task(again).task(ignored).task(hold).task(sends_a_chord)
}

impl Rig {
    /// `None` where RabbitMQ is not installed.
    pub(crate) async fn start(settings: &str) -> Option<Self> {
        let vhost = RabbitServer::shared().await?.vhost();
        let mut app = app();
        app.config_mut().merge_toml(settings, "test.toml").unwrap();
        let transport: Arc<dyn Transport> = Arc::new(MemoryTransport::new());
        let options =
            WorkerOptions { hostname: "w1@test".into(), queues: vec![QueueDefinition::named("celery")], seed: 1 };
        let (clock, client) = (Clock::system(), backend(&vhost));
        let producer = Producer::with_parts(&app, transport.clone(), client.clone(), clock.clone()).unwrap();
        let worker = Worker::with_parts(app, options, transport, backend(&vhost), clock).unwrap();
        let handle = worker.handle();
        let running = tokio::spawn(worker.run());
        handle.ready().await;
        Some(Rig { vhost, producer, client, handle, running })
    }

    pub(crate) async fn send(&self, signature: impl Into<Signature>) -> AsyncResult {
        self.producer.send(signature).await.unwrap()
    }

    pub(crate) fn release(&self) {
        RELEASED.notify_one();
    }

    pub(crate) async fn stop_worker(&self) {
        self.handle.shutdown(Shutdown::Warm);
        crate::support::eventually("the worker has stopped", || async { self.running.is_finished() }).await;
    }

    pub(crate) async fn stop(self) {
        self.handle.shutdown(Shutdown::Warm);
        self.running.await.unwrap().unwrap();
    }
}
