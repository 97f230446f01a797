//! A trace goes from a task's message into everything that the task sends, and a span is around its run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::app::Producer;
use celeriac::backend::{BackendOptions, MemoryBackend, NativeChords, ResultBackend};
use celeriac::protocol::{Body, Embed, Exception, Map, Message, Signature, Value};
use celeriac::task::{Arguments, Outcome, Retry, Run, Task, TaskContext, TaskOptions};
use celeriac::time::Clock;
use celeriac::transport::{MemoryTransport, Transport};
use celeriac::worker::Shutdown;
use celeriac::{App, args, signature};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::rig::{Handler, Rig, echo, message, task, with_header};

/// What OpenTelemetry's and Sentry's integrations write.
const TRACE: [(&str, &str); 4] = [
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "vendor=1"),
    ("baggage", "sentry-trace_id=0af7651916cd43dd8448eb211c80319c,user=ann"),
    ("sentry-trace", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"),
];

fn traced(message: Message) -> Message {
    let message = TRACE.into_iter().fold(message, |message, (name, text)| with_header(message, name, text));
    with_header(message, "headers", Map::from([TRACE[2], TRACE[3], ("mine", "not handed on")]))
}

/// A task that nobody runs, in a queue of its own.
fn to(queue: &str) -> Signature {
    signature("noop", args![]).queue(queue)
}

fn assert_traced(headers: &Map, way: &str) {
    for (name, text) in TRACE {
        assert_eq!(headers.get(name).and_then(Value::as_str), Some(text), "{way}: {name}");
    }
    let nested = headers.get("headers").and_then(Value::as_map).expect("where Sentry looks");
    assert_eq!(nested.get("sentry-trace"), headers.get("sentry-trace"), "{way}");
    assert_eq!(nested.get("baggage"), headers.get("baggage"), "{way}");
}

/// A task that sends with its context, in a way of its own.
fn sending<F>(name: &'static str, send: impl Fn(TaskContext) -> F + Send + Sync + Clone + 'static) -> impl Task
where
    F: Future<Output = celeriac::Result<()>> + Send + 'static,
{
    let run = move |context: TaskContext, _: Arguments| {
        let send = send.clone();
        Run::from_future(async move {
            send(context).await.expect("memory accepts it");
            Outcome::Success(Value::Null)
        })
    };
    Handler { name, options: TaskOptions::default(), run }
}

#[tokio::test]
async fn whatever_a_handler_sends_carries_the_trace_on() {
    let blocking = Handler {
        name: "blocking",
        options: TaskOptions::default(),
        run: |context: TaskContext, _| {
            Run::from_function(move || Outcome::Success(context.send_blocking(to("blocking")).is_ok().into()))
        },
    };
    let app = App::new("test")
        .task(sending("send", |context| async move { context.send(to("send")).await.map(drop) }))
        .task(sending("spawn", |context| async move {
            let sent = tokio::spawn(async move { context.send(to("spawn")).await });
            sent.await.expect("it does not panic").map(drop)
        }))
        .task(blocking)
        .task(task("replace", TaskOptions::default(), |context, _| context.replace(to("replace")).into()));
    let rig = Rig::start(app).await;
    for way in ["send", "spawn", "blocking", "replace"] {
        rig.send(traced(message(way, way, vec![]))).await;
        let sent = waiting(&rig.transport, way, 1).await.remove(0);
        assert_traced(&sent.headers, way);
        assert!(!sent.headers.get("headers").and_then(Value::as_map).is_some_and(|nested| nested.contains_key("mine")));
    }
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn what_a_handler_sends_with_a_producer_carries_the_trace_on() {
    let transport = MemoryTransport::new();
    let shared: Arc<dyn Transport> = Arc::new(transport.clone());
    let backend = Arc::new(MemoryBackend::new(BackendOptions::default()).expect("the defaults are good"));
    let producer = Producer::with_parts(&App::new("other"), shared, backend, Clock::system()).expect("a good app");
    let within = producer.clone();
    let app = App::new("test").task(sending("produce", move |_| {
        let producer = within.clone();
        async move { producer.send(to("elsewhere")).await.map(drop) }
    }));
    let rig = Rig::start(app).await;
    rig.send(traced(message("produce", "one", vec![]))).await;
    assert_traced(&waiting(&transport, "elsewhere", 1).await[0].headers, "produce");
    // Outside of any task there is no trace to be in.
    producer.send(to("elsewhere")).await.expect("memory accepts it");
    assert_eq!(waiting(&transport, "elsewhere", 2).await[1].headers.get("traceparent"), None);
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn what_follows_a_task_carries_the_trace_on() {
    let failing = task("failing", TaskOptions::default(), |_, _| Outcome::Failure {
        exception: Exception::new("ValueError", "bad"),
        traceback: None,
    });
    let rig = Rig::start(App::new("test").task(echo()).task(failing)).await;
    let one = |way: &str| Some(Value::List(vec![to(way).into()]));
    rig.backend.start_chord("header", 1).await.expect("memory counts");
    let ways = [
        ("link", "echo", Embed { callbacks: one("link"), ..Embed::default() }),
        ("chain", "echo", Embed { chain: one("chain"), ..Embed::default() }),
        ("chord", "echo", Embed { chord: Some(to("chord").into()), ..Embed::default() }),
        ("link_error", "failing", Embed { errbacks: one("link_error"), ..Embed::default() }),
    ];
    for (way, name, embed) in ways {
        let mut message = with_header(traced(message(name, way, vec![])), "group", "header");
        message.set_body(&Body { args: vec![1.into()], embed, ..Body::default() }).expect("simple values encode");
        rig.send(message).await;
        assert_traced(&waiting(&rig.transport, way, 1).await[0].headers, way);
    }
    rig.stop(Shutdown::Warm).await;
}

#[tokio::test]
async fn a_trace_of_ones_own_and_a_retry_keep_theirs() {
    let own = "00-11111111111111111111111111111111-2222222222222222-00";
    let retried = task("retried", TaskOptions::default(), |_, _| {
        Outcome::Retry(Retry::default().countdown(Duration::from_secs(60)))
    });
    let app = App::new("test").task(retried).task(sending("send", move |context| async move {
        context.send(to("own").header("traceparent", own)).await.map(drop)
    }));
    let rig = Rig::start(app).await;
    rig.send(traced(message("send", "one", vec![]))).await;
    let headers = waiting(&rig.transport, "own", 1).await.remove(0).headers;
    assert_eq!((headers.get("traceparent"), headers.get("sentry-trace")), (Some(&own.into()), None));
    rig.send(traced(message("retried", "two", vec![]))).await;
    // The new message is held for its ETA, so it is out and not waiting; shut down, it is back in the queue.
    while rig.backend.fetch("two").await.expect("memory answers").is_none() {
        tokio::task::yield_now().await;
    }
    let transport = rig.stop(Shutdown::Warm).await;
    let again = transport.waiting("celery");
    assert_eq!(again[0].headers.get("retries"), Some(&1.into()));
    assert_traced(&again[0].headers, "retry");
}

/// The spans of tasks: the fields of each, those recorded later too, and the events in it.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    spans: Vec<(Id, BTreeMap<String, String>)>,
    /// The name of the task in whose span each event was, with its message.
    events: Vec<(Option<String>, String)>,
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        if attributes.metadata().target() == "celeriac::task" {
            self.0.lock().expect("nobody panics").spans.push((id.clone(), fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut seen = self.0.lock().expect("nobody panics");
        if let Some((_, fields)) = seen.spans.iter_mut().rev().find(|(seen, _)| seen == id) {
            values.record(&mut Fields(fields));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let span = context.event_span(event).map(|span| span.id());
        let mut seen = self.0.lock().expect("nobody panics");
        let task = seen.spans.iter().rev().find(|(id, _)| Some(id) == span.as_ref());
        let task = task.map(|(_, fields)| fields["celery.task_name"].clone());
        seen.events.push((task, fields.remove("message").unwrap_or_default()));
    }
}

#[tokio::test]
async fn a_span_is_around_each_run() {
    let spans = Spans::default();
    // With one subscriber alone, a thread of another test that meets a span first would decide for all that nobody wants it.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let failing = task("failing", TaskOptions::default(), |_, _| {
        tracing::info!("said by the handler");
        Outcome::Failure { exception: Exception::new("ValueError", "bad"), traceback: None }
    });
    let rig = Rig::start(App::new("test").task(echo()).task(failing)).await;
    let of_a_flow = with_header(with_header(message("echo", "one", vec![]), "root_id", "root"), "parent_id", "parent");
    rig.send(with_header(of_a_flow, "retries", 2)).await;
    rig.result("one").await;
    rig.send(message("failing", "two", vec![])).await;
    rig.result("two").await;
    rig.idle().await;
    rig.stop(Shutdown::Warm).await;
    let seen = spans.0.lock().expect("nobody panics");
    let field = |span: usize, name: &str| seen.spans[span].1.get(name).map(String::as_str);
    assert_eq!(seen.spans.len(), 2, "{seen:?}");
    for (name, expected) in [
        ("otel.name", "run/echo"),
        ("otel.kind", "consumer"),
        ("messaging.system", "celery"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "celery"),
        ("messaging.message.id", "one"),
        ("celery.task_name", "echo"),
        ("celery.root_id", "root"),
        ("celery.parent_id", "parent"),
        ("celery.retries", "2"),
        ("celery.hostname", "w1@test"),
        ("celery.state", "SUCCESS"),
    ] {
        assert_eq!(field(0, name), Some(expected), "{name}");
    }
    assert_eq!((field(0, "otel.status_code"), field(1, "otel.status_code")), (None, Some("ERROR")));
    assert_eq!((field(1, "celery.state"), field(1, "error.type")), (Some("FAILURE"), Some("ValueError")));
    assert_eq!(field(1, "otel.status_description"), Some("ValueError('bad')"));
    let of_failing = |event: &&(Option<String>, String)| event.0.as_deref() == Some("failing");
    let said: Vec<_> = seen.events.iter().filter(of_failing).map(|(_, message)| message.as_str()).collect();
    assert_eq!(said.first(), Some(&"said by the handler"));
    assert!(
        said.iter().any(|said| said.starts_with("Task failing[two] raised unexpected: ValueError('bad')")),
        "{said:?}"
    );
}

/// What waits in a queue, when it is that many.
async fn waiting(transport: &MemoryTransport, queue: &str, count: usize) -> Vec<Message> {
    let all = async {
        while transport.waiting(queue).len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        transport.waiting(queue)
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("it is sent in time")
}
