//! [`Declaration`]: what `#[celeriac::task]` knows of a task.

use crate::task::TaskOptions;

/// What a declaration says of its task: made once, when the task is first asked.
#[derive(Debug)]
pub struct Declaration {
    /// The registered name.
    pub name: String,
    /// The options.
    pub options: TaskOptions,
}

impl Declaration {
    /// A declaration with a name of its own.
    pub fn named(name: &str, options: TaskOptions) -> Self {
        Declaration { name: name.to_owned(), options }
    }
}
