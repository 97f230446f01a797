//! The data that continuations take and give.

use crate::canvas::Plan;
use crate::protocol::{Embed, Signature, Value};

/// What `replace` and `add_to_chord` need to know of the running task's request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Replaced {
    /// Its id, which the replacement inherits.
    pub id: String,
    /// Its root's id.
    pub root_id: Option<String>,
    /// Its group's id.
    pub group: Option<String>,
    /// Its position in the group.
    pub group_index: Option<i64>,
    /// How often it was replaced already.
    pub replaced_task_nesting: i64,
    /// Its callbacks, errbacks, the rest of its chain and its chord's body.
    pub embed: Embed,
}

/// A task that is added to the chord of the one that runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Added {
    /// The chord's group, of which the backend is to expect one part more.
    pub group_id: String,
    /// What was added, with its id, for those who send it later.
    pub signature: Signature,
    /// Sends it.
    pub plan: Plan,
}

/// What is to be done with the errbacks of a failed task (celery/backends/base.py `Backend._call_task_errbacks`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Errbacks {
    /// To be called at once, in this worker, with the request, the exception and the traceback, before `plan` is done.
    pub inline: Vec<Signature>,
    /// Sends the others as one group with the failed task's id.
    pub plan: Plan,
}

/// A task that will never run because one before it failed (celery/backends/base.py `Backend._fail_chain`).
#[derive(Debug, Clone, PartialEq)]
pub struct FailedMember {
    /// FAILURE is stored under this id, if there is one.
    pub id: Option<String>,
    /// As it was to be called: its name and arguments go into an extended result.
    pub signature: Signature,
    /// The group's id, which goes into the result.
    pub group: Option<String>,
    /// The position in the group.
    pub group_index: Option<i64>,
    /// The task before it, where it was frozen; goes into the result.
    pub parent_id: Option<String>,
    /// The body of the chord that it was a member of: its part is to be reported as failed, unless its stored state says
    /// FAILURE or REVOKED already (look before storing).
    pub chord: Option<Value>,
}

/// What a chord whose header or body could not be run does to its body
/// (celery/backends/base.py `Backend.chord_error_from_stack`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChordFailure {
    /// The body, or the members of a group body, in order: first the errbacks, then the FAILURE under its id.
    pub bodies: Vec<BodyFailure>,
    /// Whether the body is a group: then the FAILURE stored and the exception that errbacks get is the *cause* of the
    /// `ChordError`, if it has one, and not the `ChordError`.
    pub is_group: bool,
    /// The group body's own id: FAILURE is stored under it, too.
    pub group_id: Option<String>,
    /// Ids to be revoked by broadcast when all that is stored: those of a group body's members.
    pub revoke: Vec<String>,
    /// What was to follow the body; fails with the `ChordError`.
    pub chain: Vec<FailedMember>,
}

/// One body that fails.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BodyFailure {
    /// FAILURE is stored under this id.
    pub id: String,
    /// What is to be called before.
    pub errbacks: Errbacks,
}
