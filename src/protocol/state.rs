//! [`State`]: a task's state.

use std::fmt;

/// A task's state (celery/states.py).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// Unknown, or not yet run. Never stored.
    Pending,
    /// Known to a worker. Events only.
    Received,
    /// Begun; stored only with `track_started`.
    Started,
    /// Done.
    Success,
    /// Raised.
    Failure,
    /// Revoked, expired or terminated.
    Revoked,
    /// Rejected. Events only.
    Rejected,
    /// To be run again.
    Retry,
    /// Ignored. Never stored.
    Ignored,
    /// A state of the user's own, stored by `update_state`.
    Custom(String),
}

impl State {
    /// Celery's own states with their names.
    const NAMES: [(&'static str, State); 9] = [
        ("PENDING", State::Pending),
        ("RECEIVED", State::Received),
        ("STARTED", State::Started),
        ("SUCCESS", State::Success),
        ("FAILURE", State::Failure),
        ("REVOKED", State::Revoked),
        ("REJECTED", State::Rejected),
        ("RETRY", State::Retry),
        ("IGNORED", State::Ignored),
    ];

    /// The state's name on the wire: `SUCCESS`.
    pub fn as_str(&self) -> &str {
        match self {
            State::Custom(name) => name,
            known => State::NAMES.iter().find(|(_, state)| state == known).map_or("", |(name, _)| name),
        }
    }

    /// Whether the task is over (celery.states.READY_STATES).
    pub fn is_ready(&self) -> bool {
        matches!(self, State::Success | State::Failure | State::Revoked)
    }

    /// Whether the stored result is an exception (celery.states.EXCEPTION_STATES).
    pub fn is_exception(&self) -> bool {
        matches!(self, State::Retry | State::Failure | State::Revoked)
    }

    /// Whether `AsyncResult.get()` raises (celery.states.PROPAGATE_STATES).
    pub fn is_propagated(&self) -> bool {
        matches!(self, State::Failure | State::Revoked)
    }

    /// The rank of the state, 0 the highest (celery/states.py `precedence`); a custom state stands below FAILURE.
    pub fn precedence(&self) -> u8 {
        match self {
            State::Success => 0,
            State::Failure => 1,
            State::Custom(_) | State::Ignored => 2,
            State::Revoked => 3,
            State::Started => 4,
            State::Received => 5,
            State::Rejected => 6,
            State::Retry => 7,
            State::Pending => 8,
        }
    }
}

impl From<&str> for State {
    fn from(name: &str) -> Self {
        let known = State::NAMES.into_iter().find(|(known, _)| *known == name);
        known.map_or_else(|| State::Custom(name.to_owned()), |(_, state)| state)
    }
}

impl From<String> for State {
    fn from(name: String) -> Self {
        State::from(name.as_str())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_pass_both_ways() {
        for (name, state) in State::NAMES {
            assert_eq!(State::from(name), state);
            assert_eq!(state.to_string(), name);
        }
        assert_eq!(State::from("PROGRESS"), State::Custom("PROGRESS".into()));
        assert_eq!(State::from("PROGRESS").as_str(), "PROGRESS");
    }

    #[test]
    fn order_is_celerys() {
        let descending =
            ["SUCCESS", "FAILURE", "PROGRESS", "REVOKED", "STARTED", "RECEIVED", "REJECTED", "RETRY", "PENDING"];
        let ranks: Vec<u8> = descending.iter().map(|name| State::from(*name).precedence()).collect();
        assert_eq!(ranks, (0..9).collect::<Vec<u8>>());
    }
}
