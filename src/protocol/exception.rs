//! [`Exception`]: a Python exception as results carry it.

use super::Value;

/// A Python exception by name: what `AsyncResult.get()` raises (celery/backends/base.py `Backend.prepare_exception`,
/// `exception_to_python`).
///
/// The client looks the class up among the modules that it has imported; where there is none it makes a class of that
/// name under `celery.exceptions`.
#[derive(Debug, Clone, PartialEq)]
pub struct Exception {
    /// The class's qualified name: `ValueError`.
    pub exc_type: String,
    /// The module that holds it: `builtins`.
    pub exc_module: Option<String>,
    /// The exception's `args`.
    pub exc_message: Vec<Value>,
}
