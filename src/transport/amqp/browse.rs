//! [`RabbitBrowser`]: looks into a queue by getting its messages without acknowledging them.
//!
//! They are kept from consumers until the browser drops, which gives them back to where they were; then they count as
//! delivered before.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::Channel;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{BasicAckOptions, BasicGetOptions};

use super::connection::Link;
use super::declare;
use crate::Result;
use crate::amqp_client::{code, is_refusal, read, refusal, short};
use crate::protocol::Message;
use crate::transport::{Browsed, Browser, Content, Place, Publication, QueueName, Replacement, Undecodable};

/// How many messages one look brings.
const PAGE: usize = 200;

/// Looks into one queue over a channel of its own.
pub(super) struct RabbitBrowser {
    link: Arc<Link>,
    channel: Channel,
    queue: QueueName,
    /// What was got and is not taken, by the number of its delivery.
    held: HashSet<u64>,
}

type Getting<'a> = Pin<Box<dyn Future<Output = lapin::Result<Option<BasicGetMessage>>> + Send + 'a>>;

impl RabbitBrowser {
    pub(super) async fn open(link: Arc<Link>, queue: &QueueName) -> Result<Self> {
        let channel = link.main.channel().await?;
        Ok(RabbitBrowser { link, channel, queue: queue.clone(), held: HashSet::new() })
    }

    /// Asks for a page of messages at once, and takes the answers in their order.
    async fn page(&self) -> Result<lapin::Result<Vec<Delivery>>> {
        let name = short(self.queue.as_str())?;
        let mut asked: Vec<Getting<'_>> = Vec::with_capacity(PAGE);
        for _ in 0..PAGE {
            let mut get: Getting<'_> = Box::pin(self.channel.basic_get(name.clone(), BasicGetOptions::default()));
            asked.push(match poll_fn(|context| Poll::Ready(get.as_mut().poll(context))).await {
                Poll::Pending => get,
                Poll::Ready(answered) => Box::pin(std::future::ready(answered)),
            });
        }
        let mut page = Vec::new();
        for get in asked {
            match get.await {
                Ok(got) => page.extend(got.map(|got| got.delivery)),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(page))
    }

    /// Publishes what takes the place of others, and says of each whether it was accepted.
    async fn publish(&self, replacements: Vec<Replacement>) -> Result<Vec<Result<()>>> {
        let mut queues: Vec<&QueueName> = replacements.iter().map(|replacement| &replacement.queue).collect();
        queues.sort();
        queues.dedup();
        for queue in queues {
            declare::ensure_queue(&self.link.main, queue.as_str()).await?;
        }
        let publications = replacements.into_iter().map(|Replacement { queue, content }| {
            let message = match content {
                Content::Message(message) => *message,
                Content::Raw(body) => Message { body, ..Message::default() },
            };
            Publication::to_queue(queue.as_str(), message)
        });
        self.link.publish(&publications.collect::<Vec<_>>(), true).await
    }
}

#[async_trait]
impl Browser for RabbitBrowser {
    async fn next(&mut self) -> Result<Vec<Browsed>> {
        let page = match self.link.main.unless_lost(self.page()).await? {
            Ok(page) => page,
            // There is no such queue: it holds nothing.
            Err(error) if code(&error) == Some(404) => return Ok(Vec::new()),
            Err(error) if is_refusal(&error) => {
                return Err(refusal("cannot look into a queue at", self.link.main.place(), &error));
            }
            Err(error) => return Err(self.link.main.failed("cannot look into a queue at", &error)),
        };
        self.held.extend(page.iter().map(|delivery| delivery.delivery_tag));
        Ok(page.into_iter().map(browsed).collect())
    }

    async fn take(&mut self, messages: Vec<(Browsed, Option<Replacement>)>) -> Result<Vec<bool>> {
        let mut replacements = Vec::new();
        let mut taken = Vec::with_capacity(messages.len());
        for (browsed, replacement) in messages {
            let tag = self.held.take(&browsed.place.position);
            let replaced = tag.is_some() && replacement.is_some();
            replacements.extend(replacement.filter(|_| replaced));
            taken.push((tag, replaced));
        }
        let mut accepted = self.publish(replacements).await?.into_iter();
        let (mut answers, mut refused) = (Vec::with_capacity(taken.len()), Ok(()));
        for (tag, replaced) in taken {
            let accepted = if replaced { accepted.next().unwrap_or(Ok(())) } else { Ok(()) };
            answers.push(tag.is_some() && accepted.is_ok());
            match (tag, accepted) {
                (Some(tag), Ok(())) => {
                    let acked = self.channel.basic_ack(tag, BasicAckOptions::default()).await;
                    acked.map_err(|error| self.link.main.failed("cannot take messages out of a queue at", &error))?;
                }
                (_, accepted) => refused = refused.and(accepted),
            }
        }
        refused.map(|()| answers)
    }
}

impl Drop for RabbitBrowser {
    fn drop(&mut self) {
        if self.link.lost().is_cancelled() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let channel = self.channel.clone();
        self.link.closing(tokio::spawn(async move { declare::close(&channel).await }));
    }
}

fn browsed(mut delivery: Delivery) -> Browsed {
    let (raw, position) = (Bytes::from(delivery.data.clone()), delivery.delivery_tag);
    let message = read(&mut delivery).map_err(|error| Undecodable { reason: error.to_string(), raw: raw.clone() });
    Browsed { message, raw, place: Place { list: 0, position } }
}
