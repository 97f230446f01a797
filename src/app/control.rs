//! [`Control`]: asks workers, and tells them what to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{App, new_id, parts};
use crate::Result;
use crate::config::Config;
use crate::control::{self, ControlCall, LamportClock, ReplyTo, Wanted};
use crate::protocol::{AcceptContent, Map, Serializer, Value};
use crate::time::Clock;
use crate::transport::{Connection, ExchangeType, Publication, Queue, Subscription, Transport};

/// The remote control of workers in any language (celery/app/control.py `Control`). Cheap to clone; each call has a
/// connection of its own.
///
/// ```no_run
/// # async fn shop() -> Result<(), Box<dyn std::error::Error>> {
/// use celeriac::App;
///
/// let control = App::new("shop").control()?;
/// for (node, answer) in control.ask(control.call("ping")).await? {
///     println!("{node}: {answer:?}");
/// }
/// control.tell(control.call("rate_limit").argument("task_name", "shop.tasks.add").argument("rate_limit", "10/m")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Control {
    transport: Arc<dyn Transport>,
    clock: Clock,
    lamport: Arc<LamportClock>,
    accept: AcceptContent,
    /// `control_exchange`.
    exchange: String,
    /// Where answers come to, but for its name.
    inbox: Queue,
}

/// What is asked or told, of whom, and how long answers are waited for.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    call: ControlCall,
    timeout: Duration,
    limit: Option<usize>,
}

impl Call {
    /// An argument of the command.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.call.arguments.insert(name, value);
        self
    }

    /// Only these nodes; none: all. As many answers are waited for.
    #[must_use]
    pub fn destination<N: Into<String>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.call.destination = nodes.into_iter().map(Into::into).collect();
        self
    }

    /// Only nodes whose names the pattern matches; the matcher is `glob` or `pcre`.
    #[must_use]
    pub fn pattern(mut self, pattern: impl Into<String>, matcher: impl Into<String>) -> Self {
        self.call.pattern = Some((pattern.into(), matcher.into()));
        self
    }

    /// How long the next answer is waited for: a second unless told otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// No more answers than this are waited for.
    #[must_use]
    pub fn limit(mut self, answers: usize) -> Self {
        self.limit = Some(answers);
        self
    }
}

impl Control {
    /// The remote control of the workers at the app's broker. Nothing is connected to yet.
    ///
    /// # Errors
    /// `Configuration`: a setting or a URL that cannot be used.
    pub fn new(app: &App) -> Result<Self> {
        let clock = Clock::system();
        let transport = parts::write_transport(app.config(), clock.clone(), fastrand::u64(..))?;
        Control::with_parts(app.config(), transport, clock, Arc::default())
    }

    /// One of a node that has parts of its own.
    pub(crate) fn with_parts(
        config: &Config,
        transport: Arc<dyn Transport>,
        clock: Clock,
        lamport: Arc<LamportClock>,
    ) -> Result<Self> {
        let exchange = config.control_exchange.clone();
        let inbox = Queue {
            exchange: format!("reply.{exchange}.pidbox"),
            exchange_type: ExchangeType::Direct,
            ..parts::control_queue("", config)
        };
        let accept = AcceptContent::new(&config.accept_content)?;
        Ok(Control { transport, clock, lamport, accept, exchange, inbox })
    }

    /// A command for all workers, by its name, to be narrowed and then told or asked.
    pub fn call(&self, method: impl Into<String>) -> Call {
        let call = ControlCall { method: method.into(), ..ControlCall::default() };
        Call { call, timeout: Duration::from_secs(1), limit: None }
    }

    /// Sends the command and waits for no answer. A worker that is not there now does not hear of it.
    ///
    /// # Errors
    /// The broker's; `Encode`: an argument that JSON has no form for.
    pub async fn tell(&self, call: Call) -> Result<()> {
        let connection = self.transport.connect().await?;
        let told = self.send(&*connection, call.call, None).await;
        connection.close().await.and(told)
    }

    /// Sends the command and returns the answers, by node, in the order in which they came: all that came until for
    /// the call's timeout no more came, or as many as are expected.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub async fn ask(&self, call: Call) -> Result<Vec<(String, Value)>> {
        self.ask_each(call, |_, _| {}).await
    }

    /// The same, and shows each answer as it comes.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub async fn ask_each(&self, call: Call, each: impl FnMut(&str, &Value)) -> Result<Vec<(String, Value)>> {
        let connection = self.transport.connect().await?;
        let answers = self.ask_over(&*connection, call, each, std::future::pending()).await;
        let closed = connection.close().await;
        answers.and_then(|answers| closed.map(|()| answers))
    }

    /// The same over a connection that is there, and no longer than until `enough`: then there are no answers but those
    /// that were shown.
    pub(crate) async fn ask_over(
        &self,
        connection: &dyn Connection,
        call: Call,
        each: impl FnMut(&str, &Value),
        enough: impl Future<Output = ()>,
    ) -> Result<Vec<(String, Value)>> {
        let (oid, ticket) = (new_id(), new_id());
        let name = format!("{oid}.{}", self.inbox.exchange);
        let inbox = Queue { name: name.into(), routing_key: oid.clone(), ..self.inbox.clone() };
        // First the ear, then the question.
        let mut subscription = connection.subscribe(&inbox).await?;
        let Call { call, timeout, limit } = call;
        let limit = limit.or(Some(call.destination.len()).filter(|nodes| *nodes > 0));
        let wanted = Wanted {
            reply_to: ReplyTo { exchange: inbox.exchange, routing_key: oid },
            ticket: ticket.clone(),
            expires: Some(self.clock.epoch_seconds() + timeout.as_secs_f64()),
        };
        let answers = match self.send(connection, call, Some(wanted)).await {
            Ok(()) => tokio::select! {
                answers = self.collect(&mut *subscription, &ticket, timeout, limit, each) => answers,
                () = enough => Ok(Vec::new()),
            },
            Err(error) => Err(error),
        };
        let closed = subscription.close().await;
        answers.and_then(|answers| closed.map(|()| answers))
    }

    /// kombu/pidbox.py `Mailbox._collect`: each answer has the whole timeout.
    async fn collect(
        &self,
        subscription: &mut dyn Subscription,
        ticket: &str,
        patience: Duration,
        limit: Option<usize>,
        mut each: impl FnMut(&str, &Value),
    ) -> Result<Vec<(String, Value)>> {
        let mut answers = Vec::new();
        while limit.is_none_or(|limit| answers.len() < limit) {
            let Ok(heard) = timeout(patience, subscription.next()).await else { break };
            let Ok(message) = heard? else { continue };
            if let Some(clock) = message.headers.get("clock").and_then(Value::as_u64) {
                self.lamport.adjust(clock);
            }
            match control::answer(&message, &self.accept, ticket, self.clock.epoch_seconds()) {
                Ok(Some(nodes)) => nodes.into_iter().for_each(|(node, value)| {
                    each(&node, &value);
                    answers.push((node, value));
                }),
                Ok(None) => {}
                Err(error) => tracing::warn!("control: an answer cannot be read: {error}"),
            }
        }
        Ok(answers)
    }

    async fn send(&self, connection: &dyn Connection, call: ControlCall, wanted: Option<Wanted>) -> Result<()> {
        let publication = publication(&self.exchange, call, self.lamport.forward(), wanted)?;
        connection.broadcast(vec![publication]).await
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// A command, to the exchange of all mailboxes.
pub(crate) fn publication(
    control_exchange: &str,
    call: ControlCall,
    clock: u64,
    wanted: Option<Wanted>,
) -> Result<Publication> {
    let exchange = format!("{control_exchange}.pidbox");
    let mut message = call.into_message(Serializer::default(), clock, wanted)?;
    message.properties.exchange = Some(exchange.clone());
    message.properties.routing_key = Some(String::new());
    Ok(Publication { exchange, routing_key: String::new(), message })
}

/// What several nodes answered under one name (celery/app/control.py `flatten_reply`): the last answer of each, and the
/// names that came more than once.
pub fn by_node(answers: Vec<(String, Value)>) -> (Map, Vec<String>) {
    let (mut nodes, mut twice) = (Map::new(), Vec::new());
    for (node, value) in answers {
        if nodes.insert(node.clone(), value).is_some() && !twice.contains(&node) {
            twice.push(node);
        }
    }
    (nodes, twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_has_one_answer() {
        let answers = [("a", 1), ("b", 2), ("a", 3)].map(|(node, value)| (node.to_owned(), value.into()));
        let (nodes, twice) = by_node(answers.into());
        assert_eq!((nodes, twice), (Map::from([("a", 3), ("b", 2)]), vec!["a".to_owned()]));
    }
}
