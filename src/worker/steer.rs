//! Remote control that changes the worker itself: how much it runs at a time, what it consumes, and its end.

use tokio::time::Instant;
use tracing::info;

use super::consumer::Consumer;
use super::poison::Quarantine;
use crate::control::{self, Bounds, Steering};
use crate::protocol::{Exception, Value};

impl Consumer {
    /// Does what is told; only [`Steering::Shutdown`] has no answer, as in stock Celery, which is gone by then.
    pub(super) fn steer(&mut self, order: Steering) -> Result<Value, Exception> {
        match order {
            Steering::PoolGrow(places) => self.grow(places),
            Steering::PoolShrink(places) => self.shrink(places),
            // Handlers are a part of this program, and there are no processes to replace: what `worker_pool_restarts`
            // enables elsewhere has no effect here, which is told at the start.
            Steering::PoolRestart => Err(Exception::new("ValueError", "Pool restarts not enabled")),
            Steering::Autoscale(bounds) => self.rebound(bounds),
            Steering::AddConsumer { queue, options } => {
                self.queues.add(&queue, &options)?;
                Ok(control::ok(format!("add consumer {queue}")))
            }
            Steering::CancelConsumer(queue) => {
                self.queues.cancel(&queue);
                Ok(control::ok(format!("no longer consuming from {queue}")))
            }
            Steering::Shutdown(_) => Ok(Value::Null),
        }
    }

    /// celery/worker/control.py `pool_grow`.
    fn grow(&mut self, places: Result<i64, Exception>) -> Result<Value, Exception> {
        if self.pool.is_autoscaled() {
            return Ok(autoscaled("pool_grow"));
        }
        self.pool.grow(places?);
        self.resized();
        Ok(control::ok("pool will grow"))
    }

    /// celery/worker/control.py `pool_shrink`. What runs beyond the new size goes on, and nothing begins meanwhile.
    fn shrink(&mut self, places: Result<i64, Exception>) -> Result<Value, Exception> {
        if self.pool.is_autoscaled() {
            return Ok(autoscaled("pool_shrink"));
        }
        if !self.pool.shrink(places?) {
            return Err(Exception::new("ValueError", "Can't shrink pool. All processes busy!"));
        }
        self.resized();
        Ok(control::ok("pool will shrink"))
    }

    /// celery/worker/control.py `autoscale`, celery/worker/autoscale.py `Autoscaler.update`.
    fn rebound(&mut self, bounds: Result<Bounds, Exception>) -> Result<Value, Exception> {
        let before = self.pool.size();
        if !self.pool.is_autoscaled() {
            return Err(Exception::new("ValueError", "Autoscale not enabled"));
        }
        let bounds = bounds?;
        let (max, min) = self.pool.bound(bounds).unwrap_or_default();
        self.tell_size(before);
        self.resized();
        Ok(control::ok(format!("autoscale now max={max} min={min}")))
    }

    /// Lets the pool grow and shrink with what there is to do (celery/worker/autoscale.py `Autoscaler.maybe_scale`).
    pub(super) fn autoscale(&mut self) {
        if !self.pool.is_autoscaled() || self.stopping.is_some() {
            return;
        }
        let before = self.pool.size();
        if self.pool.scale(self.load(), Instant::now()) {
            self.tell_size(before);
            self.pools.resize(self.pool.size());
        }
    }

    /// What is reserved, with those that are kept apart, and what was held and is due: of the latter one is enough to make
    /// room for the next.
    pub(super) fn load(&self) -> usize {
        let is_due = self.held.next_eta().is_some_and(|eta| eta <= self.clock.now());
        let suspects = self.quarantine.as_ref().map_or(0, Quarantine::len);
        let counted = self.pools.counted().map(|lane| self.running.len_in(lane) + self.reserved.len_in(lane));
        counted.sum::<usize>() + suspects + usize::from(is_due)
    }

    /// When the pool may be smaller, as far as is known now.
    pub(super) fn next_scaling(&self) -> Option<Instant> {
        // A worker that stops scales no more, and a moment that passes unused would wake the loop again and again.
        if !self.pool.is_autoscaled() || self.stopping.is_some() {
            return None;
        }
        // It shrinks after that moment and not at it.
        self.pool.shrinks_at(self.load())?.checked_add(std::time::Duration::from_millis(1))
    }

    /// Widens the window while places take more than one call each, and while handlers' messages come in a row.
    pub(super) fn follow_pools(&mut self) {
        if self.pool.deepen(self.pools.depth(self.pool.size())) {
            self.prefetch.set_limit(self.pool.window());
        }
        self.prefetch.set_aside(self.streak.most(), self.streak.ahead());
    }

    fn resized(&self) {
        self.prefetch.set_limit(self.pool.window());
        self.pools.resize(self.pool.size());
    }

    fn tell_size(&self, before: usize) {
        let now = self.pool.size();
        match now.checked_sub(before) {
            Some(0) => {}
            Some(more) => info!("Scaling up {more} processes."),
            None => info!("Scaling down {} processes.", before - now),
        }
    }
}

fn autoscaled(command: &str) -> Value {
    control::error(format!("{command} is not supported with autoscale. Adjust autoscale range instead."))
}
