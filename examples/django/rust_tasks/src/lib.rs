//! The shop's tasks in Rust: in Python, `from shop_rust import total`, and `total.delay(..)` as of any other task.

use std::time::Duration;

use celeriac::protocol::{Exception, Map, Value};
use celeriac::{Interrupt, TaskContext};

/// The sum of an order, in cents.
#[celeriac::task]
async fn total(prices: Vec<i64>, #[default] discount: i64) -> i64 {
    prices.iter().sum::<i64>() - discount
}

/// How often each word occurs: it computes, so it is a plain function, and has a thread of its own.
#[celeriac::task]
fn words(text: String) -> Map {
    let mut counts = Map::new();
    for word in text.split_whitespace() {
        let count = counts.get(word).and_then(Value::as_i64).unwrap_or_default();
        counts.insert(word, count + 1);
    }
    counts
}

/// `[args, kwargs]`.
#[celeriac::task]
async fn echo(#[args] args: Vec<Value>, #[kwargs] kwargs: Map) -> (Vec<Value>, Map) {
    (args, kwargs)
}

/// A datetime, a decimal, a UUID and bytes.
#[celeriac::task]
async fn types() -> Result<Map, Interrupt> {
    Ok(Map::from_iter([
        ("datetime", Value::DateTime("2026-11-22T16:07:42.089562+00:00".parse()?)),
        ("decimal", Value::Decimal("3.14".to_owned())),
        ("uuid", Value::Uuid("6f1a1ab39e8c4c40a7c91c9f3a4a2a5e".parse()?)),
        ("bytes", Value::Bytes(vec![0, 1, 0xfe, 0xff])),
    ]))
}

/// Raises the Python exception `class`, as `ValueError` or `shop.errors.NoStock`.
#[celeriac::task]
async fn fail(class: String, message: String) -> Result<(), Interrupt> {
    let (module, class) = class.rsplit_once('.').unwrap_or(("builtins", &class));
    Err(Exception::with_args(class, module, [message]).into())
}

/// A panic: the task fails, the worker goes on.
#[celeriac::task]
async fn panic(message: String) {
    panic!("{message}");
}

/// Fails that many times, and asks each time to be run again; then returns the number of the attempt.
#[celeriac::task(max_retries = 5, retry_backoff, retry_jitter = false)]
async fn flaky(ctx: TaskContext, failures: u32) -> Result<u32, Interrupt> {
    if ctx.retries() < failures {
        return Err(ctx.retry().exception(Exception::new("KeyError", "not yet")).into());
    }
    Ok(ctx.retries() + 1)
}

/// Stores PROGRESS with `current` and `total` after each step.
#[celeriac::task]
async fn progress(ctx: TaskContext, steps: u32, pause: f64) -> Result<u32, Interrupt> {
    let pause = Duration::try_from_secs_f64(pause)?;
    for current in 1..=steps {
        ctx.update_state("PROGRESS", Map::from_iter([("current", current), ("total", steps)])).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(steps)
}

#[celeriac::task(ignore_result)]
async fn noop() {}

celeriac_python::python_tasks!(shop_rust, [total, words, echo, types, fail, panic, flaky, progress, noop]);
