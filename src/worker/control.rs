//! Remote control: what the loop does when a client asks for something.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::consumer::Consumer;
use super::event::Shutdown;
use super::execute::Limits;
use super::revoked::{stamps_of, values};
use super::running::Run;
use crate::control::{self, Command, ControlRequest, Inspection, Rate, Signal, Steering, TimeLimit};
use crate::protocol::{Exception, Map, Value, repr};

/// A task that revokes others may store next what they failed of, as Celery does with the body of a chord that is a group
/// (celery/backends/base.py `_handle_group_chord_error`): that is what who waits for them is to see first, as with a stock
/// worker, whose main process takes longer than that.
const AFTER_WHO_REVOKES: Duration = Duration::from_millis(50);

/// What a command comes to.
pub(super) struct Answer<V = Result<Value, Exception>> {
    pub(super) value: V,
    /// Stored as REVOKED before the answer is sent, unless they have come too far.
    revoked: Vec<String>,
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Answer { value: Ok(value), revoked: Vec::new() }
    }
}

impl Consumer {
    /// Does what a client asks for, and has it answered (kombu/pidbox.py `Node.dispatch`). What the program has under that
    /// name goes before, and what the worker does not have, the program may have.
    pub(super) fn control(&mut self, request: ControlRequest) {
        if let Some(door) = &self.commands
            && (door.takes(&request) || !control::is_known(&request.method))
        {
            return door.put(request);
        }
        if let Some(inspection) = Inspection::read(&request) {
            return self.inspect(request, inspection);
        }
        debug!("pidbox received method {} [ticket:{}]", request.call(), repr::repr(&request.ticket));
        let Some(Answer { value, revoked }) = self.carried_out(&request) else { return };
        let remote = Arc::clone(&self.remote);
        tokio::spawn(async move {
            if request.reply_to.is_none() && !revoked.is_empty() {
                sleep(AFTER_WHO_REVOKES).await;
            }
            remote.mark_as_revoked(&revoked).await;
            if let Some(reply_to) = request.reply_to {
                remote.reply(reply_to, request.ticket, value).await;
            }
        });
    }

    /// Carries out what is no question; `None`: who asks is not answered.
    pub(super) fn carried_out(&mut self, request: &ControlRequest) -> Option<Answer<Value>> {
        let Answer { value, revoked } = match Command::read(request) {
            Ok(Command::Steer(Steering::Shutdown(message))) => {
                // celery/worker/control.py `shutdown`
                warn!("{message}");
                self.shut_down(Shutdown::Warm);
                return None;
            }
            Ok(command) => self.obey(command),
            Err(exception) => Answer { value: Err(exception), revoked: Vec::new() },
        };
        let value = value.unwrap_or_else(|exception| {
            error!("pidbox command error: {exception}");
            control::error(exception.to_string())
        });
        Some(Answer { value, revoked })
    }

    fn obey(&mut self, command: Command) -> Answer {
        match command {
            Command::Ping => control::ok("pong").into(),
            Command::EnableEvents => self.want_events(true).into(),
            Command::DisableEvents => self.want_events(false).into(),
            Command::Heartbeat => {
                debug!("Heartbeat requested by remote.");
                self.remote.dispatcher.heartbeat();
                Value::Null.into()
            }
            Command::Hello { from_node, revoked } => self.hello(&from_node, &revoked).into(),
            Command::Election { id, topic, action } => self.hold_election(id, topic, action).into(),
            Command::Revoke { ids, terminate } => self.revoke(&ids, terminate),
            Command::RevokeByStampedHeaders { headers, terminate } => self.revoke_by_stamps(headers, terminate).into(),
            Command::RateLimit { task_name, rate, given } => self.limit_rate(&task_name, rate, &given).into(),
            Command::TimeLimit { task_name, soft, hard } => self.limit_time(&task_name, &soft, &hard).into(),
            Command::Steer(order) => Answer { value: self.steer(order), revoked: Vec::new() },
            Command::Refused(answer) => answer.into(),
        }
    }

    /// celery/worker/control.py `enable_events`, `disable_events`.
    fn want_events(&self, wanted: bool) -> Value {
        let (dispatcher, word) = (&self.remote.dispatcher, if wanted { "enabled" } else { "disabled" });
        let is_news = if wanted { dispatcher.enable_task_events() } else { dispatcher.disable_task_events() };
        if !is_news {
            return control::ok(format!("task events already {word}"));
        }
        info!("Events of group {{task}} {word} by remote.");
        control::ok(format!("task events {word}"))
    }

    /// celery/worker/control.py `hello`.
    fn hello(&mut self, from_node: &str, revoked: &[String]) -> Value {
        if from_node == self.remote.metas.hostname {
            return Value::Null;
        }
        info!("sync with {from_node}");
        self.take_revoked(revoked);
        let (ids, _) = self.revoked.remembered(Instant::now());
        let clock = self.remote.clock.forward();
        Value::Map(Map::from([("revoked", Value::from(ids)), ("clock", clock.into())]))
    }

    /// Takes in what another worker knows.
    pub(super) fn take_revoked(&mut self, ids: &[String]) {
        if !ids.is_empty() {
            let now = Instant::now();
            self.revoked.merge(ids, &[], now);
            self.chores.remember.soon(now);
            self.chores.discard.soon(now);
        }
    }

    /// celery/worker/control.py `election`.
    fn hold_election(&self, id: Value, topic: Value, action: Value) -> Value {
        match &self.remote.neighbours.gossip {
            Some(gossip) => gossip.hold(id, topic, action),
            None => warn!("this worker does not gossip, and takes no part in the election {}", repr::repr(&id)),
        }
        Value::Null
    }

    /// celery/worker/control.py `_revoke`.
    fn revoke(&mut self, ids: &[String], terminate: Option<Result<Signal, Exception>>) -> Answer {
        let now = Instant::now();
        ids.iter().for_each(|id| self.revoked.revoke(id, now));
        self.chores.remember.soon(now);
        let running: HashSet<&str> = self.running.iter().map(|run| run.request.id.as_str()).collect();
        let revoked = ids.iter().filter(|id| !running.contains(id.as_str())).cloned().collect();
        let value = match terminate {
            None => {
                info!("Tasks flagged as revoked: {}", ids.join(", "));
                self.chores.discard.soon(now);
                Ok(control::ok(format!("tasks {} flagged as revoked", set(ids))))
            }
            Some(Err(exception)) => Err(exception),
            Some(Ok(signal)) => Ok(self.terminate(ids, signal)),
        };
        Answer { value, revoked }
    }

    /// Ends those that run; those that wait are discarded soon, with all others that were revoked meanwhile.
    fn terminate(&mut self, ids: &[String], signal: Signal) -> Value {
        self.chores.discard.soon(Instant::now());
        let named: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let waiting = self.waiting(&named);
        let running: Vec<&Run> = self.running.iter().filter(|run| named.contains(run.request.id.as_str())).collect();
        let found: HashSet<&str> = running.iter().map(|run| run.request.id.as_str()).chain(waiting).collect();
        let found: Vec<&str> = ids.iter().map(String::as_str).filter(|id| found.contains(id)).collect();
        found.iter().for_each(|id| info!("Terminating {id} ({signal})"));
        running.into_iter().for_each(|run| run.terminate(signal));
        match found.as_slice() {
            [] => control::ok("terminate: tasks unknown"),
            found => control::ok(format!("terminate: {}", found.join(", "))),
        }
    }

    /// celery/worker/control.py `revoke_by_stamped_headers`.
    fn revoke_by_stamps(&mut self, headers: Map, terminate: Option<Signal>) -> Value {
        let now = Instant::now();
        self.revoked.revoke_stamps(&headers, now);
        self.chores.remember.soon(now);
        self.chores.discard.soon(now);
        let matched = terminate.map(|signal| self.terminate_stamped(&headers, signal));
        let headers = repr::repr(&Value::Map(headers));
        control::ok(match matched {
            None => format!("headers {headers} flagged as revoked, but not terminated"),
            Some(matched) if matched.is_empty() => format!("headers {headers} were not terminated"),
            Some(matched) => {
                let pairs = matched.iter().map(|(header, stamps)| format!("{}: {}", quoted(header), braces(stamps)));
                let pairs = pairs.collect::<Vec<_>>().join(", ");
                format!("headers defaultdict(<class 'set'>, {{{pairs}}}) revoked")
            }
        })
    }

    /// Ends what runs and bears any of these stamps; tells which they bore, by header, each once.
    fn terminate_stamped(&self, headers: &Map, signal: Signal) -> Vec<(String, Vec<String>)> {
        let mut matched: Vec<(String, Vec<String>)> = Vec::new();
        for run in self.running.iter() {
            for (header, stamp) in stamps_of(&run.request.headers) {
                let revoked = headers.get(header).is_some_and(|stamps| values(stamps).any(|value| value == stamp));
                if revoked {
                    note(&mut matched, header, repr::repr(stamp));
                    run.terminate(signal);
                }
            }
        }
        matched
    }

    fn limit_rate(&mut self, task_name: &str, rate: Option<Rate>, given: &Value) -> Value {
        if !self.tasks.knows(task_name) {
            error!("Rate limit attempt for unknown task {task_name}");
            return control::error("unknown task");
        }
        self.set_rate_limit(task_name, rate);
        self.tasks.set_rate_limit(task_name, (!given.is_null()).then(|| text(given)));
        if !given.is_truthy() {
            info!("Rate limits disabled for tasks of type {task_name}");
            return control::ok("rate limit disabled successfully");
        }
        info!("New rate limit for tasks of type {task_name}: {}.", text(given));
        control::ok("new rate limit set successfully")
    }

    fn limit_time(&mut self, task_name: &str, soft: &TimeLimit, hard: &TimeLimit) -> Value {
        if !self.tasks.set_limits(task_name, Limits { hard: hard.limit, soft: soft.limit }) {
            error!("Change time limit attempt for unknown task {task_name}");
            return control::error("unknown task");
        }
        let (soft, hard) = (text(&soft.given), text(&hard.given));
        info!("New time limits for tasks of type {task_name}: soft={soft} hard={hard}");
        control::ok("time limits set successfully")
    }
}

fn note(matched: &mut Vec<(String, Vec<String>)>, header: &str, stamp: String) {
    match matched.iter_mut().find(|(known, _)| known == header) {
        Some((_, stamps)) if stamps.contains(&stamp) => {}
        Some((_, stamps)) => stamps.push(stamp),
        None => matched.push((header.to_owned(), vec![stamp])),
    }
}

/// A set of strings as Python shows it.
fn set(ids: &[String]) -> String {
    match ids {
        [] => "set()".to_owned(),
        ids => braces(&ids.iter().map(|id| quoted(id)).collect::<Vec<_>>()),
    }
}

fn braces(members: &[String]) -> String {
    format!("{{{}}}", members.join(", "))
}

fn quoted(text: &str) -> String {
    repr::repr(&Value::from(text))
}

/// Python's `str()`.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| repr::repr(value), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_shown_as_python_shows_them() {
        assert_eq!(set(&[]), "set()");
        assert_eq!(set(&["a".into(), "it's".into()]), "{'a', \"it's\"}");
        assert_eq!(
            (text(&"5/m".into()), text(&1.5.into()), text(&Value::Null)),
            ("5/m".into(), "1.5".into(), "None".into())
        );
    }
}
