//! [`Table`]: the maps of `task_routes`, ready to be asked.

use std::collections::HashMap;

use regex::Regex;

use super::glob;
use crate::config::{RouteDefinition, RouteMap};
use crate::protocol::{Map, Value, to_value};
use crate::{Error, ErrorKind, Result};

/// All of `task_routes` (celery/app/routes.py `prepare`).
#[derive(Debug, Clone, Default)]
pub(super) struct Table(Vec<Routes>);

/// One map: names first, then patterns in their order (celery/app/routes.py `MapRoute`).
#[derive(Debug, Clone, Default)]
struct Routes {
    names: HashMap<String, Map, ahash::RandomState>,
    patterns: Vec<(Regex, Map)>,
}

impl Table {
    /// # Errors
    /// `Configuration`: a regular expression that is none.
    pub(super) fn new(maps: &[RouteMap]) -> Result<Self> {
        maps.iter().map(|map| Routes::new(map)).collect::<Result<_>>().map(Table)
    }

    /// The options of the first map that knows the task; `None` when none does, or the first has nothing to say.
    pub(super) fn options(&self, task: &str) -> Option<&Map> {
        self.0.iter().find_map(|routes| routes.options(task)).filter(|options| !options.is_empty())
    }
}

impl Routes {
    fn new(map: &[RouteDefinition]) -> Result<Self> {
        let mut routes = Routes::default();
        for route in map {
            routes.add(route)?;
        }
        Ok(routes)
    }

    fn add(&mut self, route: &RouteDefinition) -> Result<()> {
        let options = to_value(&route.options)?.into_map().unwrap_or_default();
        let expression = match route.expression() {
            Some(expression) => format!(r"\A(?:{expression})"),
            None if route.pattern.contains('*') => glob::translate(&route.pattern),
            None => {
                self.names.insert(route.pattern.clone(), options);
                return Ok(());
            }
        };
        let expression = Regex::new(&expression).map_err(|error| {
            let message = format!("task_routes: '{}' is no regular expression", route.pattern);
            Error::new(ErrorKind::Configuration, message).with_source(error)
        })?;
        self.patterns.push((expression, options));
        Ok(())
    }

    fn options(&self, task: &str) -> Option<&Map> {
        let pattern = || self.patterns.iter().find(|(expression, _)| expression.is_match(task));
        self.names.get(task).or_else(|| pattern().map(|(_, options)| options))
    }
}

/// Puts those of `given` that are not null over `own` (celery/utils/collections.py `lpmerge`).
pub(super) fn merge(own: &mut Map, given: Map) {
    for (name, value) in given {
        if !matches!(value, Value::Null) {
            own.insert(name, value);
        }
    }
}
