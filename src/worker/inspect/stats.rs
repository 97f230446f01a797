//! Counters, pool, broker and process (celery/worker/worker.py `WorkController.stats`).

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::About;
use crate::app::broker_info;
use crate::protocol::{Map, Value};
use crate::worker::consumer::Consumer;

/// Rounds.
const HALF: Duration = Duration::from_millis(500);

/// What stands in the place of a pool's class.
const POOL: &str = "celeriac:tokio";

impl Consumer {
    pub(super) fn stats(&self) -> Value {
        let About { app, transport, since, begun, .. } = &self.about;
        let config = app.config();
        let mut total: Vec<_> = begun.iter().collect();
        total.sort();
        let total: Map = total.into_iter().map(|(name, count)| (name.as_str(), *count)).collect();
        let limits = [config.task_soft_time_limit, config.task_time_limit];
        let pool = Map::from([
            ("implementation", Value::from(POOL)),
            ("max-concurrency", self.pool.size().into()),
            ("processes", [std::process::id()].into()),
            ("max-tasks-per-child", "N/A".into()),
            ("put-guarded-by-semaphore", true.into()),
            ("timeouts", limits.map(|limit| limit.map_or(Value::from(0), |limit| limit.as_secs_f64().into())).into()),
        ]);
        let mut stats = Map::from([
            ("total", Value::from(total)),
            ("pid", std::process::id().into()),
            ("clock", self.remote.clock.value().to_string().into()),
            ("uptime", (since.elapsed() + HALF).as_secs().into()),
            ("pool", pool.into()),
            ("broker", broker_info(&transport.uri(), config).into()),
            ("prefetch_count", self.prefetch.limit().into()),
            ("rusage", rusage()),
        ]);
        if let Some(autoscaler) = self.autoscaler() {
            stats.insert("autoscaler", autoscaler);
        }
        Value::Map(stats)
    }

    /// celery/worker/autoscale.py `Autoscaler.info`; `None`: the pool does not grow by itself.
    fn autoscaler(&self) -> Option<Value> {
        let (max, min) = self.pool.bounds()?;
        let rows = [("max", max), ("min", min), ("current", self.pool.size()), ("qty", self.load())];
        Some(Value::Map(rows.into_iter().collect()))
    }
}

/// What the process has used (getrusage(2)), under the names of Python's module `resource`.
fn rusage() -> Value {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return "N/A".into() };
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Value::Map(Map::from([
        ("utime", Value::from(seconds(usage.user_time()))),
        ("stime", seconds(usage.system_time()).into()),
        ("maxrss", usage.max_rss().into()),
        ("ixrss", usage.shared_integral().into()),
        ("idrss", usage.unshared_data_integral().into()),
        ("isrss", usage.unshared_stack_integral().into()),
        ("minflt", usage.minor_page_faults().into()),
        ("majflt", usage.major_page_faults().into()),
        ("nswap", usage.full_swaps().into()),
        ("inblock", usage.block_reads().into()),
        ("oublock", usage.block_writes().into()),
        ("msgsnd", usage.ipc_sends().into()),
        ("msgrcv", usage.ipc_receives().into()),
        ("nsignals", usage.signals().into()),
        ("nvcsw", usage.voluntary_context_switches().into()),
        ("nivcsw", usage.involuntary_context_switches().into()),
    ]))
}
