//! What a plan depends on beside the signature: [`Rules`], the [`Parent`], [`Ids`] and what is [`Given`].

use crate::protocol::{Map, Value};

/// Where new ids come from: Celery's `uuid()`. Any closure that returns a text is one.
pub trait Ids {
    /// An id that nobody has.
    fn next_id(&mut self) -> String;
}

impl<F: FnMut() -> String> Ids for F {
    fn next_id(&mut self) -> String {
        self()
    }
}

/// Settings and facts that hold for all that one process sends.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// Where results for this process arrive with `rpc://` (celery/app/base.py `Celery.thread_oid`); frozen signatures
    /// carry it.
    pub reply_to: String,
    /// `task_inherit_parent_priority`.
    pub inherit_parent_priority: bool,
    /// `task_allow_error_cb_on_chord_header`.
    pub allow_error_cb_on_chord_header: bool,
    /// How the result backend does chords.
    pub chords: Chords,
}

/// How a result backend does chords.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Chords {
    /// It counts the header's members itself, as Redis does: [`Step::StartChord`](super::Step::StartChord) and
    /// [`Step::SaveGroup`](super::Step::SaveGroup) tell it what to count.
    #[default]
    Native,
    /// It counts them too, and has to know the whole header before any of it is sent, as django-celery-results does
    /// (django_celery_results/backends/database.py `DatabaseBackend.apply_chord`): one
    /// [`Step::SaveGroup`](super::Step::SaveGroup) tells it.
    Announced,
    /// A task `celery.chord_unlock` polls for the header's results (celery/backends/base.py `fallback_chord_unlock`).
    Unlock,
    /// It has no chords; the text says why (celery/backends/base.py `ensure_chords_allowed`).
    Refused(String),
}

/// The task in whose run something is sent (celery/app/base.py `Celery.current_worker_task`).
///
/// Celery hands on neither its stamps nor its headers: stamps travel in the signatures that carry them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parent {
    /// Its id: the `parent_id` of what it sends.
    pub id: String,
    /// Its root's id; its own if there is none.
    pub root_id: Option<String>,
    /// The priority that its message had, for `task_inherit_parent_priority`.
    pub priority: Option<i64>,
}

/// What a signature is called with: the arguments of Celery's `apply_async`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Given {
    /// Arguments that come before the signature's own.
    pub args: Vec<Value>,
    /// Keyword arguments that replace the signature's own.
    pub kwargs: Map,
    /// Options that replace the signature's own.
    pub options: Map,
}

impl Given {
    /// One argument, as a callback is called with a result.
    pub fn argument(value: impl Into<Value>) -> Self {
        Given { args: vec![value.into()], ..Given::default() }
    }

    /// Only options.
    pub fn options(options: Map) -> Self {
        Given { options, ..Given::default() }
    }
}

/// An id as text, whatever kind of value a producer took for it.
pub(super) fn as_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Int(number) => Some(number.to_string()),
        Value::Uuid(uuid) => Some(uuid.hyphenated().to_string()),
        _ => None,
    }
}
