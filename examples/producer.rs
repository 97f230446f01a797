//! Sends tasks, chains, groups and chords to a worker in Python and shows what comes of them.
//!
//! ```text
//! CELERY_BROKER_URL=redis://localhost/0 CELERY_RESULT_BACKEND=redis://localhost/1 cargo run --example producer
//! ```
//!
//! The tasks that it calls are those of `tests/python/sums.py`: `celery -A sums worker`.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use celeriac::app::Producer;
use celeriac::protocol::{Signature, Value};
use celeriac::{App, AsyncResult, GroupResult, args, chain, chord, group, signature};

const PATIENCE: Duration = Duration::from_secs(20);

fn add(x: i64, y: i64) -> Signature {
    signature("sums.add", args![x, y])
}

/// What a chain completes: the sum of what came before it and `y`.
fn and(y: i64) -> Signature {
    signature("sums.add", args![y])
}

fn total() -> Signature {
    signature("sums.total", args![])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut app = App::new("producer");
    app.config_mut().merge_environment(|name| std::env::var(name).ok())?;
    app.config_mut().merge_toml("[task_routes]\n'sums.*' = 'sums'", "the example")?;
    let producer = app.producer()?;
    one_task(&producer).await?;
    canvases(&producer).await?;
    groups(&producer).await?;
    failures(&producer).await?;
    many(&producer).await?;
    Ok(producer.close().await?)
}

async fn one_task(producer: &Producer) -> Result<(), Box<dyn Error>> {
    show("task", producer.send(add(1, 2)).await?.get::<i64>(PATIENCE).await?);
    show("kwargs", number(producer, signature("sums.add", args![1]).kwarg("y", 5)).await?);
    show("countdown", number(producer, add(2, 2).countdown(0.1)).await?);
    let request = producer.send(signature("sums.request", args![]).header("user", "ann").priority(3)).await?;
    show("request", request.get::<Value>(PATIENCE).await?);
    let linked = producer.send(add(1, 1).link(and(10))).await?;
    linked.wait(PATIENCE).await?;
    let children = linked.children().await?;
    show("linked", children[0].get::<i64>(PATIENCE).await?);
    let ignored = producer.send(add(1, 1).ignore_result(true)).await?;
    show("ignored", ignored.get::<Option<i64>>(PATIENCE).await?);
    Ok(())
}

async fn canvases(producer: &Producer) -> Result<(), Box<dyn Error>> {
    let result = producer.send(chain([add(1, 2), and(3), and(4)])).await?;
    show("chain", result.get::<i64>(PATIENCE).await?);
    show("its first step", first(result).get::<i64>(PATIENCE).await?);
    show("chord", number(producer, chord((0..10).map(|i| add(i, i)), total())).await?);
    let nested = chain([add(1, 1), group([and(1), and(2)]), total(), and(100)]);
    show("chain with a group in it", number(producer, nested).await?);
    let body = chord([add(1, 1), chord([add(2, 2), add(3, 3)], total())], total());
    show("chord in a chord", number(producer, body).await?);
    Ok(())
}

async fn groups(producer: &Producer) -> Result<(), Box<dyn Error>> {
    let result: GroupResult = producer.send(group((0..20).map(|i| add(i, 1)))).await?.try_into()?;
    show("group", result.join::<i64>(PATIENCE).await?);
    show("completed", result.completed_count().await?);
    result.save().await?;
    let restored = producer.group_result(result.id()).await?;
    show("restored", restored.map(|group| group.len()));
    result.forget().await?;
    show("forgotten", result.completed_count().await?);
    Ok(())
}

async fn failures(producer: &Producer) -> Result<(), Box<dyn Error>> {
    for (name, canvas) in [
        ("failure", signature("sums.fail", args!["no"])),
        ("failure in a chain", chain([signature("sums.fail", args!["no"]), and(1)])),
        ("failure in a group", group([add(1, 1), signature("sums.fail", args!["no"])])),
        ("failure in a chord", chord([add(1, 1), signature("sums.fail", args!["no"])], total())),
    ] {
        let failed = producer.send(canvas).await?.get::<Value>(PATIENCE).await;
        let error = failed.err().ok_or("nothing was raised")?;
        let raised = error.task_error().ok_or("not the task's error")?;
        show(name, (raised.exc_type(), raised.message().starts_with("no"), raised.traceback.is_some()));
    }
    let late = producer.send(add(1, 1).queue("nobody")).await?.get::<i64>(Duration::from_millis(50)).await;
    show("timeout", late.is_err_and(|error| error.is_timeout()));
    Ok(())
}

async fn many(producer: &Producer) -> Result<(), Box<dyn Error>> {
    let results = producer.send_many((0..500).map(|i| add(i, i))).await?;
    let mut sum = 0;
    for result in &results {
        sum += result.get::<i64>(PATIENCE).await?;
    }
    show("many", sum);
    Ok(())
}

async fn number(producer: &Producer, canvas: Signature) -> Result<i64, Box<dyn Error>> {
    Ok(producer.send(canvas).await?.get(PATIENCE).await?)
}

fn first(result: AsyncResult) -> AsyncResult {
    match result.parent() {
        Some(parent) => first(parent),
        None => result,
    }
}

fn show(name: &str, value: impl Debug) {
    println!("{name}: {value:?}");
}
