//! A worker with a task of every kind: what the tests, the benches and the demo drive.
//!
//! ```text
//! cargo run --example worker -- worker -l info
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use celeriac::protocol::{Exception, Map, Signature, Value};
use celeriac::schedule::{Crontab, Interval};
use celeriac::{App, Entry, Interrupt, TaskContext, args, signature};

/// Adds two numbers, or three.
#[celeriac::task(name = "rust.add")]
async fn add(x: i64, y: i64, #[default] z: i64) -> Result<i64, Interrupt> {
    let sum = x.checked_add(y).and_then(|sum| sum.checked_add(z));
    Ok(sum.ok_or_else(|| Exception::new("OverflowError", "the sum has more than 64 bits"))?)
}

#[celeriac::task(name = "rust.mul")]
async fn mul(x: i64, y: i64) -> Result<i64, Interrupt> {
    Ok(x.checked_mul(y).ok_or_else(|| Exception::new("OverflowError", "the product has more than 64 bits"))?)
}

/// Returns whatever it is given: `[args, kwargs]`.
#[celeriac::task(name = "rust.echo")]
async fn echo(#[args] args: Vec<Value>, #[kwargs] kwargs: Map) -> (Vec<Value>, Map) {
    (args, kwargs)
}

#[celeriac::task(name = "rust.identity")]
async fn identity(x: Value) -> Value {
    x
}

#[celeriac::task(name = "rust.xsum")]
async fn xsum(numbers: Vec<i64>) -> Result<i64, Interrupt> {
    let sum = numbers.iter().try_fold(0_i64, |sum, number| sum.checked_add(*number));
    Ok(sum.ok_or_else(|| Exception::new("OverflowError", "the sum has more than 64 bits"))?)
}

/// Raises the builtin `exc_type`, or the class `module.Class`.
#[celeriac::task(name = "rust.fail")]
async fn fail(exc_type: String, message: String) -> Result<(), Interrupt> {
    let (module, class) = exc_type.rsplit_once('.').unwrap_or(("builtins", &exc_type));
    Err(Exception::with_args(class, module, [message]).into())
}

#[celeriac::task(name = "rust.panic")]
async fn panic(message: String) {
    panic!("{message}");
}

/// Waits without holding a thread.
#[celeriac::task(name = "rust.sleep")]
async fn sleep(seconds: f64) -> Result<f64, Interrupt> {
    tokio::time::sleep(Duration::try_from_secs_f64(seconds)?).await;
    Ok(seconds)
}

/// Holds a thread, as C libraries and heavy arithmetic do.
#[celeriac::task(name = "rust.block")]
#[expect(clippy::disallowed_methods, reason = "blocking its thread is what this task is for")]
fn block(seconds: f64) -> Result<f64, Interrupt> {
    std::thread::sleep(Duration::try_from_secs_f64(seconds)?);
    Ok(seconds)
}

/// Holds a thread that is not its own, as no async task should.
#[celeriac::task(name = "rust.hog")]
#[expect(clippy::disallowed_methods, reason = "blocking a thread of the runtime is what this task is for")]
async fn hog(seconds: f64) -> Result<f64, Interrupt> {
    std::thread::sleep(Duration::try_from_secs_f64(seconds)?);
    Ok(seconds)
}

/// Fails `failures` times, each time asking to be run again; then returns the number of the attempt.
#[celeriac::task(name = "rust.flaky", max_retries = 10, retry_backoff, retry_jitter = false)]
async fn flaky(ctx: TaskContext, key: String, failures: u32) -> Result<u32, Interrupt> {
    if ctx.retries() < failures {
        return Err(ctx.retry().exception(Exception::new("KeyError", key)).into());
    }
    Ok(ctx.retries() + 1)
}

/// Tells how far it has come, after each pause.
#[celeriac::task(name = "rust.progress")]
async fn progress(ctx: TaskContext, steps: u32, pause: f64) -> Result<u32, Interrupt> {
    let pause = Duration::try_from_secs_f64(pause)?;
    for current in 1..=steps {
        ctx.update_state("PROGRESS", Map::from_iter([("current", current), ("total", steps)])).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(steps)
}

/// Returns `[root_id, parent_id, x]`.
#[celeriac::task(name = "rust.ids")]
async fn ids(ctx: &TaskContext, x: Value) -> (Option<String>, Option<String>, Value) {
    (ctx.root_id().map(str::to_owned), ctx.parent_id().map(str::to_owned), x)
}

/// Returns values that arrive in Python as `datetime`, `Decimal`, `UUID` and `bytes`.
#[celeriac::task(name = "rust.types")]
async fn types() -> Result<Map, Interrupt> {
    let moment: jiff::Timestamp = "2026-11-22T16:07:42.089562Z".parse()?;
    let id: uuid::Uuid = "6f1a1ab3-9e8c-4c40-a7c9-1c9f3a4a2a5e".parse()?;
    Ok(Map::from_iter([
        ("datetime", Value::from(moment)),
        ("decimal", Value::Decimal("3.14".to_owned())),
        ("uuid", Value::Uuid(id)),
        ("bytes", Value::Bytes(vec![0, 1, 0xfe, 0xff])),
    ]))
}

/// Waits, then appends a line to a file; its message is acknowledged before it begins.
#[celeriac::task(name = "rust.append")]
async fn append(path: String, line: String, #[default] pause: f64) -> Result<(), Interrupt> {
    tokio::time::sleep(Duration::try_from_secs_f64(pause)?).await;
    append_line(path, line).await
}

/// The same, acknowledged after it has ended.
#[celeriac::task(name = "rust.append_late", acks_late)]
async fn append_late(path: String, line: String, #[default] pause: f64) -> Result<(), Interrupt> {
    append::call(path, line, pause).await
}

/// One write to a file that is open for appending: lines of several workers do not mix.
async fn append_line(path: String, line: String) -> Result<(), Interrupt> {
    let write =
        move || OpenOptions::new().create(true).append(true).open(path)?.write_all(format!("{line}\n").as_bytes());
    Ok(tokio::task::spawn_blocking(write).await??)
}

/// Takes the worker along, without a word.
#[celeriac::task(name = "rust.abort", acks_late)]
async fn abort(#[default] pause: f64) -> Result<(), Interrupt> {
    tokio::time::sleep(Duration::try_from_secs_f64(pause)?).await;
    std::process::abort()
}

/// Refuses its message.
#[celeriac::task(name = "rust.reject")]
async fn reject(#[default("rejected".to_owned())] reason: String, #[default] requeue: bool) -> Result<(), Interrupt> {
    Err(Interrupt::reject(reason, requeue))
}

/// Ends without a result.
#[celeriac::task(name = "rust.ignore")]
async fn ignore() -> Result<(), Interrupt> {
    Err(Interrupt::ignore())
}

#[celeriac::task(name = "rust.noop")]
async fn noop() {}

/// Adds, and is acknowledged after it has ended; it takes a while if it is told to.
#[celeriac::task(name = "rust.add_late", acks_late)]
async fn add_late(x: i64, y: i64, #[default] pause: f64) -> Result<i64, Interrupt> {
    tokio::time::sleep(Duration::try_from_secs_f64(pause)?).await;
    add::call(x, y, 0).await
}

/// Puts the signature that it is given in its own place.
#[celeriac::task(name = "rust.replace_with")]
async fn replace_with(ctx: TaskContext, signature: Value) -> Result<(), Interrupt> {
    Err(ctx.replace(Signature::try_from(signature)?))
}

/// Makes the chord that it is a member of wait for one member more.
#[celeriac::task(name = "rust.add_to_chord")]
async fn add_to_chord(ctx: TaskContext, signature: Value) -> Result<(), Interrupt> {
    ctx.add_to_chord(Signature::try_from(signature)?).await?;
    Ok(())
}

/// Sends the signature that it is given, and returns where its result will be.
#[celeriac::task(name = "rust.send")]
async fn send(ctx: TaskContext, signature: Value) -> Result<Value, Interrupt> {
    Ok(ctx.send(Signature::try_from(signature)?).await?.into())
}

/// An errback of the new style: appends the failed task's id and what it raised to the file that it was made with.
#[celeriac::task(name = "rust.note_failure")]
async fn note_failure(
    request: Map,
    exception: Map,
    _traceback: Option<String>,
    #[default] path: String,
) -> Result<(), Interrupt> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let message = exception.get("exc_message").and_then(Value::as_list).and_then(|arguments| arguments.first());
    let [id, class, message] = [request.get("id"), exception.get("exc_type"), message].map(text);
    append_line(path, format!("{id} {class} {message}")).await
}

/// What `beat` and `worker -B` send, to the file that the environment names; nothing, where it names none.
fn periodic() -> celeriac::Result<Vec<Entry>> {
    let Some(path) = std::env::var_os("WORKER_PERIODIC").and_then(|path| path.into_string().ok()) else {
        return Ok(Vec::new());
    };
    Ok(vec![
        Entry::new("tick", Interval::from_seconds(1.0)?, append::s(path.clone(), "tick")),
        Entry::new("by name", Crontab::parse("30 4 * * *")?, signature("rust.append", args![path, "by name"])),
    ])
}

fn app() -> celeriac::Result<App> {
    Ok(App::new("example")
        .beat_schedule(periodic()?)
        .task(add)
        .task(mul)
        .task(echo)
        .task(identity)
        .task(xsum)
        .task(fail)
        .task(panic)
        .task(sleep)
        .task(block)
        .task(hog)
        .task(flaky)
        .task(progress)
        .task(ids)
        .task(types)
        .task(append)
        .task(append_late)
        .task(abort)
        .task(reject)
        .task(ignore)
        .task(noop)
        .task(add_late)
        .task(replace_with)
        .task(add_to_chord)
        .task(send)
        .task(note_failure))
}

fn main() -> ExitCode {
    match app() {
        Ok(app) => celeriac::cli::run(app),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
