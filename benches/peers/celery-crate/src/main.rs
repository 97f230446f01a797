//! A worker of the crate `celery` that runs `rust.noop`: the peer that `benches/run.py` measures.
//!
//! `celery-crate-peer BROKER_URL QUEUE PREFETCH_COUNT`

use celery::prelude::*;

#[celery::task(name = "rust.noop")]
async fn noop() -> TaskResult<()> {
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &str| arguments.next().ok_or_else(|| anyhow::anyhow!("argument {name} is missing"));
    let (url, queue) = (argument("BROKER_URL")?, argument("QUEUE")?);
    let prefetch_count: u16 = argument("PREFETCH_COUNT")?.parse()?;
    // The macro makes another type of each broker. On AMQP only queues that the app was told of can be consumed.
    if url.starts_with("amqp") {
        let app = celery::app!(
            broker = AMQPBroker { url },
            tasks = [noop],
            task_routes = [],
            default_queue = &queue,
            prefetch_count = prefetch_count,
        )
        .await?;
        app.consume_from(&[&queue]).await?;
    } else {
        let app = celery::app!(
            broker = RedisBroker { url },
            tasks = [noop],
            task_routes = [],
            prefetch_count = prefetch_count,
        )
        .await?;
        app.consume_from(&[&queue]).await?;
    }
    Ok(())
}
