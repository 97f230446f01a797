//! [`Peer`]: a stock Celery beside us, which counts the same chords.

use std::process::Stdio;

use celeriac::protocol::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::python::python;
use crate::support::redis_server::RedisServer;

const SCRIPT: &str = include_str!("chord_peer.py");

/// A Python process with stock Celery's result backend.
pub(crate) struct Peer {
    process: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

/// What a stock worker would have done after counting a part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    Published(String),
    Failed { message: String, cause: Option<String> },
}

impl Peer {
    /// Starts one on this server; `settings` is the inside of a JSON object.
    pub(crate) async fn start(server: &RedisServer, is_old: bool, settings: &str) -> Option<Self> {
        let python = python(is_old)?;
        let comma = if settings.is_empty() { "" } else { ", " };
        let settings = format!(r#"{{"backend": "{}"{comma}{settings}}}"#, server.url(0));
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT, &settings]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let (orders, reports) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut peer = Peer { process, orders, reports: BufReader::new(reports).lines() };
        peer.reports().await;
        Some(peer)
    }

    /// Has an order carried out; `order` is the inside of a JSON object.
    pub(crate) async fn run(&mut self, order: &str) -> Vec<Report> {
        self.orders.write_all(format!("{{{order}}}\n").as_bytes()).await.unwrap();
        self.reports().await
    }

    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    async fn reports(&mut self) -> Vec<Report> {
        let line = self.reports.next_line().await.unwrap().expect("the peer lives");
        let answer = json::parse(line.as_bytes()).unwrap().into_map().unwrap();
        answer.get("reports").and_then(Value::as_list).unwrap().iter().map(Report::read).collect()
    }
}

impl Report {
    fn read(value: &Value) -> Self {
        let map = value.as_map().unwrap();
        let text = |name| map.get(name).and_then(Value::as_str).map(str::to_owned);
        match map.get("published") {
            Some(results) => Report::Published(String::from_utf8(json::to_vec(results).unwrap()).unwrap()),
            None => Report::Failed { message: text("failed").unwrap(), cause: text("cause") },
        }
    }
}
