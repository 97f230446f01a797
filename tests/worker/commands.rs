//! Commands of remote control that are the program's own, without a broker.

use std::sync::{Arc, Condvar, Mutex, OnceLock};

use celeriac::app::{Panel, Payload, Reins};
use celeriac::config::Config;
use celeriac::protocol::{Map, Message, Value, json};
use celeriac::worker::Shutdown;
use celeriac::{App, Error, ErrorKind, Result};

use crate::control::{answer, command, ok};
use crate::rig::{Rig, echo};

/// A panel with a few commands.
#[derive(Debug, Default)]
struct Own {
    reins: OnceLock<Arc<dyn Reins>>,
    is_released: Mutex<bool>,
    released: Condvar,
}

impl Own {
    fn value(&self, method: &str, arguments: &Map) -> Value {
        let reins = self.reins.get().expect("the worker has begun");
        let number = arguments.get("n").and_then(Value::as_i64).unwrap_or_default();
        match method {
            "ping" => "pang".into(),
            "widen" => reins.widen(number).into(),
            "grow" => reins.ask("pool_grow", Map::from([("n", number)])).expect("the worker is there"),
            "count" => reins.ask("active", Map::default()).expect("the worker is there"),
            "fail" => {
                reins.shut_down(false, Some("enough of it".to_owned()));
                Value::Null
            }
            "hang" => {
                let is_released = self.is_released.lock().expect("nobody panics");
                drop(self.released.wait_while(is_released, |is_released| !*is_released).expect("nobody panics"));
                "released".into()
            }
            other => format!("no {other}").into(),
        }
    }
}

impl Panel for Own {
    fn begins(&self, reins: Arc<dyn Reins>) {
        self.reins.set(reins).expect("it begins once");
    }

    fn overrides(&self, method: &str) -> bool {
        method == "ping"
    }

    fn obey(&self, method: &str, arguments: &Map, is_asked: bool) -> Option<Payload> {
        let answer = Map::from([("w1@test", self.value(method, arguments))]);
        let body = json::to_vec(&answer.into()).expect("it can be written").into();
        let (content_type, content_encoding) = ("application/json".to_owned(), "utf-8".to_owned());
        is_asked.then_some(Payload { content_type, content_encoding, body })
    }

    fn read(&self, _: &Message) -> Result<Value> {
        Err(Error::new(ErrorKind::Refused, "it reads nothing"))
    }

    fn write(&self, _: &Value) -> Result<Payload> {
        Err(Error::new(ErrorKind::Encode, "it writes nothing"))
    }
}

async fn start() -> (Rig, Arc<Own>) {
    let own = Arc::<Own>::default();
    let config = Config { worker_concurrency: Some(2), ..Config::default() };
    (Rig::start(App::new("test").task(echo()).with_config(config).with_panel(own.clone())).await, own)
}

async fn ask(rig: &Rig, method: &str, number: i64) -> Value {
    command(rig, method, Map::from([("n", number)])).await;
    answer(rig).await
}

#[tokio::test(flavor = "multi_thread")]
async fn they_go_before_the_workers_and_steer_it() {
    let (rig, _) = start().await;
    for (method, number, expected) in [
        ("ping", 0, "pang".into()),
        ("widen", 3, 11.into()),
        ("widen", -100, 1.into()),
        ("grow", 2, ok("pool will grow")),
        ("count", 0, Value::List(Vec::new())),
        ("nothing", 0, "no nothing".into()),
        (
            "disable_events",
            0,
            Map::from([("error", "TypeError(\"disable_events() got an unexpected keyword argument 'n'\")")]).into(),
        ),
    ] {
        assert_eq!(ask(&rig, method, number).await, expected, "{method}");
    }
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_keeps_no_other_waiting() {
    let (rig, own) = start().await;
    command(&rig, "hang", Map::default()).await;
    assert_eq!(ask(&rig, "ping", 0).await, "pang".into());
    *own.is_released.lock().unwrap() = true;
    own.released.notify_all();
    assert_eq!(answer(&rig).await, "released".into());
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_says_that_it_has_failed_ends_its_worker_with_that_reason() {
    let (rig, own) = start().await;
    command(&rig, "fail", Map::default()).await;
    let ended = rig.running.await.expect("the worker does not panic");
    assert_eq!(ended.unwrap_err().to_string(), "enough of it");
    let reins = own.reins.get().unwrap().clone();
    let asked = tokio::task::spawn_blocking(move || reins.ask("ping", Map::default())).await.unwrap();
    assert!(asked.unwrap_err().to_string().contains("has ended"));
}
