//! [`Declaration`]: what `#[celeriac::task]` knows of a task.

use super::Signature;
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

    /// A declaration that is named after its place, as Celery names tasks (celery/utils/imports.py `gen_task_name`):
    /// the function `add` in the module `shop::tasks` is `shop.tasks.add`.
    pub fn in_module(module: &str, signature: &Signature, options: TaskOptions) -> Self {
        Declaration { name: format!("{}.{}", module.replace("::", "."), signature.function), options }
    }
}
