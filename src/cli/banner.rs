//! [`Banner`]: what a worker shows of its configuration when it starts (celery/apps/worker.py `BANNER`).

use std::fmt;

use crate::config::QueueDefinition;

/// What the banner says.
#[derive(Debug)]
pub(super) struct Banner<'a> {
    pub(super) node: &'a str,
    pub(super) version: &'a str,
    /// The system and the local time.
    pub(super) platform: String,
    pub(super) app: &'a str,
    /// Without passwords.
    pub(super) transport: String,
    /// Without passwords.
    pub(super) results: String,
    pub(super) concurrency: String,
    pub(super) task_events: bool,
    pub(super) queues: &'a [QueueDefinition],
    /// The names of the tasks; `None` where the log level hides them.
    pub(super) tasks: Option<Vec<&'a str>>,
    pub(super) colored: bool,
}

/// A celery root; each line is as wide as the others.
const ART: [&str; 12] = [
    " ----- \\|/ ----",
    "------ \\|/ ----",
    "---- ******* --",
    "--- ********* -",
    "-- *********** ",
    "-- *********** ",
    "-- *********** ",
    "--- ********* -",
    "---- ******* --",
    "------ *** ----",
    "------- * -----",
    " --------------",
];

impl Banner<'_> {
    fn lines(&self) -> Vec<String> {
        // celery/apps/worker.py `Worker.startup_info`.
        let events = if self.task_events { "ON" } else { "OFF (enable -E to monitor tasks in this worker)" };
        let mut lines = vec![
            format!("{} v{} (celeriac)", self.node, self.version),
            String::new(),
            self.platform.clone(),
            String::new(),
            "[config]".to_owned(),
            format!(".> app:         {}", self.app),
            format!(".> transport:   {}", self.transport),
            format!(".> results:     {}", self.results),
            format!(".> concurrency: {}", self.concurrency),
            format!(".> task events: {events}"),
            String::new(),
            "[queues]".to_owned(),
        ];
        let mut queues: Vec<_> = self.queues.iter().collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        lines.extend(queues.into_iter().map(queue_line));
        lines
    }
}

/// celery/app/amqp.py `QUEUE_FORMAT`.
fn queue_line(queue: &QueueDefinition) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!(
        ".> {:<16} exchange={}({}) key={}",
        queue.name,
        text(&queue.exchange),
        text(&queue.exchange_type),
        text(&queue.routing_key)
    )
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (color, reset) = if self.colored { ("\x1b[1;36m", "\x1b[0m") } else { ("", "") };
        writeln!(f, "{color} ")?;
        for (index, line) in self.lines().iter().enumerate() {
            let art = ART.get(index).copied().unwrap_or_default();
            writeln!(f, "{}", format!("{art:<15} {line}").trim_end())?;
        }
        f.write_str(reset)?;
        if let Some(tasks) = &self.tasks {
            f.write_str("\n[tasks]\n")?;
            tasks.iter().try_for_each(|task| writeln!(f, "  . {task}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_whole_banner() {
        let queues = Config::default().consume_from(&["hipri".into(), "celery".into()], &[]).unwrap();
        let banner = Banner {
            node: "celery@host",
            version: "0.1.0",
            platform: "linux-x86_64 2026-11-22 16:08:09".to_owned(),
            app: "shop",
            transport: "redis://:**@localhost:6379/0".to_owned(),
            results: "disabled://".to_owned(),
            concurrency: "8 (tokio)".to_owned(),
            task_events: false,
            queues: &queues,
            tasks: Some(vec!["shop.add", "shop.mul"]),
            colored: false,
        };
        let expected = r" 
 ----- \|/ ---- celery@host v0.1.0 (celeriac)
------ \|/ ----
---- ******* -- linux-x86_64 2026-11-22 16:08:09
--- ********* -
-- ***********  [config]
-- ***********  .> app:         shop
-- ***********  .> transport:   redis://:**@localhost:6379/0
--- ********* - .> results:     disabled://
---- ******* -- .> concurrency: 8 (tokio)
------ *** ---- .> task events: OFF (enable -E to monitor tasks in this worker)
------- * -----
 -------------- [queues]
                .> celery           exchange=celery(direct) key=celery
                .> hipri            exchange=hipri(direct) key=hipri

[tasks]
  . shop.add
  . shop.mul
";
        assert_eq!(banner.to_string(), expected);
    }
}
