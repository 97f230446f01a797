//! Several beats on one schedule send each run once, whatever becomes of them and of Redis.
//!
//! The beats are processes of their own, killed and paused from outside; what they sent is written down here, as it
//! comes.

#[path = "beat/claims.rs"]
mod claims;
#[path = "beat/crowd.rs"]
mod crowd;
#[path = "beat/fleet.rs"]
mod fleet;
mod support;

use std::time::Duration;

use fleet::{Fleet, Plan};
use rustix::process::Signal;

const SECOND: Duration = Duration::from_secs(1);

/// What a beat of these tests is: started by [`Fleet`] with its plan in the environment.
#[tokio::test]
#[ignore = "a process that the other tests start"]
async fn one_of_several_beats() {
    fleet::run_one().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_ticks_while_the_leader_is_killed_again_and_again() {
    let plan = Plan { every: Duration::from_millis(50), lease: Duration::from_millis(600) };
    killed_again_and_again(plan, 500, 2 * SECOND).await;
}

/// The same at the pace of a real schedule: `cargo test --test beat -- --ignored for_ten_minutes --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten to fifteen minutes"]
async fn for_ten_minutes_while_the_leader_is_killed_again_and_again() {
    killed_again_and_again(Plan { every: SECOND, lease: 5 * SECOND }, 500, 7 * SECOND).await;
}

async fn killed_again_and_again(plan: Plan, ticks: usize, between: Duration) {
    let Some(mut fleet) = Fleet::start(plan, 3).await else { return };
    let mut kills = 0;
    while fleet.count() < ticks {
        fleet.more_until(ticks, between).await;
        fleet.signal_leader(Signal::KILL).await;
        fleet.start_missing();
        kills += 1;
    }
    // The last one is followed, too.
    fleet.more(1).await;
    let sent = fleet.end().await;
    println!("{} ticks, the leader killed {kills} times: none twice, the longest gap {:?}", sent.count, sent.gap);
    assert!(kills >= 5, "{kills}");
    // It is the lease and a little more; but a slow machine may let one of these processes wait.
    assert!(sent.gap <= plan.lease + 10 * SECOND, "{:?}", sent.gap);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_for_longer_than_its_lease_sends_nothing_late() {
    let plan = Plan { every: Duration::from_millis(50), lease: Duration::from_millis(600) };
    let Some(mut fleet) = Fleet::start(plan, 2).await else { return };
    for _ in 0..4 {
        fleet.more(20).await;
        let paused = fleet.signal_leader(Signal::STOP).await;
        fleet.another_leads(paused).await;
        fleet.more(20).await;
        fleet.signal(paused, Signal::CONT);
    }
    fleet.more(20).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stops_hands_over_at_once() {
    let plan = Plan { every: Duration::from_millis(100), lease: 60 * SECOND };
    let Some(mut fleet) = Fleet::start(plan, 2).await else { return };
    fleet.more(5).await;
    let stopped = fleet.signal_leader(Signal::TERM).await;
    fleet.another_leads(stopped).await;
    fleet.more(5).await;
    let sent = fleet.end().await;
    println!("the longest gap {:?}", sent.gap);
    assert!(sent.gap < plan.lease, "{:?}", sent.gap);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_started_is_returned_to_and_nothing_is_sent_twice() {
    let plan = Plan { every: Duration::from_millis(50), lease: SECOND };
    let Some(mut fleet) = Fleet::start(plan, 3).await else { return };
    for _ in 0..2 {
        fleet.more(20).await;
        fleet.restart_redis().await;
    }
    fleet.more(20).await;
    fleet.end().await;
}
