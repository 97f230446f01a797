//! The feature `otlp`: each run is a span whose parent the message names, what a task sends names that span, and a
//! collector gets all of them.

#[path = "worker/rig.rs"]
#[expect(dead_code, reason = "what the other promises need of it")]
mod rig;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use celeriac::backend::ResultBackend;
use celeriac::cli::log::{self, LogOptions};
use celeriac::config::Config;
use celeriac::protocol::{Body, Embed, Value};
use celeriac::task::{Outcome, Run, TaskContext, TaskOptions};
use celeriac::worker::Shutdown;
use celeriac::{App, args, signature};

use rig::{Handler, Rig, echo, message, with_header};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const SERVICE: &str = "shop-worker";

/// The worker of this test runs in a process of its own, where the environment names the collector.
#[test]
fn the_collector_gets_each_run_below_the_span_that_sent_it() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let worker = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "what_the_collector_is_to_see", "--ignored", "--nocapture"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.local_addr().expect("it listens")))
        .env("OTEL_SERVICE_NAME", SERVICE)
        // Nothing is exported before the end unless it is flushed there.
        .env("OTEL_BSP_SCHEDULE_DELAY", "600000")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (mut connection, _) = collector.accept().expect("the worker exports");
    let (head, spans) = request(&mut connection);
    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("it is answered");
    let worker = worker.wait_with_output().expect("it ends");
    assert!(worker.status.success());
    assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
    // Protocol buffers hold ids and texts as they are.
    let holds = |bytes: &[u8]| spans.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(SERVICE.as_bytes()) && holds(b"run/sender") && holds(b"run/echo"));
    assert!(holds(&binary(TRACE)) && holds(&binary(PARENT)));
    let said = String::from_utf8(worker.stdout).expect("it speaks text");
    let sent: Vec<&str> = said.lines().filter_map(|line| line.split_once("sent in ").map(|(_, ids)| ids)).collect();
    assert_eq!(sent.len(), 3, "{said}");
    for traceparent in sent {
        let parts: Vec<&str> = traceparent.split('-').collect();
        assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"), "{said}");
        assert_ne!(parts[2], PARENT, "it names the span of the run, not the one above");
        assert!(holds(&binary(parts[2])), "{traceparent} names a span that was exported");
    }
}

/// Not a test of its own: the process that the test above starts.
#[tokio::test]
#[ignore = "needs a collector: another test starts it"]
async fn what_the_collector_is_to_see() {
    let options = LogOptions { service: "not this one".into(), ..LogOptions::default() };
    let log = tokio::task::spawn_blocking(move || log::install(&options, &Config::default()));
    let log = log.await.expect("it does not panic").expect("the environment is good");
    let to = |queue: &str| signature("nobody", args![]).queue(queue);
    let sender = Handler {
        name: "sender",
        options: TaskOptions::default(),
        run: move |context: TaskContext, _| {
            Run::from_function(move || Outcome::Success(context.send_blocking(to("sent")).is_ok().into()))
        },
    };
    let retried = Handler {
        name: "retried",
        options: TaskOptions::default(),
        run: |context: TaskContext, _| Run::from_future(async move { Outcome::Retry(context.retry()) }),
    };
    let rig = Rig::start(App::new("test").task(sender).task(retried).task(echo())).await;
    let traced = |name: &str| {
        let traced = with_header(message(name, name, vec![]), "traceparent", format!("00-{TRACE}-{PARENT}-01"));
        with_header(traced, "tracestate", "vendor=1")
    };
    let mut followed = traced("echo");
    let callbacks = Some(Value::List(vec![to("linked").into()]));
    let embed = Embed { callbacks, ..Embed::default() };
    followed.set_body(&Body { args: vec![1.into()], embed, ..Body::default() }).expect("simple values encode");
    rig.send(traced("sender")).await;
    rig.result("sender").await;
    rig.send(followed).await;
    rig.result("echo").await;
    rig.send(traced("retried")).await;
    while rig.backend.fetch("retried").await.expect("memory answers").is_none() {
        tokio::task::yield_now().await;
    }
    let transport = rig.stop(Shutdown::Warm).await;
    for queue in ["sent", "linked", "celery"] {
        let headers = &transport.waiting(queue)[0].headers;
        let text = |name: &str| headers.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        assert_eq!(text("tracestate"), "vendor=1", "{queue}");
        println!("sent in {}", text("traceparent"));
    }
    // The exporter waits for the collector: not on a thread of the runtime.
    tokio::task::spawn_blocking(move || drop(log)).await.expect("it does not panic");
}

/// One request: its head, and its body.
fn request(connection: &mut TcpStream) -> (String, Vec<u8>) {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = connection.read(&mut piece).expect("it sends");
        assert!(count > 0, "it sends all of it");
        read.extend_from_slice(&piece[..count]);
        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let body: &[u8] = &read[end + 4..];
        if body.len() >= length.unwrap_or(0_usize) {
            return (head, body.to_vec());
        }
    }
}

fn binary(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}
