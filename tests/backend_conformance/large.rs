//! Large chords: the same work for each member, however many there are. `CELERIAC_CHORD_MEMBERS` makes them larger, and
//! `--nocapture` shows what they took.

use std::time::Duration;

use celeriac::backend::{BackendOptions, ChordClaim, ChordOutcome, ChordProgress, ResultWriter, WriterOptions};
use futures_util::future::join_all;
use redis::Connection;
use tokio::time::Instant;

use crate::chords::{chords, part};
use crate::open;
use crate::redis_promises::connection;
use crate::suite::success;
use crate::support::redis_server::RedisServer;

/// A server that keeps nothing on the disk, where others do; and a connection to it.
async fn start() -> Option<(RedisServer, Connection)> {
    let server = RedisServer::start().await?;
    let mut connection = connection(&server);
    redis::cmd("CONFIG").arg("SET").arg("appendonly").arg("no").exec(&mut connection).unwrap();
    Some((server, connection))
}

/// How long the server has worked on scripts so far.
fn scripts_time(connection: &mut Connection) -> Duration {
    let information: String = redis::cmd("INFO").arg("commandstats").query(connection).unwrap();
    let line = information.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap_or_default();
    let time = line.split(',').find_map(|field| field.strip_prefix("usec=")).unwrap_or("0");
    Duration::from_micros(time.parse().unwrap())
}

async fn report(writer: &ResultWriter, group_id: &str, members: std::ops::Range<i64>) -> Vec<ChordClaim> {
    let reported = members
        .map(|member| writer.store_with_part(Some(success(&format!("m{member}"), member)), &part(group_id, member)));
    let progress = join_all(reported).await.into_iter().map(Result::unwrap);
    let claims = progress.filter_map(|progress| match progress {
        ChordProgress::Complete(claim) => Some(claim),
        _ => None,
    });
    claims.collect()
}

#[tokio::test]
async fn a_large_chord_costs_the_same_for_each_member() {
    let Some((server, mut connection)) = start().await else { return };
    let members: i64 = std::env::var("CELERIAC_CHORD_MEMBERS").map_or(20_000, |members| members.parse().unwrap());
    let backend = open(&server.url(0), &BackendOptions::default());
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    chords(&backend).start_chord("g", members as u64).await.unwrap();
    let tenth = members / 10;
    let (mut claims, mut costs, began) = (Vec::new(), Vec::new(), Instant::now());
    for number in 0..10 {
        let before = scripts_time(&mut connection);
        let last = if number == 9 { members } else { (number + 1) * tenth };
        claims.extend(report(&writer, "g", number * tenth..last).await);
        costs.push(scripts_time(&mut connection) - before);
    }
    let reported = began.elapsed();
    println!("{members} members reported in {reported:?}; the server's time for each tenth: {costs:?}");
    assert_eq!(claims.len(), 1);
    // Others' work on the machine only ever adds.
    let least = |costs: &[Duration]| costs.iter().min().copied().unwrap();
    assert!(least(&costs[7..]) < least(&costs[..3]) * 5, "{costs:?}");

    let began = Instant::now();
    let ChordOutcome::Results(results) = chords(&backend).claimed(&claims[0]).await.unwrap() else {
        panic!("it failed")
    };
    println!("{} results read in {:?}", results.len(), began.elapsed());
    assert!(results.iter().enumerate().all(|(at, result)| result.as_i64() == Some(at as i64 * 10)));
    let began = Instant::now();
    assert!(chords(&backend).complete_chord(&claims[0]).await.unwrap());
    println!("completed in {:?}", began.elapsed());
}

#[tokio::test]
async fn small_chords_go_side_by_side() {
    let Some((server, _)) = start().await else { return };
    let backend = open(&server.url(0), &BackendOptions::default());
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    const CHORDS: i64 = 200;
    for number in 0..CHORDS {
        chords(&backend).start_chord(&format!("g{number}"), 50).await.unwrap();
    }
    let began = Instant::now();
    let groups: Vec<String> = (0..CHORDS).map(|number| format!("g{number}")).collect();
    let claims = join_all(groups.iter().map(|group| report(&writer, group, 0..50))).await;
    println!("{} members of {CHORDS} chords reported in {:?}", CHORDS * 50, began.elapsed());
    assert!(claims.iter().all(|claims| claims.len() == 1));
}
