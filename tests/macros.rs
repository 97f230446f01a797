//! `#[celeriac::task]`: what it makes of functions, and what it says of those that cannot be tasks.

#[path = "support/cargo.rs"]
mod cargo;
#[path = "macros/snapshot.rs"]
mod snapshot;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::protocol::{Exception, Map, Signature, State, Value};
use celeriac::task::{Arguments, Registry, Request, Run, StateSink, Task, TaskOptions};
use celeriac::{Interrupt, Outcome, TaskContext, args, async_trait, signature};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Adds.
#[celeriac::task]
async fn add(x: i64, y: i64, #[default(10 * TEN)] z: i64) -> i64 {
    x + y + z
}

const TEN: i64 = 10;

#[celeriac::task(name = "shop.checkout")]
fn checkout(ctx: &TaskContext, cart: Cart, #[default] note: Option<String>) -> Result<Receipt, Interrupt> {
    if cart.items.is_empty() {
        return Err(Exception::new("LookupError", "the cart is empty").into());
    }
    Ok(Receipt { id: ctx.id().to_owned(), count: cart.items.len(), note })
}

#[derive(Serialize, Deserialize)]
struct Cart {
    items: Vec<String>,
}

#[derive(Serialize)]
struct Receipt {
    id: String,
    count: usize,
    note: Option<String>,
}

#[celeriac::task]
async fn echo(#[args] args: Vec<Value>, #[kwargs] kwargs: Map) -> (Vec<Value>, Map) {
    (args, kwargs)
}

#[celeriac::task]
async fn parse(digits: String) -> Result<i64, std::num::ParseIntError> {
    digits.parse()
}

/// A `Result` behind another name is a result all the same.
type Answer = Result<Value, Interrupt>;

#[celeriac::task]
async fn answer(how: String) -> Answer {
    match how.as_str() {
        "retry" => Err(retry_soon()),
        "ignore" => Err(Interrupt::ignore()),
        "reject" => Err(Interrupt::reject("not mine", true)),
        _ => Ok(Value::from(how)),
    }
}

fn retry_soon() -> Interrupt {
    let context = TaskContext::detached(Request::default());
    context.retry().countdown(Duration::from_secs(1)).exception("soon").into()
}

#[celeriac::task]
fn outcome() -> Outcome {
    Outcome::Ignore
}

#[celeriac::task]
async fn r#type(r#fn: u8) -> u8 {
    r#fn
}

#[celeriac::task(
    name = "options",
    acks_late,
    max_retries = None,
    default_retry_delay = "2m",
    autoretry,
    retry_backoff = 2,
    retry_backoff_max = 300,
    retry_jitter = false,
    time_limit = 1.5,
    soft_time_limit = "500ms",
    rate_limit = "10/m",
    ignore_result,
    track_started = true,
    serializer = "msgpack",
    store_errors_even_if_ignored,
    send_events = false,
    reject_on_worker_lost,
    retry_on_worker_lost,
    acks_on_failure_or_timeout = false,
    acks_on_failure,
    acks_on_timeout = false,
    queue = "slow",
    priority = 9,
    expires = "1h"
)]
async fn options() {}

fn context() -> TaskContext {
    TaskContext::detached(Request { id: "an-id".to_owned(), ..Request::default() })
}

async fn run(task: impl Task, args: &[Value], kwargs: &[(&str, Value)]) -> Outcome {
    let kwargs = kwargs.iter().map(|(name, value)| (*name, value.clone())).collect();
    match task.run(context(), Arguments { args: args.to_vec(), kwargs }) {
        Run::Async(future) => future.await,
        Run::Blocking(function) => function(),
    }
}

fn success(value: impl Into<Value>) -> Outcome {
    Outcome::Success(value.into())
}

fn failure(outcome: Outcome) -> (String, Vec<Value>) {
    let Outcome::Failure { exception, .. } = outcome else { panic!("no failure: {outcome:?}") };
    (exception.exc_type, exception.exc_message)
}

#[tokio::test]
async fn arguments_come_by_position_by_name_and_by_default() {
    let one = Value::from(1);
    assert_eq!(run(add, &[one.clone(), 2.into(), 3.into()], &[]).await, success(6));
    assert_eq!(run(add, std::slice::from_ref(&one), &[("y", 2.into())]).await, success(103));
    assert_eq!(run(r#type, &[], &[("fn", 7.into())]).await, success(7));
    assert_eq!(add::call(1, 2, 3).await, 6);
    let echoed = run(echo, std::slice::from_ref(&one), &[("b", Value::Null), ("a", 2.into())]).await;
    let named = Map::from_iter([("b", Value::Null), ("a", 2.into())]);
    assert_eq!(echoed, success([Value::from([one]), Value::Map(named)]));
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_a_type_error() {
    let (class, args) = failure(run(add, &[1.into()], &[]).await);
    assert_eq!(class, "TypeError");
    assert_eq!(args, ["add() missing 1 required positional argument: 'y'".into()]);
    let (class, args) = failure(run(checkout, &[Value::from("no cart")], &[]).await);
    assert_eq!(class, "TypeError");
    assert!(args[0].as_str().is_some_and(|text| text.starts_with("checkout() argument 'cart': ")), "{args:?}");
}

#[tokio::test]
async fn structs_come_in_and_go_out_through_serde() {
    let cart = |items: &[&str]| Value::from(Map::from_iter([("items", Value::from_iter(items.iter().copied()))]));
    let receipt = run(checkout, &[cart(&["pen"])], &[("note", "soon".into())]).await;
    let expected = [("id", Value::from("an-id")), ("count", 1.into()), ("note", "soon".into())];
    assert_eq!(receipt, success(Map::from_iter(expected)));
    assert_eq!(
        failure(run(checkout, &[cart(&[])], &[]).await),
        ("LookupError".into(), vec!["the cart is empty".into()])
    );
}

#[tokio::test]
async fn every_answer_is_the_outcome_that_it_says() {
    assert_eq!(run(outcome, &[], &[]).await, Outcome::Ignore);
    assert_eq!(run(options, &[], &[]).await, success(Value::Null));
    assert_eq!(run(parse, &["7".into()], &[]).await, success(7));
    assert_eq!(failure(run(parse, &["x".into()], &[]).await).0, "ValueError");
    assert_eq!(run(answer, &["fine".into()], &[]).await, success("fine"));
    assert_eq!(run(answer, &["ignore".into()], &[]).await, Outcome::Ignore);
    let rejected = Outcome::Reject { reason: "not mine".to_owned(), requeue: true };
    assert_eq!(run(answer, &["reject".into()], &[]).await, rejected);
    let Outcome::Retry(retry) = run(answer, &["retry".into()], &[]).await else { panic!("no retry") };
    assert_eq!(retry.countdown, Some(Duration::from_secs(1)));
    assert_eq!(retry.exception.map(|exception| exception.exc_type), Some("RuntimeError".to_owned()));
}

#[test]
fn a_plain_function_runs_on_blocking_threads_and_an_async_one_does_not() {
    assert!(matches!(outcome.run(context(), Arguments::default()), Run::Blocking(_)));
    assert!(matches!(options.run(context(), Arguments::default()), Run::Async(_)));
}

#[test]
fn names_and_options_are_those_of_the_declaration() {
    assert_eq!(add.name(), "macros.add");
    assert_eq!(nested::deep.name(), "macros.nested.deep");
    assert_eq!(checkout.name(), "shop.checkout");
    assert_eq!(r#type.name(), "macros.type");
    assert_eq!(add.options(), &TaskOptions::default());
    let expected = TaskOptions {
        acks_late: Some(true),
        max_retries: Some(None),
        default_retry_delay: Some(Duration::from_secs(120)),
        autoretry: true,
        retry_backoff: Some(Duration::from_secs(2)),
        retry_backoff_max: Some(Duration::from_secs(300)),
        retry_jitter: Some(false),
        time_limit: Some(Duration::from_millis(1500)),
        soft_time_limit: Some(Duration::from_millis(500)),
        rate_limit: Some("10/m".to_owned()),
        ignore_result: Some(true),
        track_started: Some(true),
        serializer: Some("msgpack".to_owned()),
        store_errors_even_if_ignored: Some(true),
        send_events: Some(false),
        reject_on_worker_lost: Some(true),
        retry_on_worker_lost: Some(true),
        acks_on_failure_or_timeout: Some(false),
        acks_on_failure: Some(true),
        acks_on_timeout: Some(false),
        queue: Some("slow".to_owned()),
        priority: Some(9),
        expires: Some(Duration::from_secs(3600)),
    };
    assert_eq!(options.options(), &expected);
    let mut registry = Registry::default();
    registry.register(add).unwrap();
    registry.register(nested::deep).unwrap();
    assert_eq!(registry.names(), ["macros.add", "macros.nested.deep"]);
}

fn json(signature: Signature) -> String {
    String::from_utf8(celeriac::protocol::json::to_vec(&signature.into()).unwrap()).unwrap()
}

/// What can be received and not sent may be an argument all the same.
#[derive(Deserialize)]
struct Received {
    count: u8,
}

#[celeriac::task]
async fn receive(what: Received) -> u8 {
    what.count
}

#[celeriac::task(name = "shop.pack")]
async fn pack(cart: Cart, #[args] _more: Vec<Value>, label: String, #[default] _gift: bool) {
    drop((cart, label));
}

/// What Python's `json.dumps(add.s(1, 2))` and so on write.
#[test]
fn calls_are_signatures() {
    assert_eq!(add::NAME, "macros.add");
    assert_eq!(r#type::NAME, "macros.type");
    assert_eq!(nested::deep::NAME, "macros.nested.deep");
    assert_eq!(checkout::NAME, "shop.checkout");
    let whole = r#"{"task": "macros.add", "args": [1, 2], "kwargs": {"z": 3}, "options": {}, "subtask_type": null, "immutable": false}"#;
    assert_eq!(json(add::s(1, 2).kwarg("z", 3)), whole);
    assert_eq!(add::signature(args![1, 2]).kwarg("z", 3), add::s(1, 2).kwarg("z", 3));
    assert_eq!(add::partial(2), add::signature(args![2]));
    assert!(add::si(1, 2).immutable && !add::s(1, 2).immutable);
    let cart = Cart { items: vec!["pen".to_owned()] };
    let packed = r#"{"task": "shop.pack", "args": [{"items": ["pen"]}], "kwargs": {"label": "to you"}, "options": {}, "subtask_type": null, "immutable": false}"#;
    assert_eq!(json(pack::s(&cart, "to you")), packed);
    assert_eq!(pack::s(cart, "to you".to_owned()).args.len(), 1);
    assert_eq!(r#type::s(7).args, args![7]);
    assert_eq!(receive::NAME, "macros.receive");
    assert_eq!(signature("proj.add", args![1, "two", [3.5]]).args, [Value::from(1), "two".into(), [3.5].into()]);
}

mod nested {
    #[celeriac::task]
    pub(super) async fn deep() {}
}

/// A task that no macro made: it takes whatever comes.
struct Counted(TaskOptions);

impl Task for Counted {
    fn name(&self) -> &str {
        "counted"
    }

    fn options(&self) -> &TaskOptions {
        &self.0
    }

    fn run(&self, _: TaskContext, arguments: Arguments) -> Run {
        let count = arguments.args.len();
        Run::from_future(async move { Outcome::Success(count.into()) })
    }
}

#[tokio::test]
async fn a_task_can_be_written_by_hand() {
    assert_eq!(run(Counted(TaskOptions::default()), &[Value::Null, Value::Null], &[]).await, success(2));
}

/// The name of a task is free for variables, as a function's is.
#[test]
fn a_task_stands_in_no_variables_way() {
    let add = 1;
    let answer = add + 1;
    assert_eq!(answer, 2);
}

#[derive(Default)]
struct States(Mutex<Vec<(State, Value)>>);

#[async_trait]
impl StateSink for States {
    async fn update_state(&self, _: &Request, state: State, meta: Value) -> celeriac::Result<()> {
        self.0.lock().unwrap().push((state, meta));
        Ok(())
    }
}

#[celeriac::task]
fn report(ctx: &TaskContext) -> Result<bool, Interrupt> {
    ctx.update_state_blocking("PROGRESS", 1)?;
    Ok(ctx.soft_time_limit_exceeded())
}

#[tokio::test]
async fn a_handler_reports_states_and_watches_its_soft_limit() {
    let states = Arc::new(States::default());
    let limit = CancellationToken::new();
    let context = TaskContext::new(Arc::new(Request::default()), states.clone(), limit.clone());
    limit.cancel();
    assert!(!context.handles_soft_limit());
    let Run::Blocking(function) = report.run(context.clone(), Arguments::default()) else { panic!("not blocking") };
    assert_eq!(tokio::task::spawn_blocking(function).await.unwrap(), success(true));
    assert!(context.handles_soft_limit());
    assert_eq!(states.0.lock().unwrap().as_slice(), [(State::Custom("PROGRESS".to_owned()), 1.into())]);
}

#[test]
fn what_cannot_be_a_task_is_refused_in_plain_words() {
    for case in ["calls", "options", "parameters", "shape", "types"] {
        snapshot::check(case);
    }
}
