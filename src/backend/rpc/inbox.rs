//! [`Inbox`]: the results that have come to this process, and who waits for which.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::backend::rules::overwrites;
use crate::protocol::TaskMeta;
use crate::{Error, ErrorKind, Result};

/// How many results are kept that may never be asked for (Celery keeps 8,192), and how many bytes of them: the oldest go
/// first.
const MOST: usize = 65_536;
const MOST_BYTES: usize = 256 << 20;

/// The results that have come.
#[derive(Default)]
pub(super) struct Inbox {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    metas: HashMap<String, Arrived>,
    /// In the order of their coming; of what was forgotten or came again, only the last number stands in `metas`.
    order: VecDeque<(u64, String)>,
    next: u64,
    bytes: usize,
    waiting: HashMap<String, Vec<UnboundedSender<Result<TaskMeta>>>>,
}

struct Arrived {
    /// What cannot be read is an error to whoever asks for it.
    meta: Result<TaskMeta>,
    number: u64,
    bytes: usize,
}

/// One who waits for results.
pub(super) struct Watch {
    inbox: Arc<Inbox>,
    task_ids: Vec<String>,
    arriving: UnboundedReceiver<Result<TaskMeta>>,
}

impl Inbox {
    /// The last state that has come of a task.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn meta(&self, task_id: &str) -> Result<Option<TaskMeta>> {
        self.held().metas.get(task_id).map(|arrived| copy(&arrived.meta)).transpose()
    }

    /// Takes a state in, of so many bytes, and tells those who wait for it. A SUCCESS stays, as with every backend.
    pub(super) fn take(&self, task_id: &str, meta: Result<TaskMeta>, bytes: usize) {
        let mut held = self.held();
        let is_newer = |arrived: &Arrived| match (&arrived.meta, &meta) {
            (Ok(stored), Ok(incoming)) => overwrites(&stored.status, &incoming.status),
            (stored, _) => stored.is_err(),
        };
        if !held.metas.get(task_id).is_none_or(is_newer) {
            return;
        }
        if is_over(&meta) {
            held.tell(task_id, || copy(&meta));
        }
        held.keep(task_id.to_owned(), meta, bytes);
    }

    /// Nothing will come, for a reason that waiting does not change.
    pub(super) fn refuse_all(&self, error: &Error) {
        for (_, waiting) in std::mem::take(&mut self.held().waiting) {
            waiting.iter().for_each(|one| _ = one.send(Err(again(error))));
        }
    }

    pub(super) fn forget(&self, task_id: &str) {
        self.held().remove(task_id);
    }

    /// Waits for the end of tasks: those that are over already are told at once.
    pub(super) fn watch(self: &Arc<Self>, task_ids: Vec<&str>) -> Watch {
        let (tell, arriving) = mpsc::unbounded_channel();
        let mut held = self.held();
        for &task_id in &task_ids {
            match held.metas.get(task_id).filter(|arrived| is_over(&arrived.meta)) {
                Some(arrived) => _ = tell.send(copy(&arrived.meta)),
                None => held.waiting.entry(task_id.to_owned()).or_default().push(tell.clone()),
            }
        }
        drop(held);
        Watch { inbox: Arc::clone(self), task_ids: task_ids.into_iter().map(str::to_owned).collect(), arriving }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn keep(&mut self, task_id: String, meta: Result<TaskMeta>, bytes: usize) {
        self.remove(&task_id);
        self.next += 1;
        self.bytes += bytes;
        self.order.push_back((self.next, task_id.clone()));
        self.metas.insert(task_id, Arrived { meta, number: self.next, bytes });
        while self.metas.len() > MOST || self.bytes > MOST_BYTES {
            let Some((number, task_id)) = self.order.pop_front() else { return };
            if is_last(&self.metas, number, &task_id) {
                self.remove(&task_id);
            }
        }
        // Once in so many: constant work for each that comes.
        if self.order.len() > 2 * MOST {
            self.order.retain(|(number, task_id)| is_last(&self.metas, *number, task_id));
        }
    }

    fn remove(&mut self, task_id: &str) {
        if let Some(arrived) = self.metas.remove(task_id) {
            self.bytes -= arrived.bytes;
        }
    }

    fn tell(&mut self, task_id: &str, what: impl Fn() -> Result<TaskMeta>) {
        for one in self.waiting.remove(task_id).unwrap_or_default() {
            // They may have gone.
            let _ = one.send(what());
        }
    }
}

fn is_last(metas: &HashMap<String, Arrived>, number: u64, task_id: &str) -> bool {
    metas.get(task_id).is_some_and(|arrived| arrived.number == number)
}

impl Watch {
    /// The next that is over; an error is one that waiting does not mend.
    pub(super) async fn next(&mut self) -> Result<TaskMeta> {
        let ended = || Err(Error::new(ErrorKind::Connection, "nobody listens for results any more"));
        self.arriving.recv().await.unwrap_or_else(ended)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.arriving.close();
        let mut held = self.inbox.held();
        for task_id in &self.task_ids {
            let Some(waiting) = held.waiting.get_mut(task_id) else { continue };
            waiting.retain(|one| !one.is_closed());
            if waiting.is_empty() {
                held.waiting.remove(task_id);
            }
        }
    }
}

fn is_over(meta: &Result<TaskMeta>) -> bool {
    meta.as_ref().map_or(true, |meta| meta.status.is_ready())
}

fn copy(meta: &Result<TaskMeta>) -> Result<TaskMeta> {
    meta.as_ref().cloned().map_err(again)
}

fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{State, Value};

    fn meta(task_id: &str, state: State) -> TaskMeta {
        TaskMeta::new(task_id, state, Value::Null)
    }

    impl Inbox {
        fn take_state(&self, task_id: &str, state: State, bytes: usize) {
            self.take(task_id, Ok(meta(task_id, state)), bytes);
        }
    }

    #[tokio::test]
    async fn who_waits_is_told_of_the_end_and_leaves_nothing_behind() {
        let inbox = Arc::<Inbox>::default();
        inbox.take_state("early", State::Success, 1);
        let mut watch = inbox.watch(vec!["early", "late", "bad", "never"]);
        assert_eq!(watch.next().await.unwrap().task_id, "early");
        inbox.take_state("late", State::Started, 1);
        inbox.take_state("other", State::Success, 1);
        inbox.take_state("late", State::Failure, 1);
        assert_eq!(watch.next().await.unwrap().status, State::Failure);
        let refused = |kind| Error::new(kind, "no");
        inbox.take("bad", Err(refused(ErrorKind::Refused)), 1);
        assert_eq!(watch.next().await.unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(inbox.meta("bad").unwrap_err().kind(), ErrorKind::Refused);
        inbox.refuse_all(&refused(ErrorKind::Authentication));
        assert_eq!(watch.next().await.unwrap_err().kind(), ErrorKind::Authentication);
        let another = inbox.watch(vec!["never"]);
        assert_eq!(inbox.held().waiting.len(), 1);
        drop((watch, another));
        assert!(inbox.held().waiting.is_empty());
    }

    #[test]
    fn a_success_stays_and_what_was_forgotten_is_gone() {
        let inbox = Inbox::default();
        for state in [State::Started, State::Success, State::Retry, State::Failure] {
            inbox.take_state("a", state, 1);
        }
        inbox.take("a", Err(Error::new(ErrorKind::Decode, "no")), 1);
        assert_eq!(inbox.meta("a").unwrap(), Some(meta("a", State::Success)));
        inbox.forget("a");
        inbox.forget("a");
        assert_eq!((inbox.meta("a").unwrap(), inbox.held().bytes), (None, 0));
    }

    #[test]
    fn the_oldest_go_first() {
        let inbox = Inbox::default();
        (0..=MOST).for_each(|number| inbox.take_state(&number.to_string(), State::Success, 1));
        assert_eq!((inbox.meta("0").unwrap(), inbox.held().metas.len()), (None, MOST));
        assert!(inbox.meta("1").unwrap().is_some());
        // What comes again and again neither grows nor drives others out.
        (0..3 * MOST).for_each(|_| inbox.take_state("again", State::Started, 1));
        assert!(inbox.held().order.len() <= 2 * MOST && inbox.meta("2").unwrap().is_some());
        inbox.take_state("large", State::Success, MOST_BYTES - 1);
        assert_eq!(inbox.held().metas.len(), 2);
    }
}
