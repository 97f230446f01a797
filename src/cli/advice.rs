//! [`give`]: what a worker says once, at its start, of settings that are no mistake and that may surprise.

use crate::config::{Config, QueueDefinition};

/// Says it, in the log.
pub(super) fn give(config: &Config, queues: &[QueueDefinition]) {
    if sends_elsewhere(config, queues) {
        tracing::warn!(
            "there are no task_routes: what follows the tasks of this worker (the next step of a chain, a callback) and \
             names no queue itself is sent to the queue {}, which this worker does not consume",
            config.task_default_queue
        );
    }
    if config.read_url().trim_start().starts_with("filesystem:") {
        tracing::warn!("the broker is filesystem://, which is meant for development and tests, not for production");
    }
    if config.result_backend.is_none() {
        tracing::info!("results are not kept: no result_backend is set");
    }
}

/// Whether all that its tasks send goes to a queue that is not its own (celery/app/routes.py `Router.route`).
fn sends_elsewhere(config: &Config, queues: &[QueueDefinition]) -> bool {
    config.task_routes.is_empty() && queues.iter().all(|queue| queue.name != config.task_default_queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_that_neither_routes_nor_consumes_the_default_queue_sends_elsewhere() {
        let check = |toml: &str, queues: &[&str], expected: bool| {
            let mut config = Config::default();
            config.merge_toml(toml, "test.toml").unwrap();
            let selected: Vec<_> = queues.iter().map(|name| (*name).to_owned()).collect();
            let queues = config.consume_from(&selected, &[]).unwrap();
            assert_eq!(sends_elsewhere(&config, &queues), expected, "{toml} {selected:?}");
        };
        check("", &["rust"], true);
        check("", &[], false);
        check("", &["rust", "celery"], false);
        check("task_default_queue = 'rust'", &["rust"], false);
        check("task_routes = { 'rust.*' = 'rust' }", &["rust"], false);
        check("task_queues = ['rust']", &[], true);
    }
}
