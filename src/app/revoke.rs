//! [`Revocation`]: the control command that revokes tasks.

use super::control;
use crate::Result;
use crate::control::ControlCall;
use crate::protocol::{Map, Value};
use crate::transport::Publication;

/// What tells all workers not to run tasks and, perhaps, to end those that run.
pub(crate) struct Revocation {
    task_id: Value,
    terminate: bool,
    signal: Value,
}

impl Revocation {
    /// celery/app/control.py `Control.revoke`: a signal is always named.
    pub(crate) fn of_tasks(task_ids: Vec<String>, signal: Option<&str>) -> Self {
        Revocation { task_id: task_ids.into(), terminate: signal.is_some(), signal: signal.unwrap_or("SIGTERM").into() }
    }

    /// celery/result.py `AsyncResult.revoke`, and `ResultSet.revoke`, which has a list.
    pub(crate) fn of_result(task_id: Value, signal: Option<&str>) -> Self {
        Revocation { task_id, terminate: signal.is_some(), signal: signal.map_or(Value::Null, Value::from) }
    }

    pub(crate) fn into_publication(self, control_exchange: &str, clock: u64) -> Result<Publication> {
        let Revocation { task_id, terminate, signal } = self;
        let arguments = Map::from([("task_id", task_id), ("terminate", terminate.into()), ("signal", signal)]);
        let call = ControlCall { method: "revoke".to_owned(), arguments, ..ControlCall::default() };
        control::publication(control_exchange, call, clock, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(revocation: Revocation, expected: &str) {
        let publication = revocation.into_publication("celery", 1).unwrap();
        let body = format!(
            r#"{{"method": "revoke", "arguments": {{{expected}}}, "destination": null, "pattern": null, "matcher": null}}"#
        );
        assert_eq!(publication.message.body, body.as_bytes());
        assert_eq!(publication.exchange, "celery.pidbox");
    }

    /// Recorded from Celery 5.7: `app.control.revoke(['a'])`, `AsyncResult('a').revoke()`, the same with `terminate=True,
    /// signal='SIGINT'`, and `ResultSet([AsyncResult('a')]).revoke()`.
    #[test]
    fn the_bodies_are_celerys() {
        let (id, ids) = (|| Value::from("a"), || vec!["a".to_owned()]);
        check(Revocation::of_tasks(ids(), None), r#""task_id": ["a"], "terminate": false, "signal": "SIGTERM""#);
        check(Revocation::of_result(id(), None), r#""task_id": "a", "terminate": false, "signal": null"#);
        check(Revocation::of_result(id(), Some("SIGINT")), r#""task_id": "a", "terminate": true, "signal": "SIGINT""#);
        check(Revocation::of_result(ids().into(), None), r#""task_id": ["a"], "terminate": false, "signal": null"#);
    }
}
