//! What the producer promises, without a broker or a worker of anybody's.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::Arc;
use std::time::Duration;

use celeriac::app::{Messages, Producer, ResultError};
use celeriac::backend::{BackendOptions, MemoryBackend, ResultBackend, StoreRequest};
use celeriac::canvas::Call;
use celeriac::protocol::{AcceptContent, Body, Exception, Map, Message, MetaResult, State, TaskMeta, Value};
use celeriac::time::Clock;
use celeriac::transport::{ExchangeType, MemoryTransport, Queue, Transport};
use celeriac::{App, ErrorKind, GroupResult, args, chain, chord, group, signature};

#[celeriac::task(name = "ours.add", queue = "ours", priority = 4, time_limit = "10s", serializer = "msgpack")]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[celeriac::task(name = "ours.forget", ignore_result)]
async fn forget() {}

struct Rig {
    transport: Arc<MemoryTransport>,
    backend: Arc<MemoryBackend>,
    producer: Producer,
}

fn rig(toml: &str) -> Rig {
    let mut app = App::new("test").task(add).task(forget);
    app.config_mut().merge_toml(toml, "test.toml").unwrap();
    let transport = Arc::new(MemoryTransport::new());
    let backend = Arc::new(MemoryBackend::new(BackendOptions::default()).unwrap());
    let clock = Clock::manual("2026-01-02T03:04:05.25Z".parse().unwrap());
    let producer = Producer::with_parts(&app, transport.clone(), backend.clone(), clock).unwrap();
    Rig { transport, backend, producer }
}

impl Rig {
    fn sent(&self, queue: &str) -> Vec<Message> {
        self.transport.waiting(queue)
    }

    async fn store(&self, task_id: &str, state: State, result: impl Into<MetaResult>) {
        let meta = TaskMeta { traceback: Some("here".into()), ..TaskMeta::new(task_id, state, result) };
        self.backend.store(&[StoreRequest { meta, reply_to: None }]).await.unwrap();
    }
}

fn header(message: &Message, name: &str) -> Value {
    message.headers.get(name).cloned().unwrap_or(Value::from("missing"))
}

fn body(message: &Message) -> Body {
    let accept = AcceptContent::new(["json", "msgpack"]).unwrap();
    Body::read(message.payload(&accept).unwrap()).unwrap()
}

/// Field by field as a stock producer tells of it (celery/app/amqp.py `send_task_message`); the event is not waited for.
#[tokio::test]
async fn who_listens_is_told_of_what_is_sent_if_that_is_wanted() {
    let rig = rig("task_send_sent_event = true");
    let connection = rig.transport.connect().await.unwrap();
    let exchange =
        Queue { exchange: "celeryev".into(), exchange_type: ExchangeType::Topic, ..Queue::direct("monitor") };
    let mut monitor = connection.subscribe(&Queue { routing_key: "task.#".into(), ..exchange }).await.unwrap();
    let result = rig.producer.send(add::s(1, 2)).await.unwrap();
    let message = monitor.next().await.unwrap().unwrap();
    let told = celeriac::protocol::json::parse(&message.body).unwrap().into_map().unwrap();
    let expected = [
        ("uuid", result.id().into()),
        ("root_id", result.id().into()),
        ("parent_id", Value::Null),
        ("name", "ours.add".into()),
        ("args", "(1, 2)".into()),
        ("kwargs", "{}".into()),
        ("retries", 0.into()),
        ("eta", Value::Null),
        ("expires", Value::Null),
        ("queue", "ours".into()),
        ("exchange", "".into()),
        ("routing_key", "ours".into()),
        ("timestamp", 1_767_323_045.25.into()),
        ("type", "task-sent".into()),
    ];
    let own: Vec<_> = told.iter().skip(4).map(|(name, value)| (name, value.clone())).collect();
    assert_eq!(own, expected);
}

#[tokio::test]
async fn a_task_is_sent_with_what_it_was_declared_with() {
    let rig = rig("task_soft_time_limit = 5");
    let result = rig.producer.send(add::s(1, 2).countdown(1.0)).await.unwrap();
    let sent = rig.sent("ours");
    let [message] = sent.as_slice() else { panic!("not one message: {sent:?}") };
    assert_eq!(header(message, "id"), result.id().into());
    assert_eq!(header(message, "timelimit"), [10, 5].into());
    assert_eq!(header(message, "eta"), "2026-01-02T03:04:06.250000+00:00".into());
    assert_eq!(header(message, "ignore_result"), false.into());
    assert_eq!(header(message, "argsrepr"), "(1, 2)".into());
    assert_eq!(message.properties.priority, Some(4));
    assert_eq!(message.content_type.as_deref(), Some("application/x-msgpack"));
    assert_eq!(body(message).args, args![1, 2]);
}

#[tokio::test]
async fn options_of_a_call_win_over_the_task_and_the_route() {
    let rig = rig("task_default_priority = 7\ntask_routes = { '*' = { queue = 'routed', priority = 1 } }");
    rig.producer.send(signature("theirs.add", args![])).await.unwrap();
    rig.producer.send(signature("theirs.add", args![]).queue("mine").priority(2)).await.unwrap();
    rig.producer.send(add::s(1, 2).queue("mine").set("serializer", "json")).await.unwrap();
    // As in Celery, a default priority wins over a route's.
    assert_eq!(rig.sent("routed")[0].properties.priority, Some(7));
    let mine = rig.sent("mine");
    assert_eq!((mine[0].properties.priority, mine[1].properties.priority), (Some(2), Some(4)));
    assert_eq!(mine[1].content_type.as_deref(), Some("application/json"));
    assert_eq!(header(&mine[0], "ignore_result"), Value::Null);
}

/// celery/app/base.py `Celery.send_task` sets the parent's priority last, where there is none.
#[test]
fn an_inherited_priority_is_the_last_that_is_asked() {
    let check = |toml: &str, task: &str, expected: i64| {
        let mut app = App::new("test").task(add);
        app.config_mut().merge_toml(toml, "test.toml").unwrap();
        let messages = Messages::new(&app, "gen1@h", "").unwrap();
        let call = Call { task: task.into(), id: "i".into(), inherited_priority: Some(9), ..Call::default() };
        let sent = messages.message(call, Clock::system().now()).unwrap();
        assert_eq!(sent.publication.message.properties.priority, Some(expected), "{toml} {task}");
    };
    check("", "t", 9);
    check("", "ours.add", 4);
    check("task_default_priority = 7", "t", 7);
    check("task_routes = { t = { priority = 1 } }", "t", 1);
}

#[tokio::test]
async fn queues_are_declared_before_the_first_message() {
    let rig = rig("task_routes = { t = { queue = 'a', routing_key = 'a.b' } }\n\
                   [task_queues.a]\nexchange = 'e'\nexchange_type = 'topic'\nrouting_key = 'a.#'");
    rig.producer.send(signature("t", args![])).await.unwrap();
    assert_eq!(rig.sent("a").len(), 1, "an exchange that nobody is bound to leads nowhere");
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let rig = rig("");
    for sent in 1..=3 {
        rig.producer.send(signature("t", args![])).await.unwrap();
        assert_eq!(rig.sent("celery").len(), sent);
        rig.transport.disconnect();
    }
    rig.producer.close().await.unwrap();
    rig.producer.send(signature("t", args![])).await.unwrap();
    assert_eq!(rig.sent("celery").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_given_up_as_the_policy_says() {
    let rig =
        rig("[task_publish_retry_policy]\nmax_retries = 2\ninterval_start = 1\ninterval_step = 1\ninterval_max = 5");
    rig.transport.refuse(true);
    let before = tokio::time::Instant::now();
    let refused = rig.producer.send(signature("t", args![])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Connection);
    assert_eq!(before.elapsed().as_secs(), 3);
    rig.transport.refuse(false);
    rig.producer.send(signature("t", args![])).await.unwrap();
    assert_eq!(rig.sent("celery").len(), 1);
}

#[tokio::test]
async fn what_cannot_be_sent_is_not_sent_in_part() {
    let rig = rig("task_create_missing_queues = false");
    for bad in [signature("t", args![]).queue("nowhere"), signature("t", args![]).set("serializer", "morse")] {
        let all = group([signature("t", args![]), bad.clone()]);
        assert_eq!(rig.producer.send(all).await.unwrap_err().kind(), ErrorKind::Configuration);
        assert!(rig.producer.send_many([signature("t", args![]), bad]).await.is_err());
    }
    assert_eq!(rig.sent("celery"), []);
    assert!(rig.producer.send(chain(Vec::<celeriac::protocol::Signature>::new())).await.is_err());
}

#[tokio::test]
async fn many_senders_share_one_connection_and_keep_their_order() {
    let rig = rig("");
    let senders = (0..50).map(|sender| {
        let producer = rig.producer.clone();
        tokio::spawn(async move {
            for number in 0..20 {
                producer.send(signature("t", args![sender, number])).await.unwrap();
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    let mut next = [0; 50];
    for message in rig.sent("celery") {
        let args = body(&message).args;
        let (sender, number) = (args[0].as_u64().unwrap() as usize, args[1].as_u64().unwrap());
        assert_eq!(number, next[sender]);
        next[sender] += 1;
    }
    assert_eq!(next, [20; 50]);
}

#[tokio::test]
async fn results_are_what_was_returned_or_raised() {
    let rig = rig("");
    let result = rig.producer.result("a");
    assert_eq!(result.state().await.unwrap(), State::Pending);
    let late = result.get::<i64>(Duration::from_millis(1)).await.unwrap_err();
    assert!(late.is_timeout(), "{late}");
    rig.store("a", State::Success, 7).await;
    assert_eq!(result.get::<i64>(None).await.unwrap(), 7);
    assert!(result.successful().await.unwrap() && result.ready().await.unwrap());
    let other = result.get::<String>(None).await.unwrap_err();
    assert!(matches!(other, ResultError::Type { .. }), "{other}");
    rig.store("b", State::Failure, Exception::new("KeyError", "k")).await;
    let failed = rig.producer.result("b").get::<i64>(None).await.unwrap_err();
    let raised = failed.task_error().unwrap();
    assert_eq!(
        (raised.exc_type(), raised.message().as_str(), raised.traceback.as_deref()),
        ("KeyError", "k", Some("here"))
    );
    assert_eq!(failed.to_string(), "task b ended as FAILURE: KeyError('k')");
    result.forget().await.unwrap();
    assert_eq!(result.state().await.unwrap(), State::Pending);
}

#[tokio::test]
async fn an_ignored_result_is_null_at_once() {
    let rig = rig("");
    assert_eq!(rig.producer.send(forget::s()).await.unwrap().get::<Option<i64>>(None).await.unwrap(), None);
    let ignored = rig.producer.send(add::s(1, 2).ignore_result(true)).await.unwrap();
    assert_eq!(ignored.get::<Option<i64>>(None).await.unwrap(), None);
}

#[tokio::test]
async fn a_group_is_joined_in_its_order() {
    let rig = rig("");
    let members = group((0..3).map(|i| signature("t", args![i]).task_id(format!("m{i}"))));
    let result: GroupResult = rig.producer.send(members).await.unwrap().try_into().unwrap();
    for (id, value) in [("m2", 2), ("m0", 0)] {
        rig.store(id, State::Success, value).await;
    }
    assert_eq!(result.completed_count().await.unwrap(), 2);
    assert!(result.waiting().await.unwrap() && !result.failed().await.unwrap());
    rig.store("m1", State::Success, 1).await;
    assert_eq!(result.join::<i64>(None).await.unwrap(), [0, 1, 2]);
    assert_eq!(result.as_result().get::<Vec<i64>>(None).await.unwrap(), [0, 1, 2]);
    result.save().await.unwrap();
    assert_eq!(rig.producer.group_result(result.id()).await.unwrap().unwrap().len(), 3);
    assert!(rig.producer.result("m0").group().is_none());
}

#[tokio::test]
async fn a_group_says_who_failed_before_all_are_ready() {
    let rig = rig("");
    let members = group(["a", "b"].map(|id| signature("t", args![]).task_id(id)));
    let result: GroupResult = rig.producer.send(members).await.unwrap().try_into().unwrap();
    rig.store("b", State::Revoked, Exception::celery("TaskRevokedError", "revoked")).await;
    let failed = result.join::<i64>(None).await.unwrap_err();
    let raised = failed.task_error().unwrap();
    assert_eq!((raised.task_id.as_str(), &raised.state, raised.exc_type()), ("b", &State::Revoked, "TaskRevokedError"));
}

#[tokio::test]
async fn results_of_a_canvas_know_what_was_before_them() {
    let rig = rig("");
    let steps = ["a", "b"].map(|id| signature("t", args![]).task_id(id));
    let result = rig.producer.send(chain(steps)).await.unwrap();
    assert_eq!((result.id(), result.parent().unwrap().id()), ("b", "a"));
    let sent = rig.sent("celery");
    assert_eq!(sent.len(), 1);
    assert!(body(&sent[0]).embed.chain.is_some());
    let body_result =
        rig.producer.send(chord(["c", "d"].map(|id| signature("t", args![]).task_id(id)), signature("t", args![])));
    let header = body_result.await.unwrap().parent().unwrap().group().unwrap();
    assert_eq!(header.results().iter().map(|member| member.id().to_owned()).collect::<Vec<_>>(), ["c", "d"]);
}

/// The last step may never run, and nobody says so: what is revoked is not followed.
#[tokio::test]
async fn waiting_for_the_last_step_tells_what_one_before_it_raised() {
    let rig = rig("");
    let steps = [signature("t", args![]).task_id("a"), signature("t", args![]).task_id("b")];
    let canvas = chain([group(steps), signature("t", args![]).task_id("c"), signature("t", args![])]);
    let result = rig.producer.send(canvas).await.unwrap();
    assert!(result.get::<Value>(Duration::from_millis(1)).await.unwrap_err().is_timeout());
    let waiting = tokio::spawn({
        let result = result.clone();
        async move { result.get::<Value>(None).await.unwrap_err() }
    });
    rig.store("a", State::Success, Value::from(1)).await;
    tokio::task::yield_now().await;
    rig.store("b", State::Revoked, Exception::celery("TaskRevokedError", "revoked")).await;
    let while_waiting = tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("told").unwrap();
    for error in [while_waiting, result.get::<Value>(None).await.unwrap_err()] {
        let raised = error.task_error().unwrap();
        assert_eq!((raised.task_id.as_str(), raised.exc_type()), ("b", "TaskRevokedError"));
    }
    rig.store("b", State::Success, Value::from(2)).await;
    rig.store(result.id(), State::Success, Value::from(3)).await;
    assert_eq!(result.get::<i64>(None).await.unwrap(), 3, "one that stores nothing is not waited for");
}

#[tokio::test]
async fn a_producer_outlives_the_runtime_that_it_first_sent_on() {
    let rig = rig("");
    let producer = rig.producer.clone();
    let send = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(producer.send(signature("t", args![]))).map(|_| ())
    };
    tokio::task::spawn_blocking(send).await.unwrap().unwrap();
    rig.producer.send(signature("t", args![])).await.unwrap();
    assert_eq!(rig.sent("celery").len(), 2);
}

#[test]
fn an_app_has_one_producer_until_its_settings_change() {
    let mut app = App::new("test");
    app.config_mut().broker_url = Some("memory://".to_owned());
    app.producer().unwrap();
    app.config_mut().broker_url = Some("carrier-pigeon://".to_owned());
    assert_eq!(app.producer().unwrap_err().kind(), ErrorKind::Configuration);
    let map = Map::from([("user", "ann")]);
    assert_eq!(signature("t", args![]).header("user", "ann").options.get("headers"), Some(&map.into()));
}
