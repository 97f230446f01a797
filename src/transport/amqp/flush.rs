//! The flusher: tells the server what became of the deliveries of one channel.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};

use super::connection::Link;
use super::declare;
use super::ledger::{Frame, Ledger};
use crate::transport::{Publication, Refused, Settlement};
use crate::{Error, ErrorKind, Result};

/// Writes settlements as they come, until the channel or the connection is gone: what gathers while one batch is written
/// is the next.
pub(super) async fn run(link: Arc<Link>, channel: Channel, ledger: Arc<Ledger>) {
    loop {
        let frames = tokio::select! {
            () = link.lost().cancelled() => break,
            frames = ledger.take() => frames,
        };
        let written = tokio::select! {
            () = link.lost().cancelled() => break,
            written = write(&link, &channel, &ledger, frames) => written,
        };
        ledger.written();
        if let Err(error) = written {
            tracing::debug!("{}", link.main.failed("cannot settle messages at", &error));
            break;
        }
    }
    ledger.close();
}

type Writing<'a> = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send + 'a>>;

/// Puts all frames into the queue of what is sent, and waits for the last of them to be on its way.
async fn write(link: &Arc<Link>, channel: &Channel, ledger: &Arc<Ledger>, frames: Vec<Frame>) -> lapin::Result<()> {
    let mut last = None;
    for frame in frames {
        let mut writing: Writing<'_> = match frame {
            Frame::Ack { tag, multiple } => Box::pin(channel.basic_ack(tag, BasicAckOptions { multiple })),
            Frame::Nack { tag, requeue } => {
                Box::pin(channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue }))
            }
            Frame::Letter { tag, letter, refused } => {
                tokio::spawn(publish_letter(Arc::clone(link), Arc::clone(ledger), tag, letter, refused));
                continue;
            }
        };
        match poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await {
            Poll::Ready(done) => done?,
            Poll::Pending => last = Some(writing),
        }
    }
    match last {
        Some(last) => last.await,
        None => Ok(()),
    }
}

/// How long after its first refusal a dead letter is tried again; after each further one twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Publishes what takes a message's place; the message is acknowledged when the server has it. Where that is refused, it
/// goes back if somebody is there to be told, who will do something else with it. A dead letter's stays unacknowledged,
/// for it would be run again, and the letter is tried again and again: its queue may have room one day.
async fn publish_letter(
    link: Arc<Link>,
    ledger: Arc<Ledger>,
    tag: u64,
    letter: Box<Publication>,
    refused: Option<Refused>,
) {
    let (batch, mut pause) = ([*letter], FIRST_PAUSE);
    loop {
        let error = match (publish(&link, &batch).await, &refused) {
            (Ok(()), _) => return ledger.published(tag, Some(Settlement::Ack)),
            (Err(error), Some(refused)) if !error.is_connection() => {
                tracing::debug!("cannot publish a message's copy, the message is given back: {error}");
                refused.tell();
                return ledger.published(tag, Some(Settlement::Restore));
            }
            (Err(error), _) => error,
        };
        // Nobody who closes the connection waits for what is not tried just now.
        ledger.published(tag, None);
        if error.kind() != ErrorKind::Broker {
            return tracing::error!("cannot publish what takes a message's place, which stays unacknowledged: {error}");
        }
        tracing::error!(
            "a dead letter was refused, its message stays unacknowledged; it is tried again in {} s: {error}",
            pause.as_secs()
        );
        tokio::select! {
            () = link.lost().cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if !ledger.publishes_again(tag) {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The queue of dead letters is nobody's to declare before the first of them.
async fn publish(link: &Arc<Link>, batch: &[Publication; 1]) -> Result<()> {
    match link.publish_one(batch).await {
        Err(error) if batch[0].exchange.is_empty() && !error.is_connection() => {
            declare::ensure_queue(&link.main, &batch[0].routing_key).await?;
            link.publish_one(batch).await
        }
        published => published,
    }
}

impl Link {
    async fn publish_one(&self, batch: &[Publication]) -> Result<()> {
        let mut answers = self.publish(batch, true).await?;
        answers.pop().unwrap_or_else(|| Err(Error::new(ErrorKind::Connection, "nothing was published")))
    }
}
