//! [`give`]: what a worker says once, at its start, of settings that are no mistake and that may surprise.

use crate::config::{Config, QueueDefinition};

/// Where results are that are not kept.
const DISABLED: &str = "disabled://";

/// Says it, in the log. `results`: where they are kept, for people to read.
pub(super) fn give(config: &Config, queues: &[QueueDefinition], results: &str) {
    if sends_elsewhere(config, queues) {
        tracing::warn!(
            "there are no task_routes: what follows the tasks of this worker (the next step of a chain, a callback) and \
             names no queue itself is sent to the queue {}, which this worker does not consume",
            config.task_default_queue
        );
    }
    if config.read_url().trim_start().starts_with("filesystem:") {
        tracing::warn!(
            "the broker filesystem:// is for development and for tests: a power cut may cost messages, and each look \
             through a long queue takes its time; in production take redis:// or amqp://"
        );
    }
    if names_no_broker(config) {
        tracing::warn!(
            "there is no broker_url: Celery's own default is taken, a RabbitMQ on this machine; without any server the \
             broker can be broker_url = \"filesystem://\", with the folders that `celeriac quickstart` shows"
        );
    }
    // A host may have a backend of its own.
    if config.result_backend.is_none() && results == DISABLED {
        tracing::info!("results are not kept: no result_backend is set");
    }
}

fn names_no_broker(config: &Config) -> bool {
    config.broker_url.is_none() && config.broker_read_url.is_none()
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
