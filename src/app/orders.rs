//! [`Orders`]: messages that wait to be sent, and who is to be told.

use std::collections::VecDeque;
use std::vec;

use tokio::sync::oneshot;

use super::Outgoing;
use crate::{Error, Result};

/// How many messages one publication to the broker carries at most. Of a large group no more than these are written, and
/// kept in case that they must be sent again, at a time.
pub(crate) const CHUNK: usize = 500;

/// Messages that wait to be sent, in their order, and whoever asked for them. They are taken in chunks; a chunk that was
/// answered is gone, so that a lost connection has no more sent again than the one that was under way.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    orders: VecDeque<Order>,
}

#[derive(Debug)]
struct Order {
    messages: vec::IntoIter<Outgoing>,
    /// How many of them are in the chunk that is under way.
    taken: usize,
    /// Why one of them will never be accepted.
    refused: Option<Error>,
    done: oneshot::Sender<Result<()>>,
}

impl Orders {
    pub(crate) fn push(&mut self, messages: Vec<Outgoing>, done: oneshot::Sender<Result<()>>) {
        self.orders.push_back(Order { messages: messages.into_iter(), taken: 0, refused: None, done });
    }

    /// The messages to send next; `None` when there are none, and then everybody has been told. Each chunk is answered
    /// before the next one is taken.
    pub(crate) fn next_chunk(&mut self) -> Option<Vec<Outgoing>> {
        self.tell_done();
        let mut chunk = Vec::new();
        for order in &mut self.orders {
            order.taken = order.messages.len().min(CHUNK - chunk.len());
            chunk.extend(order.messages.by_ref().take(order.taken));
        }
        (!chunk.is_empty()).then_some(chunk)
    }

    /// What became of each message of the chunk.
    pub(crate) fn answered(&mut self, answers: impl IntoIterator<Item = Result<()>>) {
        let mut answers = answers.into_iter();
        for order in self.orders.iter_mut().filter(|order| order.taken > 0) {
            for answer in answers.by_ref().take(std::mem::take(&mut order.taken)) {
                order.refused = order.refused.take().or(answer.err());
            }
        }
        self.tell_done();
    }

    /// The chunk was sent in vain, and so what remains of the orders in it is not sent.
    pub(crate) fn failed(&mut self, error: &Error) {
        for order in std::mem::take(&mut self.orders) {
            match order.taken {
                0 => self.orders.push_back(order),
                _ => tell(order.done, Err(Error::new(error.kind(), error.to_string()))),
            }
        }
    }

    fn tell_done(&mut self) {
        while self.orders.front().is_some_and(Order::is_done) {
            let Some(order) = self.orders.pop_front() else { return };
            tell(order.done, order.refused.map_or(Ok(()), Err));
        }
    }
}

impl Order {
    fn is_done(&self) -> bool {
        self.taken == 0 && self.messages.len() == 0
    }
}

/// Answers who asked.
pub(crate) fn tell(done: oneshot::Sender<Result<()>>, answer: Result<()>) {
    // Who asked may have been cancelled: nobody is left to tell.
    let _ = done.send(answer);
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::Receiver;

    use super::*;
    use crate::ErrorKind;
    use crate::protocol::Message;
    use crate::transport::Publication;

    fn order(orders: &mut Orders, count: usize) -> Receiver<Result<()>> {
        let (done, answer) = oneshot::channel();
        let publication = Publication::to_queue("q", Message::default());
        orders.push(vec![Outgoing { publication, queue: None }; count], done);
        answer
    }

    fn refusal() -> Error {
        Error::new(ErrorKind::Broker, "no")
    }

    #[test]
    fn each_is_told_when_the_last_of_its_messages_is_answered() {
        let mut orders = Orders::default();
        let [mut small, mut none, mut large, mut last] = [1, 0, 2 * CHUNK, 1].map(|count| order(&mut orders, count));
        let mut told = |orders: &mut Orders, answers: Vec<Result<()>>| {
            assert_eq!(orders.next_chunk().map_or(0, |chunk| chunk.len()), answers.len());
            orders.answered(answers);
            [&mut small, &mut none, &mut large, &mut last].map(|answer| match answer.try_recv() {
                Ok(Ok(())) => "done",
                Ok(Err(_)) => "refused",
                Err(_) => "-",
            })
        };
        let accepted = |count: usize| (0..count).map(|_| Ok(())).collect::<Vec<_>>();
        let mut answers = accepted(CHUNK);
        answers[7] = Err(refusal());
        assert_eq!(told(&mut orders, answers), ["done", "done", "-", "-"]);
        assert_eq!(told(&mut orders, accepted(CHUNK)), ["-"; 4]);
        assert_eq!(told(&mut orders, accepted(2)), ["-", "-", "refused", "done"]);
        assert_eq!(orders.next_chunk(), None);
    }

    #[test]
    fn what_remains_of_a_failed_order_is_not_sent() {
        let mut orders = Orders::default();
        let [mut large, mut other] = [CHUNK + 1, 3].map(|count| order(&mut orders, count));
        orders.next_chunk();
        orders.failed(&refusal());
        assert!(large.try_recv().unwrap().is_err() && other.try_recv().is_err());
        assert_eq!(orders.next_chunk().map(|chunk| chunk.len()), Some(3));
    }
}
