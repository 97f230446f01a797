//! What a leader leaves behind that is killed between deciding and sending.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::beat::{Beat, Entry, Kept, Lead, RedisStore, RedisStoreOptions, Run, Scheduler, Sender, Sending};
use celeriac::beat::{SharedStore, Unsent};
use celeriac::protocol::{Signature, Value, envelope};
use celeriac::redis_client::{RedisUrl, UrlPolicy};
use celeriac::schedule::{Interval, Rules};
use celeriac::time::Clock;
use celeriac::{App, Result};
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::support::eventually;
use crate::support::redis_server::RedisServer;

/// No lease is over by itself in the time that a test has.
const LEASE: Duration = Duration::from_secs(3600);

fn store(redis: &RedisServer) -> RedisStore {
    let options = RedisStoreOptions { lease: LEASE, ..RedisStoreOptions::default() };
    RedisStore::new(RedisUrl::parse(&redis.url(0), UrlPolicy::Broker).unwrap(), &options)
}

fn signature() -> Signature {
    let mut signature = Signature::new("shop.bill");
    signature.options.insert("task_id", "the-id");
    signature.options.insert("queue", "bills");
    signature.kwargs.insert("amount", Value::from(3));
    signature
}

fn decided() -> (Sending, Unsent) {
    let (name, signature, run) = ("bill".to_owned(), signature(), Run { last_run_at: now(), total_run_count: 7 });
    let unsent = Unsent { id: "a-claim".to_owned(), name: name.clone(), signature: signature.clone() };
    (Sending { name, signature, run, before: run }, unsent)
}

fn now() -> jiff::Timestamp {
    Clock::system().now()
}

/// Ends the lease as its time would; that it has one is asserted.
async fn lapse(redis: &RedisServer) {
    let (mut connection, key) = (redis.connection().await, format!("{}lease", RedisStoreOptions::default().key_prefix));
    let rest: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
    assert!(rest > 0 && Duration::from_millis(rest.unsigned_abs()) <= LEASE, "{rest}");
    let ended: bool = redis::cmd("PEXPIRE").arg(&key).arg(0).query_async(&mut connection).await.unwrap();
    assert!(ended);
}

/// Runs a beat whose one entry is not due for long, until `done`.
async fn run_until<F: Future<Output = bool>>(redis: &RedisServer, sender: impl Sender + 'static, done: impl Fn() -> F) {
    let clock = Clock::system();
    let day = Interval::new(SignedDuration::from_hours(24)).into();
    let entry = Entry { name: "bill".to_owned(), schedule: day, signature: signature() };
    let scheduler = Scheduler::new(vec![entry], Kept::new(), Rules::default(), Duration::from_secs(300), clock.now());
    let stop = CancellationToken::new();
    let beat = tokio::spawn(Beat::new(scheduler, store(redis), sender, clock).run(stop.clone()));
    eventually("it is done", done).await;
    stop.cancel();
    beat.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_leads_no_more_can_claim_nothing() {
    let Some(redis) = RedisServer::start().await else { return };
    let (mut first, mut second) = (store(&redis), store(&redis));
    let (sending, unsent) = decided();
    assert_eq!(first.lead().await.unwrap(), Lead::Own(1));
    assert!(matches!(second.lead().await.unwrap(), Lead::Another(_)));
    assert!(first.begin(&Kept::new()).await.unwrap());
    assert!(first.claim(&sending, &unsent).await.unwrap());
    // The first sleeps, and wakes up too late.
    lapse(&redis).await;
    assert_eq!(second.lead().await.unwrap(), Lead::Own(2));
    let late = Sending { run: sending.run, name: "other".to_owned(), ..sending.clone() };
    assert!(!first.claim(&late, &unsent).await.unwrap());
    assert!(!first.begin(&Kept::new()).await.unwrap());
    first.release().await.unwrap();
    assert_eq!(second.lead().await.unwrap(), Lead::Own(2));
    let found = second.find().await.unwrap();
    assert_eq!(found.kept, Kept::from([("bill".to_owned(), sending.run)]));
    assert_eq!(found.unsent, [unsent]);
}

/// Broker and store are one Redis: whoever is first sends it, and the other, though it began before, does not.
#[tokio::test]
async fn what_a_killed_leader_claimed_is_sent_once_by_the_next() {
    let Some(redis) = RedisServer::start().await else { return };
    let mut app = App::new("beats");
    app.config_mut().broker_url = Some(redis.url(0));
    let (sending, unsent) = decided();
    let mut killed = store(&redis);
    assert_eq!(killed.lead().await.unwrap(), Lead::Own(1));
    assert!(killed.claim(&sending, &unsent).await.unwrap());
    lapse(&redis).await;
    let queue = || async {
        let mut connection = redis.connection().await;
        redis::cmd("LRANGE").arg("bills").arg(0).arg(-1).query_async::<Vec<Vec<u8>>>(&mut connection).await.unwrap()
    };
    run_until(&redis, app.producer().unwrap(), || async { !queue().await.is_empty() }).await;
    // It was not killed after all, only asleep.
    let (server, claim) = killed.claim_of(&unsent).unwrap();
    assert!(app.producer().unwrap().send_claimed(signature(), &server, claim).await.unwrap());
    let messages = queue().await;
    assert_eq!(messages.len(), 1);
    let message = envelope::parse(&messages[0]).unwrap();
    assert_eq!(message.headers.get("id").and_then(Value::as_str), Some("the-id"));
    // The run was kept with the claim, and so it is not due again.
    assert_eq!(store(&redis).find().await.unwrap().kept["bill"], sending.run);
}

/// The broker is another.
#[tokio::test]
async fn what_a_killed_leader_claimed_is_sent_with_the_id_that_it_had() {
    struct Elsewhere(Arc<Mutex<Vec<Signature>>>);

    #[celeriac::async_trait]
    impl Sender for Elsewhere {
        async fn send(&mut self, signature: Signature) -> Result<String> {
            self.0.lock().unwrap().push(signature);
            Ok("the-id".to_owned())
        }
    }

    let Some(redis) = RedisServer::start().await else { return };
    let (sending, unsent) = decided();
    let mut killed = store(&redis);
    assert_eq!(killed.lead().await.unwrap(), Lead::Own(1));
    assert!(killed.claim(&sending, &unsent).await.unwrap());
    lapse(&redis).await;
    let sent = Arc::new(Mutex::new(Vec::new()));
    let settled = || async { store(&redis).find().await.unwrap().unsent.is_empty() };
    run_until(&redis, Elsewhere(Arc::clone(&sent)), settled).await;
    assert_eq!(*sent.lock().unwrap(), [signature()]);
}
