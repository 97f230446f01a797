//! What fails with a task: the steps that come after it (celery/backends/base.py `Backend._fail_chain`).

use std::collections::VecDeque;

use super::FailedMember;
use crate::Result;
use crate::canvas::node::listed;
use crate::canvas::rules::as_text;
use crate::protocol::{Kind, Map, Signature, Value};

/// The tasks of `chain`, the option or the embed of a task that failed, and the bodies of the chords among them: the last
/// step first, bodies behind all steps.
///
/// # Errors
/// [`ErrorKind::Decode`](crate::ErrorKind::Decode) for a step that is no signature.
pub fn failed_members(chain: Option<Value>) -> Result<Vec<FailedMember>> {
    let mut pending: VecDeque<Value> = listed(chain).into();
    let mut members = Vec::with_capacity(pending.len());
    while let Some(step) = pending.pop_front() {
        let mut signature = Signature::try_from(step)?;
        if signature.kind() == Kind::Chord
            && let Some(body) = signature.kwargs.remove("body").filter(|body| !body.is_null())
        {
            pending.push_back(body);
        }
        members.push(member(signature));
    }
    Ok(members)
}

fn member(mut signature: Signature) -> FailedMember {
    let text = |options: &Map, name: &str| options.get(name).cloned().and_then(as_text);
    let chord = signature.options.remove("chord").filter(|chord| !chord.is_null());
    let options = &signature.options;
    FailedMember {
        id: text(options, "task_id"),
        group: text(options, "group_id"),
        group_index: options.get("group_index").and_then(Value::as_i64),
        parent_id: text(options, "parent_id"),
        chord,
        signature,
    }
}
