//! [`Registry`]: the tasks that a worker knows.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Task;
use crate::{Error, ErrorKind, Result};

/// The tasks that a worker knows, by name (celery/app/registry.py `TaskRegistry`).
#[derive(Clone, Default)]
pub struct Registry {
    tasks: HashMap<String, Arc<dyn Task>, ahash::RandomState>,
}

impl Registry {
    /// Adds a task.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] when a task of that name is there already, or the name is empty.
    pub fn register(&mut self, task: impl Task) -> Result<()> {
        self.register_shared(Arc::new(task))
    }

    /// [`Registry::register`] for a task that is shared already.
    pub fn register_shared(&mut self, task: Arc<dyn Task>) -> Result<()> {
        let name = task.name().to_owned();
        if name.is_empty() {
            return Err(Error::new(ErrorKind::Configuration, "register a task: its name is empty"));
        }
        if self.tasks.contains_key(&name) {
            return Err(Error::new(ErrorKind::Configuration, format!("register task '{name}': the name is taken")));
        }
        self.tasks.insert(name, task);
        Ok(())
    }

    /// The task registered under `name`.
    pub fn task(&self, name: &str) -> Option<&Arc<dyn Task>> {
        self.tasks.get(name)
    }

    /// The names, sorted: as the banner and `inspect registered` list them.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tasks.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Arguments, Outcome, Run, TaskContext, TaskOptions};

    struct Named(&'static str, TaskOptions);

    impl Task for Named {
        fn name(&self) -> &str {
            self.0
        }

        fn options(&self) -> &TaskOptions {
            &self.1
        }

        fn run(&self, _: TaskContext, _: Arguments) -> Run {
            Run::from_function(|| Outcome::Ignore)
        }
    }

    fn named(name: &'static str) -> Named {
        Named(name, TaskOptions::default())
    }

    #[test]
    fn lists_names_in_order() {
        let mut registry = Registry::default();
        for name in ["b.two", "a.one", "c"] {
            registry.register(named(name)).unwrap();
        }
        assert_eq!(registry.names(), ["a.one", "b.two", "c"]);
        assert!(registry.task("b.two").is_some());
        assert!(registry.task("b.Two").is_none());
    }

    #[test]
    fn refuses_a_name_that_is_taken_or_empty() {
        let mut registry = Registry::default();
        registry.register(named("a.one")).unwrap();
        let taken = registry.register(named("a.one")).unwrap_err();
        assert_eq!(taken.to_string(), "register task 'a.one': the name is taken");
        assert_eq!(registry.register(named("")).unwrap_err().kind(), ErrorKind::Configuration);
        assert_eq!(registry.len(), 1);
    }
}
