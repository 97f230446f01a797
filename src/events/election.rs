//! [`Elections`]: which of many nodes does what one of them is to do (celery/worker/consumer/gossip.py `Gossip.election`).
//!
//! Each node that is told to hold an election says `worker-elect`, and answers each of these that it hears with
//! `worker-elect-ack`. Whose request has the lowest logical time, and among equals the lowest name, is elected, and each
//! node finds that out by itself: what matters is that all come to the same. A node here counts when it has heard the
//! requests and the answers of all who are there; who stays silent is not waited for longer than [`PATIENCE`].
//!
//! A stock worker counts as soon as there are as many answers as other nodes, whoever they are from: it may not have heard
//! all requests by then, and with a single one it fails and ends. So a node here says its request twice, at [`CLAIMS`], and
//! answers nobody before it has heard itself: where two such nodes are there, a stock worker that counts has heard two
//! requests, and has an outcome in which it is not elected itself.

use std::time::Duration;

use crate::protocol::{Map, Value};

/// How long an election waits for nodes that do not take part: those whose gossip is off are there all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// The logical times that a node's requests bear: before those of all stock workers, and unlike each other.
pub const CLAIMS: [u64; 2] = [0, 1];

/// How many are held at a time: the oldest are forgotten first.
const ELECTIONS: usize = 1000;

/// The elections that are under way. Time is given in seconds.
#[derive(Debug, Clone)]
pub struct Elections {
    /// This node's name, and its name with its process.
    hostname: String,
    candidate: String,
    elections: Vec<Election>,
}

#[derive(Debug, Clone)]
struct Election {
    id: Value,
    since: f64,
    /// This node was told to hold it, and not only hears of it.
    is_held: bool,
    requests: Vec<Request>,
    /// Who has answered.
    answers: Vec<String>,
    /// How many requests this node has not answered.
    owed: usize,
}

/// A candidate, ordered as Celery orders them (kombu/clocks.py `LamportClock.sort_heap`).
#[derive(Debug, Clone)]
struct Request {
    clock: u64,
    /// `node.pid`.
    candidate: String,
    hostname: String,
    topic: Value,
    action: Value,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Answer a request of this election.
    Answer(Value),
    /// This node is elected.
    Won {
        /// The election.
        id: Value,
        /// What kind of action it is: `task`.
        topic: Value,
        /// What is to be done.
        action: Value,
    },
    /// Another is.
    Lost {
        /// The election.
        id: Value,
        /// Who: its name with its process.
        leader: String,
    },
}

impl Elections {
    /// Those that a node with this name and process takes part in.
    pub fn new(hostname: &str, pid: u32) -> Self {
        let hostname = hostname.to_owned();
        Elections { candidate: format!("{hostname}.{pid}"), hostname, elections: Vec::new() }
    }

    /// This node was told to hold an election.
    pub fn hold(&mut self, id: &Value, now: f64) {
        self.election(id, now).is_held = true;
    }

    /// Takes in `worker-elect`, of this node too; `None` where a field is missing.
    pub fn request(&mut self, event: &Map, now: f64) -> Option<()> {
        let text = |name| event.get(name).and_then(Value::as_str).map(str::to_owned);
        let (id, clock, hostname) = (event.get("id")?, event.get("clock")?.as_u64()?, text("hostname")?);
        let candidate = format!("{hostname}.{}", event.get("pid")?.as_i64()?);
        let (topic, action) = (event.get("topic")?.clone(), event.get("action")?.clone());
        let election = self.election(id, now);
        election.requests.push(Request { clock, candidate, hostname, topic, action });
        election.owed += 1;
        Some(())
    }

    /// Takes in `worker-elect-ack`, of this node too.
    pub fn answer(&mut self, event: &Map) {
        let election = self.elections.iter_mut().find(|election| Some(&election.id) == event.get("id"));
        if let (Some(election), Some(hostname)) = (election, event.get("hostname").and_then(Value::as_str)) {
            election.answers.push(hostname.to_owned());
        }
    }

    /// What is to be done now, where `alive` are the other nodes that are there.
    pub fn steps(&mut self, alive: &[&str], now: f64) -> Vec<Step> {
        let (hostname, candidate) = (&self.hostname, &self.candidate);
        let mut steps = Vec::new();
        self.elections.retain_mut(|election| {
            if election.has_request_of(hostname) {
                let answers = std::iter::repeat_n(&election.id, std::mem::take(&mut election.owed));
                steps.extend(answers.cloned().map(Step::Answer));
            }
            let is_complete = election.is_held && election.is_complete(hostname, alive);
            let is_over = is_complete || now >= election.since + PATIENCE.as_secs_f64();
            if election.is_held && is_over {
                steps.extend(election.outcome(candidate));
            }
            !is_over
        });
        steps
    }

    /// Until when somebody may be waited for.
    pub fn next_due(&self) -> Option<f64> {
        let due = self.elections.iter().map(|election| election.since + PATIENCE.as_secs_f64());
        due.min_by(f64::total_cmp)
    }

    fn election(&mut self, id: &Value, now: f64) -> &mut Election {
        let known = self.elections.iter().position(|election| election.id == *id);
        let at = known.unwrap_or_else(|| {
            if self.elections.len() >= ELECTIONS {
                self.elections.remove(0);
            }
            self.elections.push(Election::new(id.clone(), now));
            self.elections.len() - 1
        });
        &mut self.elections[at]
    }
}

impl Election {
    fn new(id: Value, since: f64) -> Self {
        Election { id, since, is_held: false, requests: Vec::new(), answers: Vec::new(), owed: 0 }
    }

    fn has_request_of(&self, node: &str) -> bool {
        self.requests.iter().any(|request| request.hostname == node)
    }

    /// Whether every node has both asked and answered.
    fn is_complete(&self, own: &str, others: &[&str]) -> bool {
        let has = |node: &str| self.has_request_of(node) && self.answers.iter().any(|answer| answer == node);
        has(own) && others.iter().all(|node| has(node))
    }

    /// Who is elected, seen from this candidate; nobody where nothing was heard.
    fn outcome(&self, own: &str) -> Option<Step> {
        let leader = self.requests.iter().min_by_key(|request| (request.clock, request.candidate.as_str()))?;
        let id = self.id.clone();
        Some(match leader.candidate == own {
            true => Step::Won { id, topic: leader.topic.clone(), action: leader.action.clone() },
            false => Step::Lost { id, leader: leader.candidate.clone() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "own@h";

    fn elect(hostname: &str, clock: u64) -> Map {
        let mut event = Map::from([("id", "e"), ("hostname", hostname), ("topic", "task"), ("action", "t")]);
        event.insert("clock", clock);
        event.insert("pid", 7);
        event
    }

    fn ack(hostname: &str) -> Map {
        Map::from([("id", "e"), ("hostname", hostname)])
    }

    fn won() -> Step {
        Step::Won { id: "e".into(), topic: "task".into(), action: "t".into() }
    }

    fn lost(leader: &str) -> Step {
        Step::Lost { id: "e".into(), leader: leader.to_owned() }
    }

    fn answer() -> Step {
        Step::Answer("e".into())
    }

    /// An election of which these requests and answers are heard at the time 0.
    fn heard(requests: &[(&str, u64)], answers: &[&str]) -> Elections {
        let mut elections = Elections::new(OWN, 7);
        elections.hold(&"e".into(), 0.0);
        for (hostname, clock) in requests {
            assert!(elections.request(&elect(hostname, *clock), 0.0).is_some());
        }
        answers.iter().for_each(|hostname| elections.answer(&ack(hostname)));
        elections
    }

    #[test]
    fn the_lowest_time_wins_and_among_equals_the_lowest_name() {
        let rows = [
            (vec![(OWN, 5)], won()),
            (vec![(OWN, 5), ("a@h", 6)], won()),
            (vec![(OWN, 5), ("a@h", 4)], lost("a@h.7")),
            (vec![(OWN, 5), ("a@h", 5)], lost("a@h.7")),
            (vec![("z@h", 5), (OWN, 5)], won()),
            (vec![("z@h", 9), ("a@h", 10), (OWN, 11)], lost("z@h.7")),
            (vec![("a@h", 1), (OWN, CLAIMS[0]), (OWN, CLAIMS[1])], won()),
        ];
        for (requests, outcome) in rows {
            let nodes: Vec<_> = requests.iter().map(|(node, _)| *node).collect();
            let others: Vec<_> = nodes.iter().copied().filter(|node| *node != OWN).collect();
            let mut elections = heard(&requests, &nodes);
            let mut expected = vec![answer(); requests.len()];
            expected.push(outcome);
            assert_eq!(elections.steps(&others, 0.0), expected, "{requests:?}");
            assert_eq!((elections.steps(&others, 9.0), elections.next_due()), (vec![], None), "it is over");
        }
    }

    #[test]
    fn it_is_decided_when_all_have_asked_and_answered() {
        let mut elections = heard(&[("a@h", 2)], &["a@h"]);
        assert_eq!((elections.steps(&["a@h"], 0.5), elections.next_due()), (vec![], Some(2.0)), "not heard itself");
        elections.request(&elect(OWN, 1), 0.6);
        assert_eq!(elections.steps(&["a@h", "c@h"], 0.6), [answer(), answer()]);
        for (node, expected) in [("a@h", vec![]), ("b@h", vec![]), (OWN, vec![won()])] {
            elections.answer(&ack(node));
            assert_eq!(elections.steps(&["a@h"], 0.7), expected, "{node}");
        }
    }

    #[test]
    fn nobody_waits_for_ever_for_who_stays_silent() {
        let mut elections = heard(&[(OWN, 1)], &[OWN]);
        assert_eq!(elections.steps(&["silent@h"], 0.0), [answer()]);
        assert_eq!((elections.steps(&["silent@h"], 1.9), elections.next_due()), (vec![], Some(2.0)));
        assert_eq!(elections.steps(&["silent@h"], 2.0), [won()]);
        assert_eq!(heard(&[], &[]).steps(&[], 2.0), [], "nobody was heard, and so nobody is elected");
    }

    #[test]
    fn what_this_node_was_not_told_to_hold_it_does_not_decide() {
        let mut elections = Elections::new(OWN, 7);
        assert!(elections.request(&elect("a@h", 1), 0.0).is_some());
        elections.answer(&ack("a@h"));
        assert_eq!((elections.steps(&["a@h"], 1.0), elections.next_due()), (vec![], Some(2.0)));
        assert_eq!((elections.steps(&["a@h"], 2.0), elections.next_due()), (vec![], None));
        for field in ["id", "clock", "hostname", "pid", "topic", "action"] {
            let mut event = elect("a@h", 1);
            event.remove(field);
            assert_eq!(elections.request(&event, 0.0), None, "{field}");
        }
    }
}
