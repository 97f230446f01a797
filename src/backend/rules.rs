//! [`overwrites`]: which state may take the place of which.

use crate::protocol::State;

/// Whether a result in state `incoming` may take the place of one in state `stored`.
///
/// SUCCESS stays for ever (celery/backends/base.py `BaseKeyValueStoreBackend._store_result`). The states that a run
/// begins with overwrite no READY one: they can arrive late, from a worker that was thought to be lost, and a client
/// would then wait again for a result that it could have had. The Redis script keeps the same rules in Lua.
pub(super) fn overwrites(stored: &State, incoming: &State) -> bool {
    match stored {
        State::Success => false,
        State::Failure | State::Revoked => !is_early(incoming),
        _ => true,
    }
}

/// Whether `state` only says that a task has not ended yet.
pub(super) fn is_early(state: &State) -> bool {
    matches!(state, State::Pending | State::Received | State::Started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_stays_and_late_beginnings_overwrite_nothing_ready() {
        let progress = || State::Custom("PROGRESS".into());
        let early = [State::Pending, State::Received, State::Started];
        let others = [State::Success, State::Failure, State::Revoked, State::Retry, progress()];
        let unready = [State::Pending, State::Received, State::Started, State::Retry, State::Rejected, progress()];
        for incoming in early.iter().chain(&others) {
            assert!(!overwrites(&State::Success, incoming), "SUCCESS by {incoming:?}");
            for stored in &unready {
                assert!(overwrites(stored, incoming), "{stored:?} by {incoming:?}");
            }
        }
        for stored in [State::Failure, State::Revoked] {
            early.iter().for_each(|incoming| assert!(!overwrites(&stored, incoming), "{stored:?} by {incoming:?}"));
            others.iter().for_each(|incoming| assert!(overwrites(&stored, incoming), "{stored:?} by {incoming:?}"));
        }
    }
}
