//! [`Link`]: the connection over which results leave, opened when there is one to send.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::{MaybeDone, maybe_done};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation, PublisherConfirm};
use tokio::sync::Mutex;

use super::broker::{Broker, Connected};
use crate::{ErrorKind, Result};

const PUBLISH: &str = "cannot send results over";

/// The connection over which results leave.
pub(super) struct Link {
    broker: Arc<Broker>,
    open: Mutex<Option<Arc<Connected>>>,
}

/// A message to a queue.
pub(super) struct Outgoing<'a> {
    pub(super) queue: ShortString,
    pub(super) payload: &'a [u8],
    pub(super) properties: BasicProperties,
}

impl Link {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Link { broker, open: Mutex::default() }
    }

    /// Returns when the broker has all of the messages; those to queues that are not there it has and throws away. A
    /// connection that turns out to be dead is replaced once; after that the error is the caller's.
    pub(super) async fn publish(&self, messages: &[Outgoing<'_>]) -> Result<()> {
        let (mut connected, mut is_new) = self.lend().await?;
        loop {
            let Err(error) = connected.publish(messages).await else { return Ok(()) };
            self.discard(&connected).await;
            if is_new || !error.is_connection() {
                return Err(error);
            }
            (connected, is_new) = (self.lend().await?.0, true);
        }
    }

    /// The connection, and whether it was opened just now.
    async fn lend(&self) -> Result<(Arc<Connected>, bool)> {
        let mut open = self.open.lock().await;
        if let Some(connected) = &*open {
            return Ok((Arc::clone(connected), false));
        }
        let connected = self.broker.connect().await?;
        let confirming = connected.channel.confirm_select(ConfirmSelectOptions::default());
        connected.answered(PUBLISH, confirming).await?;
        Ok((Arc::clone(open.insert(Arc::new(connected))), true))
    }

    /// Gives up the connection that something happened to, and no later one.
    async fn discard(&self, failed: &Arc<Connected>) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|connected| Arc::ptr_eq(connected, failed)) {
            *open = None;
        }
    }
}

type Sending<'a> = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send + 'a>>;

impl Connected {
    /// Sends in one go, and then waits for all confirmations.
    async fn publish(&self, messages: &[Outgoing<'_>]) -> Result<()> {
        let publishing = async {
            let mut sending: Vec<MaybeDone<Sending<'_>>> = Vec::with_capacity(messages.len());
            for Outgoing { queue, payload, properties } in messages {
                let options = BasicPublishOptions::default();
                let exchange = ShortString::default();
                let sent = self.channel.basic_publish(exchange, queue.clone(), options, payload, properties.clone());
                let mut sent = maybe_done(Box::pin(sent) as Sending<'_>);
                // Its first step gives it its place among the frames; the rest is waiting until they are written.
                poll_fn(|context| Poll::Ready(Pin::new(&mut sent).poll(context).is_ready())).await;
                sending.push(sent);
            }
            let mut confirms = Vec::with_capacity(messages.len());
            for mut sent in sending {
                (&mut sent).await;
                confirms.extend(Pin::new(&mut sent).take_output().transpose()?);
            }
            let mut are_taken = true;
            for confirm in confirms {
                are_taken &= matches!(confirm.await?, Confirmation::Ack(_));
            }
            Ok(are_taken)
        };
        match self.answered(PUBLISH, publishing).await? {
            true => Ok(()),
            false => Err(self.error(ErrorKind::Backend, "a queue of results took no more: it may be full")),
        }
    }
}
