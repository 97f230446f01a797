//! Beside stock Celery: its client reads our results, and what we send is what its worker sends.

use std::process::Stdio;

use celeriac::backend::{BackendOptions, ResultBackend, RpcOptions};
use celeriac::protocol::{Map, State, Value, json};
use celeriac::{args, chain, signature};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::mailbox::Mailbox;
use crate::python::python;
use crate::rig::{Rig, backend};
use crate::support::LONG;
use crate::support::rabbitmq_server::{RabbitServer, VHost};

/// A Python process with stock Celery.
struct Peer {
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(role: &str, vhost: &VHost, settings: &str) -> Option<Self> {
        let python = python(false)?;
        let settings = format!(r#"{{"broker": "{}"{settings}}}"#, vhost.url());
        let mut command = Command::new(python);
        command.args(["-c", include_str!("peer.py"), role, &settings]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let (orders, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Some(Peer { _process: process, orders, answers: BufReader::new(answers).lines() })
    }

    fn client(vhost: &VHost) -> Option<Self> {
        Peer::start("client", vhost, "")
    }

    /// Has an order carried out; its answer. `order` is the inside of a JSON object.
    async fn run(&mut self, order: &str) -> Value {
        self.orders.write_all(format!("{{{order}}}\n").as_bytes()).await.unwrap();
        let line = self.answers.next_line().await.unwrap().expect("the peer lives");
        json::parse(line.as_bytes()).unwrap()
    }

    async fn queue(&mut self) -> String {
        self.run(r#""do": "queue""#).await.into_string().unwrap()
    }

    /// What `.get()` came to, as JSON.
    async fn get(&mut self, id: &str) -> String {
        let outcome = self.run(&format!(r#""do": "get", "id": "{id}""#)).await;
        String::from_utf8(json::to_vec(&outcome).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_stock_client_reads_our_results() {
    let Some(rig) = Rig::start("task_track_started = true").await else { return };
    let Some(mut client) = Peer::client(&rig.vhost) else { return };
    let queue = client.queue().await;
    let send = async |name: &str, id: &str| {
        rig.send(signature(name, args![]).task_id(id).set("reply_to", queue.as_str())).await;
    };

    rig.send(signature("add", args![2, 3]).task_id("sum").set("reply_to", queue.as_str())).await;
    assert_eq!(client.get("sum").await, r#"{"returned": 5}"#);
    send("fail", "failure").await;
    let raised = r#"{"raised": "ValueError", "module": "builtins", "args": ["bad", 7]}"#;
    assert_eq!(client.get("failure").await, raised);
    send("again", "retried").await;
    assert_eq!(client.get("retried").await, r#"{"returned": 1}"#);
    rig.send(signature("add", args![1, 1]).task_id("late").set("reply_to", queue.as_str()).set("expires", -1.0)).await;
    assert_eq!(
        client.get("late").await,
        r#"{"raised": "TaskRevokedError", "module": "celery.exceptions", "args": ["expired"]}"#
    );
    let failing = chain([
        signature("fail", args![]).set("reply_to", queue.as_str()),
        signature("add", args![1]).task_id("never").set("reply_to", queue.as_str()),
    ]);
    rig.send(failing).await;
    assert_eq!(client.get("never").await, raised);
    for id in ["one", "two"] {
        rig.send(signature("add", args![1, 2]).task_id(id).set("reply_to", queue.as_str())).await;
    }
    let both = client.run(r#""do": "group", "ids": ["one", "two"]"#).await;
    assert_eq!(both, Value::Map(Map::from([("returned", Value::from(vec![3, 3]))])));
    rig.stop().await;
}

/// A stock client polls with `basic.get`: it must see each state while it lasts.
#[tokio::test]
async fn a_stock_client_sees_started_and_custom_states() {
    let Some(rig) = Rig::start("task_track_started = true").await else { return };
    let Some(mut client) = Peer::client(&rig.vhost) else { return };
    let queue = client.queue().await;
    rig.send(signature("steps", args![]).task_id("steps").set("reply_to", queue.as_str())).await;
    rig.stop_worker().await;
    // All three are there; a client that polls takes the last.
    assert_eq!(rig.vhost.depth(&queue).ready, 3);
    let info = client.run(r#""do": "state", "id": "steps", "wanted": "SUCCESS""#).await;
    assert_eq!(info, Value::from("é"));
    // One by one they are seen as they come.
    let (states, backend) = (["STARTED", "PROGRESS", "RETRY"], backend(&rig.vhost));
    for state in states {
        let mut request = addressed("slow", state, &queue);
        request.meta.result = match State::from(state).is_exception() {
            true => celeriac::protocol::Exception::new("KeyError", "x").into(),
            false => Value::Map(Map::from([("at", state)])).into(),
        };
        backend.store(&[request]).await.unwrap();
        let info = client.run(&format!(r#""do": "state", "id": "slow", "wanted": "{state}""#)).await;
        let expected = match state {
            "RETRY" => Value::from("KeyError('x')"),
            _ => Value::Map(Map::from([("at", state)])),
        };
        assert_eq!(info, expected);
    }
}

fn addressed(id: &str, state: &str, queue: &str) -> celeriac::backend::StoreRequest {
    let meta = celeriac::protocol::TaskMeta::new(id, State::from(state), Value::Null);
    let reply_to = celeriac::backend::ReplyTo { queue: queue.into(), correlation_id: None };
    celeriac::backend::StoreRequest { meta, reply_to: Some(reply_to) }
}

#[tokio::test]
async fn what_we_send_is_what_a_stock_worker_sends() {
    let Some(rig) = Rig::start("task_track_started = true").await else { return };
    let settings = r#", "task_track_started": true, "worker_hijack_root_logger": false"#;
    let Some(_worker) = Peer::start("worker", &rig.vhost, settings) else { return };
    let Some(mut client) = Peer::client(&rig.vhost) else { return };
    let mut mailbox = Mailbox::open(&rig.vhost, "replies").await;
    for (name, arguments, count) in
        [("add", args![2, 3], 2), ("fail", args![], 2), ("steps", args![], 3), ("again", args![], 4)]
    {
        let listed = String::from_utf8(json::to_vec(&Value::List(arguments.clone())).unwrap()).unwrap();
        let order =
            format!(r#""do": "send", "name": "{name}", "args": {listed}, "task_id": "an-id", "reply_to": "replies""#);
        client.run(&order).await;
        let mut stock = Vec::new();
        for _ in 0..count {
            stock.push(mailbox.shown().await);
        }
        rig.send(signature(name, arguments).task_id("an-id").set("reply_to", "replies")).await;
        for expected in stock {
            assert_eq!(mailbox.shown().await, expected, "{name}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn results_of_a_stock_worker_are_read() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    for serializer in ["json", "yaml", "msgpack"] {
        let settings = format!(r#", "result_serializer": "{serializer}", "worker_hijack_root_logger": false"#);
        let Some(worker) = Peer::start("worker", &vhost, &settings) else { return };
        let Some(mut client) = Peer::client(&vhost) else { return };
        let backend = backend(&vhost);
        backend.expect_results().await.unwrap();
        let queue = backend.reply_queue().unwrap();
        for (name, state, result) in [("steps", State::Success, "é"), ("fail", State::Failure, "ValueError")] {
            let order = format!(r#""do": "send", "name": "{name}", "task_id": "{name}", "reply_to": "{queue}""#);
            client.run(&order).await;
            let meta = backend.wait(name, Some(LONG)).await.unwrap().expect("it is ready in time");
            assert_eq!(meta.status, state);
            assert!(format!("{:?}", meta.result).contains(result), "{serializer}: {meta:?}");
        }
        drop(worker);
    }
}

/// What the settings say of persistence and of compression, which Celery does not apply to these messages.
#[tokio::test]
async fn persistent_results_say_so_and_none_is_compressed() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let mut mailbox = Mailbox::open(&vhost, "replies").await;
    for (persistent, delivery_mode) in [(false, 1), (true, 2)] {
        let rpc = RpcOptions { broker_url: vhost.url(), persistent, ..RpcOptions::default() };
        let options = BackendOptions { rpc, compression: Some("gzip".into()), ..BackendOptions::default() };
        let backend = celeriac::backend::RpcBackend::new(&options).unwrap();
        backend.store(&[addressed("a", "SUCCESS", "replies")]).await.unwrap();
        let delivery = mailbox.next().await;
        assert_eq!(*delivery.properties.delivery_mode(), Some(delivery_mode));
        assert!(delivery.data.starts_with(b"{\"status\": \"SUCCESS\""), "{:?}", delivery.data);
    }
}
