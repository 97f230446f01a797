//! [`publication`]: the control command that revokes tasks.

use super::control;
use crate::Result;
use crate::control::ControlCall;
use crate::protocol::{Map, Value};
use crate::transport::Publication;

/// What tells all workers to revoke tasks (celery/app/control.py `Control.revoke`); with a signal, to end those that run
/// as well.
pub(crate) fn publication(
    control_exchange: &str,
    task_ids: Vec<String>,
    signal: Option<&str>,
    clock: u64,
) -> Result<Publication> {
    let arguments = Map::from([
        ("task_id", Value::from(task_ids)),
        ("terminate", signal.is_some().into()),
        ("signal", signal.unwrap_or("SIGTERM").into()),
    ]);
    let call = ControlCall { method: "revoke".to_owned(), arguments, ..ControlCall::default() };
    control::publication(control_exchange, call, clock, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from `app.control.revoke(['a'])` of Celery 5.7.
    #[test]
    fn the_body_is_celerys() {
        let publication = publication("celery", vec!["a".to_owned()], None, 1).unwrap();
        let expected = r#"{"method": "revoke", "arguments": {"task_id": ["a"], "terminate": false, "signal": "SIGTERM"}, "destination": null, "pattern": null, "matcher": null}"#;
        assert_eq!(publication.message.body, expected.as_bytes());
        assert_eq!(publication.exchange, "celery.pidbox");
    }
}
