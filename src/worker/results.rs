//! [`Results`]: stores what tasks come to, and counts them as members of their chords.

use std::future::{poll_fn, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::TryFutureExt;
use futures_util::future::Either;
use tokio::task::spawn_blocking;

use super::cold::Cold;
use super::conclude::encode_error;
use super::malformed::Malformed;
use super::metas::Metas;
use super::report::Report;
use super::request::Work;
use crate::app::Keeper;
use crate::backend::{ChordPart, ChordProgress, ResultWriter, StoreRequest};
use crate::protocol::{Exception, MetaResult, ResultTuple, State, Value, repr};
use crate::task::Request;
use crate::{Error, ErrorKind, Result};

/// Stores what tasks come to.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) metas: Metas,
    pub(crate) writer: ResultWriter,
    pub(crate) cold: Cold,
    /// Stores in a backend that only the program has.
    pub(crate) keeper: Option<Arc<dyn Keeper>>,
}

/// What a task came to, to be stored and told to its chord.
#[derive(Debug)]
pub(crate) struct Finding {
    /// `None`: nothing is stored.
    pub(crate) store: Option<State>,
    /// What the chord is told that the task is a member of: SUCCESS, FAILURE, REVOKED or nothing.
    pub(crate) part: Option<State>,
    pub(crate) result: MetaResult,
    pub(crate) traceback: Option<String>,
    /// What the task has sent.
    pub(crate) children: Vec<ResultTuple>,
}

/// What keeping a finding came to.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) progress: ChordProgress,
    /// The finding could not be encoded, and this failure was kept in its place.
    pub(crate) unencodable: Option<Exception>,
}

impl Finding {
    /// What can be stored when what was raised cannot be encoded: its arguments as texts
    /// (celery/utils/serialization.py `ensure_serializable`).
    fn plainer(&self) -> Option<Finding> {
        let MetaResult::Exception(exception) = &self.result else { return None };
        let exc_message = exception.exc_message.iter().map(|argument| match argument {
            Value::String(text) => Value::from(text.as_str()),
            other => Value::from(repr::saferepr(other, repr::Limits::default())),
        });
        let exception = Exception { exc_message: exc_message.collect(), ..exception.clone() };
        Some(Finding {
            store: self.store.clone(),
            part: self.part.clone(),
            result: MetaResult::Exception(exception),
            traceback: self.traceback.clone(),
            children: self.children.clone(),
        })
    }
}

impl Results {
    /// Stores a failure with the program's keeper; `None`: there is none, or nothing to tell of.
    pub(crate) async fn kept_failure(&self, request: &Request, malformed: &Malformed) -> Option<Result<()>> {
        let (keeper, message) = (self.keeper.clone()?, malformed.message.as_ref().ok()?.clone());
        let (id, exception) = (request.id.clone(), malformed.exception.clone());
        // It panics only if storing does, which has said so.
        spawn_blocking(move || keeper.fail(&id, &message, &exception)).await.ok()
    }

    /// Stores STARTED. Not waited for: the writer keeps the order of what it stores for one task.
    pub(crate) fn started(&self, work: &Work) {
        drop(self.writer.store(self.metas.started(work)));
    }

    /// Stores what a run came to and tells its chord; a value that cannot be encoded is stored as the failure that it is.
    /// `say` is called once it is known that what was found is what will be stored.
    pub(crate) async fn keep(&self, work: &Work, finding: Finding, say: impl FnOnce()) -> Result<Kept> {
        let (store, part, plainer) = (finding.store.clone(), finding.part.clone(), finding.plainer());
        let mut writing = pin!(self.write(work, finding));
        // What cannot be encoded is found out in the first step, before anything is waited for.
        let begun = poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await;
        let unencodable = matches!(&begun, Poll::Ready(Err(error)) if error.kind() == ErrorKind::Encode);
        if !unencodable || plainer.is_some() {
            say();
        }
        let mut written = match begun {
            Poll::Ready(written) => written,
            Poll::Pending => writing.await,
        };
        if unencodable && let Some(plainer) = plainer {
            written = Box::pin(self.write(work, plainer)).await;
        }
        let kept = match written {
            Err(error) if error.kind() == ErrorKind::Encode => {
                Box::pin(self.keep_unencodable(work, &error, store, part)).await
            }
            stored => stored.map(|progress| Kept { progress, unencodable: None }),
        };
        kept.inspect_err(|error| {
            tracing::error!("Task {}[{}]: the result cannot be stored: {error}", work.name, work.request.id);
        })
    }

    async fn keep_unencodable(
        &self,
        work: &Work,
        error: &Error,
        store: Option<State>,
        part: Option<State>,
    ) -> Result<Kept> {
        let exception = encode_error(&error.to_string());
        let report = Report::Error(format!("raised unexpected: {exception}"), None);
        let result = MetaResult::Exception(exception.clone());
        report.log(work, &result);
        // A retry has been published: whatever can be told of it, the task is not over.
        let is_over = store != Some(State::Retry);
        let store = store.map(|state| if is_over { State::Failure } else { state });
        let failure =
            Finding { store, part: part.map(|_| State::Failure), result, traceback: None, children: Vec::new() };
        let progress = self.write(work, failure).await?;
        Ok(Kept { progress, unencodable: is_over.then_some(exception) })
    }

    fn write(&self, work: &Work, finding: Finding) -> impl Future<Output = Result<ChordProgress>> + use<'_> {
        let Finding { store, part, result, traceback, children } = finding;
        let part = part.and_then(|state| part_of(work, state, &result));
        let request = store.map(|state| self.metas.of_work(work, state, result, traceback, children));
        self.store(request, part)
    }

    /// Stores a result, if there is one, and tells a chord, if there is one.
    ///
    /// It is encoded and on its way when this returns: what is waited for, by each task that has ended, is small.
    pub(crate) fn store(
        &self,
        request: Option<StoreRequest>,
        part: Option<ChordPart>,
    ) -> impl Future<Output = Result<ChordProgress>> + use<'_> {
        match (request, part) {
            (None, None) => Either::Left(ready(Ok(ChordProgress::Waiting))),
            (Some(request), None) => {
                let storing = self.cold.bound(self.writer.store(request));
                Either::Right(Either::Left(storing.map_ok(|()| ChordProgress::Waiting)))
            }
            (request, Some(part)) => {
                let storing = self.writer.store_with_part(request, &part);
                Either::Right(Either::Right(Box::pin(self.cold.bound(storing))))
            }
        }
    }
}

/// What a member of a chord reports.
fn part_of(work: &Work, state: State, result: &MetaResult) -> Option<ChordPart> {
    if !work.is_chord_member() {
        return None;
    }
    part_of_request(&work.request, state, result)
}

/// What the member of a chord reports whose request this is.
pub(crate) fn part_of_request(request: &Request, state: State, result: &MetaResult) -> Option<ChordPart> {
    Some(ChordPart {
        group_id: request.group.clone()?,
        task_id: request.id.clone(),
        group_index: request.group_index,
        state,
        result: result.clone(),
    })
}
