//! What RabbitMQ itself takes for the same messages: a consumer that acknowledges and does nothing else.
//!
//! `rabbitmq-peer URL QUEUE PREFETCH_COUNT`. No message is looked at, and one acknowledgement is for all that has arrived.

use anyhow::Context;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Connection, ConnectionProperties};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &str| arguments.next().with_context(|| format!("argument {name} is missing"));
    let (url, queue) = (argument("URL")?, ShortString::try_new(argument("QUEUE")?)?);
    let prefetch_count: u16 = argument("PREFETCH_COUNT")?.parse()?;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(prefetch_count, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(queue, ShortString::default(), options, FieldTable::default()).await?;
    while let Some(delivery) = consumer.next().await {
        let mut tag = delivery?.delivery_tag;
        while let Some(Some(delivery)) = consumer.next().now_or_never() {
            tag = delivery?.delivery_tag;
        }
        channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
    }
    Ok(())
}
