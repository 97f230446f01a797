//! What follows a task: callbacks, chains, errbacks and chords, published before the result is stored and the message
//! settled.

use std::sync::{Arc, Mutex};

use celeriac::backend::{NativeChords, ResultBackend};
use celeriac::canvas::{chain, group};
use celeriac::config::Config;
use celeriac::protocol::{Body, Embed, Exception, Map, Message, MetaResult, ResultTuple, Signature, Value};
use celeriac::task::{Outcome, Run, TaskContext, TaskOptions};
use celeriac::worker::Shutdown;
use celeriac::{App, args, signature};

use super::rig::{Handler, Rig, echo, late, message, raised, task, with_header};

fn embedded(mut message: Message, args: Vec<Value>, embed: Embed) -> Message {
    message.set_body(&Body { args, embed, ..Body::default() }).expect("simple values encode");
    message
}

/// A signature with an id of its own.
fn step(task: &str, id: &str) -> Signature {
    Signature { options: Map::from([("task_id", id)]), ..Signature::new(task) }
}

fn list(signatures: impl IntoIterator<Item = Signature>) -> Option<Value> {
    Some(Value::List(signatures.into_iter().map(Value::from).collect()))
}

fn failing() -> impl celeriac::task::Task {
    task("failing", TaskOptions::default(), |_, _| Outcome::Failure {
        exception: Exception::new("ValueError", "bad"),
        traceback: None,
    })
}

fn value(meta: celeriac::protocol::TaskMeta) -> Value {
    match meta.result {
        MetaResult::Value(value) => value,
        MetaResult::Exception(exception) => panic!("{exception}"),
    }
}

#[tokio::test]
async fn callbacks_and_the_next_step_get_the_result_and_are_its_children() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    let embed = Embed {
        callbacks: list([step("echo", "callback")]),
        chain: list([step("echo", "last"), step("echo", "next")]),
        ..Embed::default()
    };
    rig.send(embedded(message("echo", "first", vec![]), vec![7.into()], embed)).await;
    for id in ["callback", "next", "last"] {
        assert_eq!(value(rig.result(id).await), 7.into(), "{id}");
    }
    let first = rig.result("first").await;
    let expected = ["callback", "next"].map(|id| Value::from(ResultTuple::task(id)));
    assert_eq!(first.children, Some(expected.to_vec()));
    assert_eq!(rig.result("last").await.parent_id.as_deref(), Some("next"));
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn what_cannot_be_sent_makes_the_task_a_failure_and_nothing_is_sent() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    let broken = Some(Value::List(vec![Value::from(step("echo", "callback")), Map::from([("args", 1)]).into()]));
    rig.send(embedded(message("echo", "one", vec![]), vec![7.into()], Embed { callbacks: broken, ..Embed::default() }))
        .await;
    assert_eq!(raised(&rig.result("one").await).exc_type, "EncodeError");
    rig.idle().await;
    assert!(rig.backend.fetch("callback").await.expect("memory answers").is_none());
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_callback_that_has_no_queue_fails_the_task_as_in_celery() {
    let config = Config { task_create_missing_queues: false, ..Config::default() };
    let rig = Rig::start(App::new("test").task(echo()).with_config(config)).await;
    let callbacks = list([step("echo", "callback").queue("nowhere")]);
    rig.send(embedded(message("echo", "one", vec![]), vec![7.into()], Embed { callbacks, ..Embed::default() })).await;
    let meta = rig.result("one").await;
    assert_eq!(raised(&meta).exc_module.as_deref(), Some("celery.exceptions"));
    assert_eq!(raised(&meta).to_string(), "QueueNotFound(\"Queue 'nowhere' missing from task_queues\")");
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_large_group_is_sent_in_pieces_and_each_member_once() {
    let fan = Handler {
        name: "fan",
        options: TaskOptions::default(),
        run: |context: TaskContext, _| {
            Run::from_future(async move {
                let members = (0..1700).map(|nth| signature("noop", args![nth]).queue("elsewhere"));
                let sent = context.send(group(members)).await;
                Outcome::Success(Value::from(sent.is_ok()))
            })
        },
    };
    let rig = Rig::start(App::new("test").task(fan)).await;
    rig.send(message("fan", "one", vec![])).await;
    assert_eq!(rig.result("one").await.result, Value::from(true).into());
    let places = rig.transport.waiting("elsewhere");
    let places: Vec<_> = places.iter().map(|message| message.headers.get("group_index").cloned()).collect();
    assert_eq!(places, (0..1700).map(|nth| Some(Value::from(nth))).collect::<Vec<_>>());
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_failure_fails_the_rest_of_the_chain_and_calls_the_errbacks() {
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let told = Arc::clone(&seen);
    let inline = task("inline", TaskOptions::default(), move |_, arguments| {
        told.lock().expect("nobody panics").extend(arguments.args);
        Outcome::Ignore
    });
    let rig = Rig::start(App::new("test").task(failing()).task(inline)).await;
    let embed = Embed {
        chain: list([step("echo", "last"), step("echo", "next")]),
        errbacks: list([step("inline", "never"), step("elsewhere", "errback").queue("elsewhere")]),
        ..Embed::default()
    };
    rig.send(embedded(message("failing", "first", vec![]), vec![], embed)).await;
    for id in ["first", "next", "last"] {
        assert_eq!(raised(&rig.result(id).await).to_string(), "ValueError('bad')", "{id}");
    }
    rig.idle().await;
    let sent = rig.transport.waiting("elsewhere");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].headers.get("id"), Some(&"errback".into()));
    assert_eq!(sent[0].headers.get("parent_id"), Some(&"first".into()));
    let seen = seen.lock().expect("nobody panics").clone();
    let [Value::Map(request), Value::Map(exception), _] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(request.get("id"), Some(&"first".into()));
    assert_eq!(exception.get("exc_type"), Some(&"ValueError".into()));
    rig.stop(Shutdown::Warm).await;
}

/// A member of the chord `header`.
fn member(task: &str, index: i64, args: Vec<Value>) -> Message {
    let chord = step("echo", "body").link_error(step("elsewhere", "errback").queue("elsewhere"));
    let embed = Embed { chord: Some(chord.into()), ..Embed::default() };
    let message = message(task, &format!("member-{index}"), vec![]);
    embedded(with_header(with_header(message, "group", "header"), "group_index", index), args, embed)
}

#[tokio::test]
async fn the_last_member_of_a_chord_calls_its_body_with_all_results_in_order() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    rig.backend.start_chord("header", 3).await.expect("memory counts");
    for index in [2, 0, 1] {
        rig.send(member("echo", index, vec![(index * 10).into()])).await;
    }
    assert_eq!(value(rig.result("body").await), Value::from(vec![0, 10, 20]));
    rig.idle().await;
    // A copy of a member that comes late changes nothing.
    rig.backend.forget("body").await.expect("memory forgets");
    rig.send(member("echo", 1, vec![10.into()])).await;
    rig.idle().await;
    assert!(rig.backend.fetch("body").await.expect("memory answers").is_none());
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_failing_or_unknown_member_fails_the_body_and_calls_its_errbacks() {
    for unfit in ["failing", "nobody"] {
        let rig = Rig::start(App::new("test").task(echo()).task(failing())).await;
        rig.backend.start_chord("header", 2).await.expect("memory counts");
        rig.send(member(unfit, 0, vec![])).await;
        rig.send(member("echo", 1, vec![1.into()])).await;
        let body = rig.result("body").await;
        assert_eq!(raised(&body).exc_type, "ChordError", "{unfit}");
        assert!(raised(&body).to_string().contains("Dependency member-0 raised"), "{}", raised(&body));
        rig.idle().await;
        assert_eq!(rig.transport.waiting("elsewhere").len(), 1);
        rig.stop(Shutdown::Warm).await;
    }
}

#[tokio::test]
async fn a_member_that_cannot_be_read_fails_the_body() {
    let unreadable = [
        with_header(member("echo", 0, vec![]), "expires", "tomorrow"),
        with_body(member("echo", 0, vec![]), r#"[[{"__type__": "unheard-of", "__value__": 1}], {}, "#),
        with_body(member("echo", 0, vec![]), "[5, {}, "),
        with_body(member("echo", 0, vec![]), "[[], [], "),
    ];
    for unreadable in unreadable {
        let rig = Rig::start(App::new("test").task(echo())).await;
        rig.backend.start_chord("header", 2).await.expect("memory counts");
        let shown = format!("{unreadable:?}");
        rig.send(unreadable).await;
        rig.send(member("echo", 1, vec![1.into()])).await;
        assert_eq!(raised(&rig.result("body").await).exc_type, "ChordError", "{shown}");
        rig.idle().await;
        assert_eq!(rig.dead_letters().len(), 1);
        rig.stop(Shutdown::Warm).await;
    }
}

/// The message with other arguments, whatever their form, and what was to follow it.
fn with_body(mut message: Message, arguments: &str) -> Message {
    let text = String::from_utf8(message.body.to_vec()).expect("JSON");
    let embed = text.strip_prefix("[[], {}, ").expect("no arguments");
    message.body = format!("{arguments}{embed}").into();
    message
}

#[tokio::test]
async fn an_ignored_result_is_told_to_the_chord_all_the_same() {
    let rig = Rig::start(App::new("test").task(echo())).await;
    rig.backend.start_chord("header", 1).await.expect("memory counts");
    rig.send(with_header(member("echo", 0, vec![5.into()]), "ignore_result", true)).await;
    assert_eq!(value(rig.result("body").await), Value::from(vec![5]));
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_replaced_task_gets_the_result_of_its_replacement() {
    let replaces = task("replaces", late(), |context, _| {
        let replacement = chain([Signature { args: vec![1.into()], ..Signature::new("echo") }, Signature::new("echo")]);
        context.replace(replacement).into()
    });
    let spreads = task("spreads", late(), |context, _| {
        let members = [1, 2].map(|x: i64| Signature { args: vec![x.into()], ..Signature::new("echo") });
        context.replace(group(members)).into()
    });
    let rig = Rig::start(App::new("test").task(echo()).task(replaces).task(spreads)).await;
    rig.send(message("replaces", "one", vec![])).await;
    assert_eq!(value(rig.result("one").await), 1.into());
    rig.send(message("spreads", "two", vec![])).await;
    assert_eq!(value(rig.result("two").await), Value::from(vec![1, 2]));
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
}
