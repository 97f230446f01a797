//! [`Continuations`]: what follows when a task has ended: callbacks, the next step of a chain, errbacks, what fails with
//! it, and the bodies of chords.
//!
//! What is to be done is planned by `canvas`; here it is done, in Celery's order (celery/app/trace.py,
//! celery/backends/base.py `Backend.mark_as_failure`).

use std::pin::Pin;
use std::sync::Arc;

use tracing::{error, warn};

use super::errback;
use super::request::parent_of;
use super::results::Results;
use super::sender::Sender;
use crate::backend::{ChordClaim, ChordFailure, ChordOutcome, ChordPart, ChordProgress};
use crate::canvas::continuation::{BodyFailure, Errbacks, FailedMember, failed_members};
use crate::canvas::{Parent, Plan};
use crate::protocol::{Embed, Exception, MetaResult, ResultTuple, Signature, State, Value};
use crate::task::{Registry, Request};
use crate::{Error, Result};

/// Does what follows a task that has ended.
pub(crate) struct Continuations {
    pub(crate) sender: Arc<Sender>,
    pub(crate) results: Arc<Results>,
    /// Among them are the errbacks that are called here.
    pub(crate) tasks: Registry,
}

/// A task that has failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed<'a> {
    pub(crate) request: &'a Request,
    pub(crate) embed: &'a Embed,
    pub(crate) exception: &'a Exception,
    pub(crate) traceback: Option<&'a str>,
    /// Whether its failure is stored, and so that of what was to follow it.
    pub(crate) stores: bool,
    /// Whether its errbacks are called.
    pub(crate) calls_errbacks: bool,
}

/// The future of what can follow itself: a chord's body fails the chord that it is a member of, and so on.
type Done<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

impl Continuations {
    /// What a task's success leads to: its callbacks and the next step of its chain.
    pub(crate) fn after_success(&self, request: &Request, embed: &Embed, value: &Value) -> Result<Plan> {
        let parent = parent_of(request);
        self.sender.with_planner(Some(&parent), |planner| planner.on_success(embed.clone(), value))
    }

    /// What puts another signature in a task's place.
    pub(crate) fn replacing(&self, request: &Request, embed: &Embed, signature: Signature) -> Result<Plan> {
        let (parent, replaced) = (parent_of(request), super::sink::replaced(request, embed));
        self.sender.with_planner(Some(&parent), |planner| planner.replace(replaced, signature))
    }

    /// Fails what was to follow a failed task, tells their chords, and calls its errbacks.
    ///
    /// # Errors
    /// Those of a cold shutdown: what is left is done when the message comes back.
    pub(crate) fn after_failure<'a>(&'a self, failed: Failed<'a>) -> Done<'a> {
        Box::pin(async move {
            let parent = parent_of(failed.request);
            match failed_members(failed.embed.chain.clone()) {
                Ok(members) => {
                    self.fail_members(&parent, members, failed.exception, failed.traceback, failed.stores).await?;
                }
                Err(error) => log_unreadable(failed.request, "chain", &error),
            }
            if !failed.calls_errbacks || failed.embed.errbacks.is_none() {
                return Ok(());
            }
            let errbacks = self.sender.with_planner(Some(&parent), |planner| {
                let (root_id, errbacks) = (failed.request.root_id.as_deref(), failed.embed.errbacks.clone());
                planner.errbacks(&failed.request.id, root_id, errbacks, &mut |errback| self.is_inline(errback))
            });
            match errbacks {
                Ok(errbacks) => self.call(errbacks, failed.request, failed.exception, failed.traceback).await.map(drop),
                Err(error) => {
                    log_unreadable(failed.request, "link_error", &error);
                    Ok(())
                }
            }
        })
    }

    fn is_inline(&self, errback: &Signature) -> bool {
        errback::is_inline(errback, &self.tasks)
    }

    /// Calls errbacks here, and sends the others; returns the children that this makes.
    async fn call(
        &self,
        errbacks: Errbacks,
        request: &Request,
        exception: &Exception,
        traceback: Option<&str>,
    ) -> Result<Vec<ResultTuple>> {
        for errback in errbacks.inline {
            errback::call(errback, &self.tasks, &self.sender, &self.results, request, exception, traceback).await;
        }
        match self.results.cold.bound(self.sender.carry_out(errbacks.plan)).await {
            Err(error) if !error.can_pass() => {
                error!("Task {}[{}]: the errbacks cannot be sent: {error}", request.task, request.id);
                Ok(Vec::new())
            }
            sent => sent,
        }
    }

    /// Stores the failure of tasks that will never run, and tells their chords.
    async fn fail_members(
        &self,
        parent: &Parent,
        members: Vec<FailedMember>,
        exception: &Exception,
        traceback: Option<&str>,
        stores: bool,
    ) -> Result<()> {
        for member in members {
            let part = self.part_of(&member, exception).await?;
            let request = match (&member.id, stores) {
                (Some(id), true) => {
                    let (exception, traceback) = (exception.clone(), traceback.map(str::to_owned));
                    Some(self.results.metas.of_failed_member(id, &member, exception, traceback))
                }
                _ => None,
            };
            let progress = match self.results.store(request, part).await {
                // What cannot be stored of one must not keep back what is due to the others.
                Err(error) if !error.can_pass() => {
                    error!("the failure of {} cannot be stored: {error}", member.id.as_deref().unwrap_or("a chord"));
                    continue;
                }
                progress => progress?,
            };
            if let Some(body) = member.chord {
                self.after_part(parent, body, progress).await?;
            }
        }
        Ok(())
    }

    /// What a failed member of a chord reports, unless it has reported already, or the backend counts no members.
    async fn part_of(&self, member: &FailedMember, exception: &Exception) -> Result<Option<ChordPart>> {
        let (Some(_), Some(id), Some(group_id)) = (&member.chord, &member.id, &member.group) else { return Ok(None) };
        if self.sender.backend.native_chords().is_none() || self.has_failed(id).await? {
            return Ok(None);
        }
        Ok(Some(ChordPart {
            group_id: group_id.clone(),
            task_id: id.clone(),
            group_index: member.group_index,
            state: State::Failure,
            result: MetaResult::Exception(exception.clone()),
        }))
    }

    /// Whether a failure of this task is stored already. What nobody can read is none.
    async fn has_failed(&self, id: &str) -> Result<bool> {
        match self.results.cold.bound(self.sender.insist(|chords| chords.fetch(id))).await {
            Err(error) if !error.can_pass() => {
                warn!("The stored result of {id} is overwritten: {error}");
                Ok(false)
            }
            stored => Ok(stored?.is_some_and(|meta| meta.status.is_propagated())),
        }
    }

    /// Calls the body of a chord if the part that was told completes it.
    ///
    /// # Errors
    /// Those of a cold shutdown: the claim runs out, and the member that comes back claims anew.
    pub(crate) fn after_part<'a>(&'a self, parent: &'a Parent, body: Value, progress: ChordProgress) -> Done<'a> {
        Box::pin(async move {
            let ChordProgress::Complete(claim) = progress else { return Ok(()) };
            let done = self.results.cold.bound(self.complete(parent, body, &claim)).await;
            match done {
                Err(error) if !error.can_pass() => {
                    error!("Chord '{}' raised: {error}", claim.group_id);
                    Ok(())
                }
                done => done,
            }
        })
    }

    async fn complete(&self, parent: &Parent, body: Value, claim: &ChordClaim) -> Result<()> {
        let values = match self.gather(claim).await? {
            ChordOutcome::Results(values) => values,
            ChordOutcome::Failed(failure) => return self.fail_chord(parent, body, claim, &failure).await,
        };
        let planned = self.sender.with_planner(Some(parent), |planner| planner.chord_body(body.clone(), values));
        let lease = self.sender.publish_lease(claim);
        if !self.sender.insist(|chords| chords.extend_claim(claim, lease)).await? {
            warn!("Chord '{}': another worker has taken over its completion", claim.group_id);
            return Ok(());
        }
        let sent = match planned {
            Ok(plan) => self.sender.carry_out(plan).await.map(drop),
            Err(error) => Err(error),
        };
        match sent {
            Err(error) if !error.can_pass() => {
                return self.fail_chord(parent, body, claim, &callback_error(&error.to_string())).await;
            }
            sent => sent?,
        }
        if !self.sender.insist(|chords| chords.complete_chord(claim)).await? {
            warn!("Chord '{}': the claim ran out while its body was being sent", claim.group_id);
        }
        Ok(())
    }

    /// What the members came to; what cannot be read fails the chord, for nobody else will complete it.
    async fn gather(&self, claim: &ChordClaim) -> Result<ChordOutcome> {
        match self.sender.insist(|chords| chords.claimed(claim)).await {
            Err(error) if !error.can_pass() => Ok(ChordOutcome::Failed(join_error(&error.to_string()))),
            outcome => outcome,
        }
    }

    async fn fail_chord(&self, parent: &Parent, body: Value, claim: &ChordClaim, failure: &ChordFailure) -> Result<()> {
        error!("Chord '{}' raised: {}", claim.group_id, failure.exception());
        self.fail_body(parent, body, failure).await?;
        self.sender.insist(|chords| chords.fail_chord(&claim.group_id)).await
    }

    /// What a chord that cannot be completed does to its body (celery/backends/base.py `Backend.chord_error_from_stack`).
    ///
    /// # Errors
    /// Those of a cold shutdown.
    pub(crate) fn fail_body<'a>(&'a self, parent: &'a Parent, body: Value, failure: &'a ChordFailure) -> Done<'a> {
        Box::pin(async move {
            let planned = self.sender.with_planner(Some(parent), |planner| {
                planner.chord_failed(body, &mut |errback| self.is_inline(errback))
            });
            let planned = match planned {
                Ok(planned) => planned,
                Err(error) => {
                    error!("a chord's body cannot be failed: {error}");
                    return Ok(());
                }
            };
            let chord_error = failure.exception();
            let exception = match (&failure.cause, planned.is_group) {
                (Some(cause), true) => cause,
                _ => &chord_error,
            };
            for body in planned.bodies {
                self.fail_one(body, exception).await?;
            }
            if let Some(id) = planned.group_id {
                self.results
                    .store(Some(self.results.metas.of_failed_body(&id, exception.clone(), Vec::new())), None)
                    .await?;
            }
            self.sender.revoke(planned.revoke).await;
            self.fail_members(parent, planned.chain, &chord_error, None, true).await
        })
    }

    async fn fail_one(&self, body: BodyFailure, exception: &Exception) -> Result<()> {
        let request = Request { id: body.id.clone(), task: "unknown".to_owned(), ..Request::default() };
        let children = self.call(body.errbacks, &request, exception, None).await?;
        let store = self.results.metas.of_failed_body(&body.id, exception.clone(), children);
        self.results.store(Some(store), None).await.map(drop)
    }
}

/// Results that cannot be read.
fn join_error(reason: &str) -> ChordFailure {
    let raised = Exception::with_args("DecodeError", "kombu.exceptions", [reason]);
    ChordFailure { message: format!("Join error: {raised}"), cause: None }
}

/// A body that cannot be sent.
pub(super) fn callback_error(reason: &str) -> ChordFailure {
    let cause = super::conclude::encode_error(reason);
    ChordFailure { message: format!("Callback error: {cause}"), cause: Some(cause) }
}

/// What follows a failed task is not what it should be; its failure stands all the same.
fn log_unreadable(request: &Request, what: &str, error: &Error) {
    error!("Task {}[{}]: its {what} cannot be read: {error}", request.task, request.id);
}
