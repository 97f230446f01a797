//! Chords that stock Celery, new and old, and this crate count together.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use celeriac::backend::{
    BackendOptions, ChordClaim, ChordOutcome, ChordPart, ChordProgress, ResultBackend, ResultWriter, WriterOptions,
};
use celeriac::protocol::{Exception, MetaResult, ResultTuple, State, Value, json};
use fastrand::Rng;
use redis::Connection;
use tokio::time::Instant;

use crate::chords::{chords, claim, count_one};
use crate::peer::{Peer, Report};
use crate::redis_promises::{connection, flush};
use crate::support::redis_server::RedisServer;
use crate::{open, suite};

/// A key's type, what it holds, and the seconds that it is kept.
type Dump = BTreeMap<String, (String, Vec<String>, i64)>;

/// All that is kept for a chord. Claims have tokens of their own: only `done` is shown.
fn dump(connection: &mut Connection, group_id: &str) -> Dump {
    let mut dump = Dump::new();
    for suffix in ["", ".j", ".t", ".s", ".d", ".c"] {
        let key = format!("celery-taskset-meta-{group_id}{suffix}");
        let ask = |connection: &mut Connection, command: &[&str]| -> Vec<String> {
            let mut asked = redis::cmd(command[0]);
            asked.arg(&key).arg(&command[1..]);
            let answer: redis::Value = asked.query(connection).unwrap();
            redis::from_redis_value::<Vec<String>>(answer.clone())
                .or_else(|_| redis::from_redis_value::<String>(answer).map(|text| vec![text]))
                .unwrap()
        };
        let kind = ask(connection, &["TYPE"]).remove(0);
        let mut held = match kind.as_str() {
            "none" => continue,
            "zset" => ask(connection, &["ZRANGE", "0", "-1", "WITHSCORES"]),
            "list" => ask(connection, &["LRANGE", "0", "-1"]),
            "set" => ask(connection, &["SMEMBERS"]),
            _ => ask(connection, &["GET"]),
        };
        if kind == "set" {
            // Which members were added is ours to know: stock workers count them, and no more.
            held.retain(|member| !member.starts_with("added:"));
            held.sort();
        }
        if held.is_empty() {
            continue;
        }
        if suffix == ".c" && held != ["done"] {
            held = vec!["a token".into()];
        }
        let seconds: i64 = redis::cmd("TTL").arg(&key).query(connection).unwrap();
        let held = held.into_iter().map(|text| text.replace(group_id, "GROUP")).collect();
        dump.insert(suffix.into(), (kind, held, seconds));
    }
    dump
}

/// Equal but for the time that may have passed between two writes or two questions, in seconds that are rounded.
fn assert_alike(ours: &Dump, theirs: &Dump, passed: Duration, after: &str) {
    let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
    for (suffix, (_, _, seconds)) in &mut ours {
        let Some((_, _, other)) = theirs.get_mut(suffix) else { continue };
        if seconds.abs_diff(*other) <= 1 + passed.as_secs() && *seconds > 1 && *other > 1 {
            *other = *seconds;
        }
    }
    assert_eq!(ours, theirs, "after {after}");
}

fn of_json(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap()
}

fn text_of(value: &Value) -> String {
    String::from_utf8(json::to_vec(value).unwrap()).unwrap()
}

/// A worker's way after its member is done, with a broker that accepts everything.
async fn publish(backend: &Arc<dyn ResultBackend>, claim: &ChordClaim) -> Vec<Report> {
    let chords = chords(backend);
    match chords.claimed(claim).await.unwrap() {
        ChordOutcome::Results(results) => {
            if !chords.extend_claim(claim, Duration::from_secs(30)).await.unwrap() {
                return Vec::new();
            }
            chords.complete_chord(claim).await.unwrap();
            vec![Report::Published(text_of(&Value::List(results)))]
        }
        ChordOutcome::Failed(failure) => {
            chords.fail_chord(&claim.group_id).await.unwrap();
            let cause = failure.cause.as_ref().map(Exception::to_string);
            vec![Report::Failed { message: failure.message, cause }]
        }
    }
}

/// One step of a chord's life, as the peer is told of it.
#[derive(Debug, Clone)]
enum Step {
    Start(u64),
    Add(&'static str, Option<i64>),
    Header(&'static str),
    Store(&'static str, &'static str),
    Success(&'static str, Option<i64>, &'static str),
    Failure(&'static str, Option<i64>, &'static str),
}

impl Step {
    fn order(&self, group_id: &str) -> String {
        let index = |index: &Option<i64>| index.map_or("null".to_owned(), |index| index.to_string());
        let part = |id: &str, at: &Option<i64>, state: &str, result: &str| {
            let at = index(at);
            format!(
                r#""do": "part", "group": "{group_id}", "id": "{id}", "index": {at}, "state": "{state}", "result": {result}"#
            )
        };
        match self {
            Step::Start(size) => format!(r#""do": "start", "group": "{group_id}", "size": {size}"#),
            Step::Add(..) => format!(r#""do": "add", "group": "{group_id}""#),
            Step::Header(members) => format!(r#""do": "header", "group": "{group_id}", "members": {members}"#),
            Step::Store(id, result) => format!(r#""do": "store", "id": "{id}", "result": {result}"#),
            Step::Success(id, index, result) => part(id, index, "SUCCESS", result),
            Step::Failure(id, index, args) => part(id, index, "FAILURE", args),
        }
    }

    async fn run(&self, backend: &Arc<dyn ResultBackend>, group_id: &str) -> Vec<Report> {
        match self {
            Step::Start(size) => chords(backend).start_chord(group_id, *size).await.unwrap(),
            Step::Add(id, index) => chords(backend).add_to_chord(group_id, id, *index).await.unwrap(),
            Step::Header(members) => {
                let group = ResultTuple::group(group_id, members_of(&of_json(members)));
                chords(backend).save_header(&group).await.unwrap();
            }
            Step::Store(id, result) => {
                let mut request = suite::success(id, 0);
                request.meta.result = of_json(result).into();
                backend.store(&[request]).await.unwrap();
            }
            Step::Success(..) | Step::Failure(..) => {
                if let ChordProgress::Complete(claim) = count_one(backend, self.part(group_id)).await {
                    return publish(backend, &claim).await;
                }
            }
        }
        Vec::new()
    }

    fn part(&self, group_id: &str) -> ChordPart {
        let (id, index, state, result) = match self {
            Step::Success(id, index, result) => (id, index, State::Success, MetaResult::Value(of_json(result))),
            Step::Failure(id, index, args) => {
                let args = of_json(args).into_list().unwrap();
                (id, index, State::Failure, Exception::with_args("ValueError", "builtins", args).into())
            }
            other => panic!("{other:?} is no part"),
        };
        ChordPart { group_id: group_id.into(), task_id: (*id).into(), group_index: *index, state, result }
    }
}

/// `"a"` is a task, `["g", ["a"]]` a group.
fn members_of(value: &Value) -> Vec<ResultTuple> {
    let member = |value: &Value| match value {
        Value::List(group) => ResultTuple::group(group[0].as_str().unwrap(), members_of(&group[1])),
        task => ResultTuple::task(task.as_str().unwrap()),
    };
    value.as_list().unwrap().iter().map(member).collect()
}

const SCRIPTS: &[&[Step]] = &[
    &[
        Step::Success(
            "m1",
            Some(1),
            r#"{"b": [1.5, 1e22, -0.0, 12345678901234567890], "a": "\u00e9\ud83d\ude00\n\"\\/"}"#,
        ),
        Step::Success("m0", Some(0), "null"),
        Step::Success("m0", Some(0), "null"),
        Step::Start(4),
        Step::Success("m2", None, "[true, [], {}]"),
        Step::Success("m0", Some(0), "\"another result\""),
        Step::Success(
            "m10",
            Some(10),
            r#"{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000007"}}"#,
        ),
        Step::Success("m10", Some(10), "1"),
        Step::Success("m3", Some(3), "1"),
    ],
    &[
        Step::Start(2),
        Step::Failure("m1", Some(1), r#"["it's", 3]"#),
        Step::Success("m0", Some(0), "1"),
        Step::Success("m0", Some(0), "1"),
        Step::Failure("m1", Some(1), r#"["it's", 3]"#),
    ],
    &[
        Step::Start(1),
        Step::Add("m1", None),
        Step::Success("m0", Some(0), "1"),
        Step::Add("m2", None),
        Step::Success("m1", None, "2"),
        Step::Success("m2", None, "3"),
        Step::Start(1),
        Step::Success("m0", Some(0), "7"),
    ],
    &[
        Step::Header(r#"[["g", ["m0", "m1"]], "m2"]"#),
        Step::Start(3),
        Step::Store("m0", "10"),
        Step::Success("m0", Some(0), "1"),
        Step::Store("m1", "[11]"),
        Step::Success("m1", Some(1), "2"),
        Step::Store("m2", "12"),
        Step::Success("m2", Some(2), "3"),
    ],
];

#[tokio::test]
async fn what_is_kept_for_a_chord_is_what_stock_celery_keeps() {
    let Some(server) = RedisServer::start().await else { return };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let rows = [
        ("", BackendOptions::default()),
        (
            r#""result_backend_transport_options": {"result_chord_ordered": false}, "result_chord_expires": 77"#,
            BackendOptions { chord_ordered: false, chord_expires: seconds(77), ..BackendOptions::default() },
        ),
        (
            r#""result_expires": 0, "result_chord_join_timeout": 9"#,
            BackendOptions { result_expires: None, chord_join_timeout: seconds(9), ..BackendOptions::default() },
        ),
    ];
    let mut connection = connection(&server);
    for (settings, options) in rows {
        let Some(mut peer) = Peer::start(&server, false, settings).await else { return };
        let backend = open(&server.url(0), &options);
        for script in SCRIPTS {
            // What one step wrote is still there after the next.
            let mut longest = Duration::ZERO;
            for step in *script {
                let begun = Instant::now();
                let (ours, theirs) = (step.run(&backend, "our-chord").await, peer.run(&step.order("its-chord")).await);
                assert_eq!(ours, theirs, "{step:?}");
                let (ours, theirs) = (dump(&mut connection, "our-chord"), dump(&mut connection, "its-chord"));
                longest = longest.max(begun.elapsed());
                assert_alike(&ours, &theirs, longest, &format!("{step:?} with {settings}"));
            }
            flush(&server);
        }
    }
}

/// One delivery of a member.
#[derive(Debug, Clone, Copy)]
struct Delivery {
    member: i64,
    worker: Worker,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Worker {
    Ours,
    /// Ours, killed between counting and publishing: the message comes again.
    Killed,
    Present,
    Old,
}

/// Every member once or several times, by whoever.
fn deliveries(rng: &mut Rng, size: i64, is_mixed: bool) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for member in 0..size {
        for _ in 0..rng.u8(1..4) {
            let worker = match rng.u8(0..if is_mixed { 4 } else { 3 }) {
                0 => Worker::Ours,
                1 => Worker::Killed,
                2 => Worker::Present,
                _ => Worker::Old,
            };
            deliveries.push(Delivery { member, worker });
        }
    }
    rng.shuffle(&mut deliveries);
    deliveries
}

/// Redis runs one script at a time, so that any order of whole deliveries is a possible one.
#[tokio::test]
async fn a_mixed_fleet_publishes_a_body_once_whoever_dies() {
    let Some(server) = RedisServer::start().await else { return };
    let Some(mut present) = Peer::start(&server, false, "").await else { return };
    let old = Peer::start(&server, true, "").await;
    let is_mixed = old.is_some();
    let mut old = old;
    let backend = open(&server.url(0), &BackendOptions::default());
    let mut connection = connection(&server);
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let (group_id, size) = (format!("chord-{seed}"), rng.i64(1..6));
        let mut queue: Vec<Delivery> = deliveries(&mut rng, size, is_mixed);
        // A client announces a chord before it sends the last member.
        let mut members = HashSet::new();
        let last_at = queue.iter().position(|delivery| members.insert(delivery.member) && members.len() as i64 == size);
        let starts_at = rng.usize(0..=last_at.unwrap());
        let (mut at, mut reports) = (0, Vec::new());
        while at < queue.len() {
            assert!(at < 1000, "seed {seed} goes on for ever");
            if at == starts_at {
                chords(&backend).start_chord(&group_id, size as u64).await.unwrap();
            }
            let Delivery { member, worker } = queue[at];
            let result = member * 10;
            let order = format!(
                r#""do": "part", "group": "{group_id}", "id": "m{member}", "index": {member}, "state": "SUCCESS", "result": {result}, "size": {size}"#
            );
            match worker {
                Worker::Present => reports.extend(present.run(&order).await),
                Worker::Old => reports.extend(old.as_mut().unwrap().run(&order).await),
                Worker::Ours | Worker::Killed => {
                    let progress = count_one(&backend, crate::chords::part(&group_id, member)).await;
                    match progress {
                        ChordProgress::Complete(claim) if worker == Worker::Ours => {
                            reports.extend(publish(&backend, &claim).await);
                        }
                        // The message comes again when the claim has run out, and so does that of a copy that waits.
                        ChordProgress::Complete(_) | ChordProgress::Busy(_) => {
                            let key = format!("celery-taskset-meta-{group_id}.c");
                            redis::cmd("DEL").arg(key).exec(&mut connection).unwrap();
                            queue.push(Delivery { member, worker: Worker::Ours });
                        }
                        ChordProgress::Waiting | ChordProgress::Late => {}
                    }
                }
            }
            at += 1;
        }
        let expected = (0..size).map(|member| Value::Int(member * 10)).collect();
        assert_eq!(reports, [Report::Published(text_of(&Value::List(expected)))], "seed {seed}: {queue:?}");
    }
}

const LAST: &str =
    r#""do": "part", "group": "g", "id": "m1", "index": 1, "state": "SUCCESS", "result": 10, "size": 2, "hold": true"#;

/// A chord of two whose last member an old worker has counted, and is about to publish the body.
async fn held_by_an_old_worker(server: &RedisServer) -> Option<(Arc<dyn ResultBackend>, ResultWriter, Peer)> {
    let mut old = Peer::start(server, true, "").await?;
    let backend = open(&server.url(0), &BackendOptions::default());
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    chords(&backend).start_chord("g", 2).await.unwrap();
    assert_eq!(count_one(&backend, crate::chords::part("g", 0)).await, ChordProgress::Waiting);
    assert_eq!(old.run(LAST).await, []);
    Some((backend, writer, old))
}

#[tokio::test]
async fn a_copy_waits_for_an_old_worker_that_knows_no_claims() {
    let Some(server) = RedisServer::start().await else { return };
    let Some((backend, writer, mut old)) = held_by_an_old_worker(&server).await else { return };
    let copy = || crate::chords::part("g", 1);
    assert!(matches!(count_one(&backend, copy()).await, ChordProgress::Busy(_)));
    let waiting = tokio::spawn(writer.store_with_part(None, &copy()));
    assert_eq!(old.run(r#""do": "release""#).await, [Report::Published("[0, 10]".into())]);
    assert_eq!(waiting.await.unwrap().unwrap(), ChordProgress::Waiting);
}

#[tokio::test]
async fn a_copy_takes_over_from_an_old_worker_that_died() {
    let Some(server) = RedisServer::start().await else { return };
    let Some((backend, writer, old)) = held_by_an_old_worker(&server).await else { return };
    let copy = || crate::chords::part("g", 1);
    assert!(matches!(count_one(&backend, copy()).await, ChordProgress::Busy(_)));
    old.kill().await;
    redis::cmd("PEXPIRE").arg("celery-taskset-meta-g.c").arg(20).exec(&mut connection(&server)).unwrap();
    let claim = claim(writer.store_with_part(None, &copy()).await.unwrap());
    assert_eq!(publish(&backend, &claim).await, [Report::Published("[0, 10]".into())]);
}
