//! Tasks that nobody here has registered, where the setting `unknown_tasks` is `hand-back`: they go back to their queue
//! for a worker that knows them.
//!
//! Each is first held for a while, which grows with every time, so that workers that all lack the task do not pass it
//! round without rest. While it is held it takes up its place in the prefetch window: a queue full of such messages is
//! neither emptied by who cannot run them nor passed round faster than a window for each delay. How often it was handed back
//! stands in its header [`HEADER`], together with the number of its retries: a task that a peer has run and sent again
//! starts anew. After [`LIMIT`] times, about a quarter of an hour, it is what it is by default: FAILURE `NotRegistered`,
//! and a dead letter.

/// The header that counts: `{"count": 3, "retries": 0}`.
pub(crate) const HEADER: &str = "x-celeriac-handed-back";
