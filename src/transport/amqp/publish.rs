//! [`Publisher`]: hands messages to exchanges, and hears of each whether the broker has taken it.
//!
//! A batch leaves in one go, and its confirmations are awaited together: no round trip for each message. What goes to
//! no queue comes back, and is refused; stock producers lose it without a word.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Error as AmqpError, PublisherConfirm};
use tokio::sync::{Mutex, MutexGuard};

use super::declare;
use crate::amqp_client::{AmqpConnection, is_refusal, properties, refusal, short};
use crate::transport::Publication;
use crate::{Error, ErrorKind, Result};

const PUBLISH: &str = "cannot publish to";

/// The channel of one connection that is published on: a batch at a time, so that what comes back is known to be of it.
#[derive(Default)]
pub(super) struct Publisher {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channel: Option<Channel>,
    /// Exchanges that are there, or were.
    exchanges: HashSet<String>,
}

/// What is said of a batch's messages so far.
type Answers = Vec<Option<Result<()>>>;

type Sending<'a> = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send + 'a>>;

impl Publisher {
    /// Publishes a batch, and says of each message whether it was accepted. With `mandatory`, one that goes to no queue
    /// was not.
    pub(super) async fn publish(
        &self,
        connection: &AmqpConnection,
        batch: &[Publication],
        mandatory: bool,
    ) -> Result<Vec<Result<()>>> {
        let mut state = self.state.lock().await;
        let frame_max = connection.frame_max();
        let mut answers: Answers = Vec::with_capacity(batch.len());
        let mut ready = Vec::with_capacity(batch.len());
        for (nth, publication) in batch.iter().enumerate() {
            let prepared = match state.knows(connection, &publication.exchange).await? {
                true => Prepared::new(nth, publication, frame_max),
                false => Err(no_exchange(connection, &publication.exchange)),
            };
            answers.push(match prepared {
                Ok(prepared) => {
                    ready.push(prepared);
                    None
                }
                Err(error) => Some(Err(error)),
            });
        }
        send(&mut state, connection, &ready, &mut answers, mandatory).await?;
        let unknown = || connection.is_lost();
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unknown()))).collect())
    }
}

impl State {
    /// Whether there is an exchange of that name. To publish to one that is not there would cost the whole batch its
    /// channel.
    async fn knows(&mut self, connection: &AmqpConnection, exchange: &str) -> Result<bool> {
        if exchange.is_empty() || self.exchanges.contains(exchange) {
            return Ok(true);
        }
        let exists = match declare::exchange_exists(connection, exchange).await {
            Err(error) if error.kind() == ErrorKind::Encode => false,
            exists => exists?,
        };
        if exists {
            self.exchanges.insert(exchange.to_owned());
        }
        Ok(exists)
    }

    /// The channel, opened if there is none.
    async fn channel(&mut self, connection: &AmqpConnection) -> Result<Channel> {
        if let Some(channel) = self.channel.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = connection.channel().await?;
        let confirmed = channel.confirm_select(ConfirmSelectOptions::default()).await;
        confirmed.map_err(|error| connection.failed(PUBLISH, &error))?;
        Ok(self.channel.insert(channel).clone())
    }
}

/// A message that has a form in AMQP.
struct Prepared<'a> {
    nth: usize,
    publication: &'a Publication,
    exchange: lapin::types::ShortString,
    routing_key: lapin::types::ShortString,
    properties: BasicProperties,
}

impl<'a> Prepared<'a> {
    fn new(nth: usize, publication: &'a Publication, frame_max: usize) -> Result<Self> {
        Ok(Prepared {
            nth,
            publication,
            exchange: short(publication.exchange.as_str())?,
            routing_key: short(publication.routing_key.as_str())?,
            properties: properties(&publication.message, frame_max)?,
        })
    }

    /// Whether that is the message which came back.
    fn is(&self, returned: &BasicReturnMessage) -> bool {
        self.exchange == returned.exchange
            && self.routing_key == returned.routing_key
            && self.properties.correlation_id() == returned.properties.correlation_id()
    }
}

/// Sends messages and hears of them all. Where the channel breaks under them, those of which nothing was heard are sent
/// once more, one by one: what breaks a channel alone is at fault.
async fn send(
    state: &mut MutexGuard<'_, State>,
    connection: &AmqpConnection,
    ready: &[Prepared<'_>],
    answers: &mut Answers,
    mandatory: bool,
) -> Result<()> {
    let channel = state.channel(connection).await?;
    let Err(error) = attempt(&channel, connection, ready, answers, mandatory).await else { return Ok(()) };
    if !is_refusal(&error) {
        return Err(connection.failed(PUBLISH, &error));
    }
    if connection.lost_token().is_cancelled() {
        // Of what was refused nobody else would hear: all of it comes again over the next connection.
        return Err(connection.is_lost());
    }
    tracing::warn!("{}", refusal("a channel was closed while publishing to", connection.place(), &error));
    state.exchanges.clear();
    for one in ready {
        if answers[one.nth].is_some() {
            continue;
        }
        let channel = state.channel(connection).await?;
        if let Err(error) = attempt(&channel, connection, std::slice::from_ref(one), answers, mandatory).await {
            if !is_refusal(&error) {
                return Err(connection.failed(PUBLISH, &error));
            }
            answers[one.nth] = Some(Err(refusal(PUBLISH, connection.place(), &error)));
        }
    }
    Ok(())
}

/// Sends messages at once. Where this fails some have no answer, and the error says why.
async fn attempt(
    channel: &Channel,
    connection: &AmqpConnection,
    ready: &[Prepared<'_>],
    answers: &mut Answers,
    mandatory: bool,
) -> lapin::Result<()> {
    let options = BasicPublishOptions { mandatory, immediate: false };
    let mut sending: Vec<Sending<'_>> = Vec::with_capacity(ready.len());
    for one in ready {
        let body = &one.publication.message.body;
        let (exchange, key) = (one.exchange.clone(), one.routing_key.clone());
        let mut sent: Sending<'_> =
            Box::pin(channel.basic_publish(exchange, key, options, body, one.properties.clone()));
        // Its first step puts it into the queue of frames, in its place; what follows is waiting.
        match poll_fn(|context| Poll::Ready(sent.as_mut().poll(context))).await {
            Poll::Pending => sending.push(sent),
            Poll::Ready(done) => sending.push(Box::pin(std::future::ready(done))),
        }
    }
    let mut confirms = Vec::with_capacity(sending.len());
    for sent in sending {
        confirms.push(sent.await);
    }
    let (mut returned, mut broken) = (Vec::new(), Ok(()));
    for (one, confirm) in ready.iter().zip(confirms) {
        let confirmation = match confirm {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        match confirmation {
            Ok(Confirmation::Ack(back)) => {
                answers[one.nth] = Some(Ok(()));
                returned.extend(back);
            }
            Ok(Confirmation::Nack(back)) => {
                answers[one.nth] = Some(Err(nacked(connection, one.publication)));
                returned.extend(back);
            }
            Ok(Confirmation::NotRequested) => answers[one.nth] = Some(Ok(())),
            Err(error) => broken = Err(telling(broken.err(), error)),
        }
    }
    for back in returned {
        refuse_returned(connection, ready, answers, &back);
    }
    broken
}

/// Of two errors of one channel the one that says more: what was to leave when the server had closed it already, has no
/// word of why.
fn telling(known: Option<AmqpError>, error: AmqpError) -> AmqpError {
    known.filter(is_refusal).unwrap_or(error)
}

/// The library hands a message that came back to whoever is confirmed next; it is found by what it says itself.
fn refuse_returned(
    connection: &AmqpConnection,
    ready: &[Prepared<'_>],
    answers: &mut Answers,
    returned: &BasicReturnMessage,
) {
    let same = ready.iter().find(|one| one.is(returned) && matches!(answers[one.nth], Some(Ok(()))));
    if let Some(one) = same {
        let Publication { exchange, routing_key, .. } = one.publication;
        let message = format!(
            "{PUBLISH} {}: no queue is bound to the exchange {exchange:?} for the key {routing_key:?}",
            connection.place()
        );
        answers[one.nth] = Some(Err(Error::new(ErrorKind::Broker, message)));
    }
}

fn nacked(connection: &AmqpConnection, publication: &Publication) -> Error {
    let message = format!(
        "{PUBLISH} {}: a queue for {:?} did not take the message: it may be full",
        connection.place(),
        publication.routing_key
    );
    Error::new(ErrorKind::Broker, message)
}

fn no_exchange(connection: &AmqpConnection, exchange: &str) -> Error {
    let message = format!("{PUBLISH} {}: (404) there is no exchange {exchange:?}", connection.place());
    Error::new(ErrorKind::Broker, message)
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPSoftError};
    use lapin::{ChannelState, ErrorKind};

    use super::*;

    #[test]
    fn why_the_server_has_closed_a_channel_is_not_forgotten_for_what_could_not_be_sent_any_more() {
        let refused =
            || AmqpError::from(ErrorKind::ProtocolError(AMQPError::new(AMQPSoftError::NOTFOUND.into(), "gone".into())));
        let closed = || AmqpError::from(ErrorKind::InvalidChannelState(ChannelState::Closed, "publish"));
        assert!(!is_refusal(&telling(None, closed())));
        assert!(is_refusal(&telling(None, refused())));
        assert!(is_refusal(&telling(Some(refused()), closed())));
        assert!(is_refusal(&telling(Some(closed()), refused())));
    }
}
