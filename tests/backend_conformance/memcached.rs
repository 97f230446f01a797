//! What results in a memcached promise beside what all do.

use std::time::Duration;

use celeriac::ErrorKind;
use celeriac::backend::{
    BackendOptions, CacheOptions, ChordOutcome, ChordProgress, ResultWriter, StoreRequest, Until, WriterOptions,
};
use celeriac::protocol::{ResultTuple, Value};
use rustix::process::Signal;
use tokio::time::{Instant, timeout};

use crate::chords::{chords, claim, part, results};
use crate::django_promises::{header, report, succeed};
use crate::open;
use crate::suite::{meta, success};
use crate::support::memcached_server::MemcachedServer;
use crate::support::proxy::Proxy;
use crate::support::{LONG, eventually, free_port};

fn with_text(task_id: &str, text: String) -> StoreRequest {
    let mut request = success(task_id, 0);
    request.meta.result = Value::from(text).into();
    request
}

fn options(result_expires: u64) -> BackendOptions {
    BackendOptions { result_expires: Some(Duration::from_secs(result_expires)), ..BackendOptions::default() }
}

/// What a stock client finds: Celery's keys, bytes with the flags 0.
#[tokio::test]
async fn results_and_groups_are_where_celery_looks_for_them() {
    let Some(server) = MemcachedServer::start().await else { return };
    let prefixed = BackendOptions { global_keyprefix: "shop".into(), ..BackendOptions::default() };
    for (options, prefix) in [(BackendOptions::default(), ""), (prefixed, "shop_")] {
        let backend = open(&server.url(), &options);
        backend.store(&[success("an-id", 3)]).await.unwrap();
        chords(&backend).save_header(&header(1)).await.unwrap();
        let stored = server.asked(&format!("get {prefix}celery-task-meta-an-id"));
        assert!(stored.starts_with(&format!("VALUE {prefix}celery-task-meta-an-id 0 ")), "{stored}");
        assert!(stored.contains(r#""status": "SUCCESS", "result": 3"#), "{stored}");
        let group = server.asked(&format!("get {prefix}celery-taskset-meta-g"));
        assert!(group.contains(r#"{"result": [["g", null], [[["m0", null], null]]]}"#), "{group}");
        let number = server.asked(&format!("get {prefix}chord-unlock-g"));
        assert_eq!(number, format!("VALUE {prefix}chord-unlock-g 0 1\r\n0\r\nEND\r\n"));
    }
}

/// Celery hands memcached more than thirty days as they are, and such results are gone at once.
#[tokio::test]
async fn results_expire_when_they_should_and_not_before() {
    let Some(server) = MemcachedServer::start().await else { return };
    for (task_id, expires, left) in [("a", 60, 60), ("b", 40 * 86_400, 40 * 86_400), ("c", 0, -1)] {
        let backend = open(&server.url(), &options(expires));
        backend.store(&[success(task_id, 1)]).await.unwrap();
        assert!(backend.fetch(task_id).await.unwrap().is_some(), "{task_id}");
        let told = server.asked(&format!("mg celery-task-meta-{task_id} t"));
        let told: i64 = told.trim_start_matches("HD t").trim().parse().expect("seconds");
        // Its clock ticks once a second.
        assert!((left - 5..=left + 2).contains(&told), "{task_id}: {told}");
    }
}

#[tokio::test]
async fn a_key_that_memcached_would_not_take_is_refused_before_anything_is_sent() {
    let Some(server) = MemcachedServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    backend.store(&[success("a", 1)]).await.unwrap();
    for task_id in ["a b", "a\r\nflush_all", "ä", &"x".repeat(240)] {
        let error = backend.store(&[success("b", 1), success(task_id, 1)]).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Backend && error.to_string().contains("takes no key"), "{error}");
        assert_eq!(backend.fetch(task_id).await.unwrap(), None);
        backend.forget(task_id).await.unwrap();
        assert!(chords(&backend).encode_part(&part(task_id, 0)).is_err());
        assert!(backend.save_group(&ResultTuple::group(task_id, Vec::new())).await.is_err());
        assert_eq!(backend.restore_group(task_id).await.unwrap(), None);
    }
    assert_eq!(backend.fetch_many(&["a", "a b", "b"]).await.unwrap().iter().flatten().count(), 1);
}

#[tokio::test]
async fn what_is_too_large_is_an_error_of_its_own_and_no_others() {
    let Some(server) = MemcachedServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    let requests = [success("a", 1), with_text("large", "x".repeat(2 << 20)), success("b", 2)];
    let [before, large, after] = requests.map(|request| writer.store(request));
    let error = large.await.unwrap_err();
    assert!(error.kind() == ErrorKind::Encode && error.to_string().contains("too large"), "{error}");
    before.await.unwrap();
    after.await.unwrap();
    assert_eq!(backend.fetch_many(&["a", "large", "b"]).await.unwrap().iter().flatten().count(), 2);
    writer.store(with_text("fits", "x".repeat(900 << 10))).await.unwrap();
    assert!(backend.fetch("fits").await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_stored_while_the_server_is_away_is_there_when_it_is_back() {
    let Some(mut server) = MemcachedServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    writer.store(success("before", 1)).await.unwrap();
    server.stop();
    let error = backend.store(&[success("lost", 1)]).await.unwrap_err();
    assert!(error.is_connection() && error.to_string().contains("memcached://127.0.0.1:"), "{error}");
    let waiting = tokio::spawn(writer.store(success("meanwhile", 2)));
    let wanted = backend.clone();
    let found = tokio::spawn(async move { wanted.wait_many(&["meanwhile"], Until::AllReady, Some(LONG)).await });
    server.start_again().await;
    timeout(LONG, waiting).await.expect("in time").unwrap().unwrap();
    assert!(found.await.unwrap().unwrap()[0].is_some());
    writer.store(success("after", 3)).await.unwrap();
}

/// What each of the server's threads does, as in `ps`: a signal reaches one after the other.
fn threads(server: &MemcachedServer) -> Vec<char> {
    let folder = format!("/proc/{}/task", server.process().id());
    let stats = std::fs::read_dir(folder).unwrap().map(|thread| thread.unwrap().path().join("stat"));
    let state = |stat: String| stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    stats.map(|stat| state(std::fs::read_to_string(stat).unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let Some(server) = MemcachedServer::start().await else { return };
    let short = Some(Duration::from_secs(2));
    let cache = CacheOptions { timeout: short, connect_timeout: short, ..CacheOptions::default() };
    let backend = open(&server.url(), &BackendOptions { cache, ..BackendOptions::default() });
    backend.store(&[success("a", 1)]).await.unwrap();
    server.process().signal(Signal::STOP);
    eventually("all of its threads stand still", || async { threads(&server).iter().all(|state| *state == 'T') }).await;
    let began = Instant::now();
    let error = backend.store(&[success("b", 1)]).await.unwrap_err();
    assert!(error.is_connection() && error.to_string().contains("no answer within 2 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
    server.process().signal(Signal::CONT);
    backend.store(&[success("b", 1)]).await.unwrap();
    let nobody = open(&format!("cache+memcached://127.0.0.1:{}/", free_port()), &BackendOptions::default());
    assert!(nobody.fetch("a").await.unwrap_err().is_connection());
}

/// A stock worker adds one, and is told what comes of it.
fn counted_by_stock(server: &MemcachedServer) -> u64 {
    server.asked("incr chord-unlock-g 1").trim().parse().expect("a number")
}

#[tokio::test]
async fn stock_workers_count_in_the_same_number_and_each_completes_what_the_other_began() {
    let Some(server) = MemcachedServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    chords(&backend).save_header(&header(3)).await.unwrap();
    assert_eq!(succeed(&backend, 0).await, ChordProgress::Waiting);
    backend.store(&[success("m1", 10)]).await.unwrap();
    assert_eq!(counted_by_stock(&server), 2);
    let claimed = claim(succeed(&backend, 2).await);
    assert_eq!(results(chords(&backend).claimed(&claimed).await.unwrap()), [0, 10, 20]);
    // A copy that a stock worker has counted meanwhile takes no claim away, and is more than there are.
    assert!(counted_by_stock(&server) > 3);
    assert!(chords(&backend).extend_claim(&claimed, LONG).await.unwrap());
    assert!(chords(&backend).complete_chord(&claimed).await.unwrap());
    assert!(counted_by_stock(&server) > 3);
    assert!(server.asked("get celery-taskset-meta-g").starts_with("VALUE"), "a stock worker would fail the body");
    assert_eq!(succeed(&backend, 2).await, ChordProgress::Late);
    // It is announced once more, and a stock worker completes it.
    chords(&backend).save_header(&header(3)).await.unwrap();
    for expected in 1..=3 {
        assert_eq!(counted_by_stock(&server), expected);
    }
    assert!(matches!(succeed(&backend, 1).await, ChordProgress::Busy(_)), "it publishes the body now");
    server.asked("delete chord-unlock-g");
    server.asked("delete celery-taskset-meta-g");
    assert_eq!(succeed(&backend, 1).await, ChordProgress::Late);
}

#[tokio::test]
async fn a_chord_that_memcached_has_thrown_out_fails_and_its_number_alone_is_made_up_for() {
    let Some(server) = MemcachedServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    chords(&backend).save_header(&header(2)).await.unwrap();
    assert_eq!(succeed(&backend, 0).await, ChordProgress::Waiting);
    server.asked("delete chord-unlock-g");
    let claimed = claim(succeed(&backend, 1).await);
    assert_eq!(results(chords(&backend).claimed(&claimed).await.unwrap()), [0, 10]);
    assert_eq!(server.asked("flush_all"), "OK\r\n");
    assert!(matches!(succeed(&backend, 0).await, ChordProgress::Busy(_)), "who has the claim finds out");
    assert_eq!(server.asked("flush_all"), "OK\r\n");
    let backend = open(&server.url(), &BackendOptions::default());
    let claimed = claim(succeed(&backend, 0).await);
    let ChordOutcome::Failed(failure) = chords(&backend).claimed(&claimed).await.unwrap() else { panic!("it is gone") };
    assert_eq!(failure.message, "GroupResult g no longer exists");
    chords(&backend).fail_chord("g").await.unwrap();
    assert_eq!(succeed(&backend, 1).await, ChordProgress::Late, "it fails once");
}

/// The end of a chord is said in four steps: the number is read and written, the header read, the rest told when to expire.
#[tokio::test]
async fn a_chord_is_completed_though_any_answer_is_lost() {
    let Some(server) = MemcachedServer::start().await else { return };
    let proxy = Proxy::start(server.port()).await;
    let cache = CacheOptions { timeout: Some(Duration::from_secs(2)), ..CacheOptions::default() };
    let kept = BackendOptions { chord_expires: Some(Duration::from_secs(1000)), cache, ..options(50) };
    for lost in 0..4 {
        let backend = open(&format!("cache+memcached://127.0.0.1:{}/", proxy.port()), &kept);
        chords(&backend).save_header(&header(1)).await.unwrap();
        let claimed = claim(succeed(&backend, 0).await);
        proxy.mute_after(lost);
        let error = chords(&backend).complete_chord(&claimed).await.unwrap_err();
        assert!(error.is_connection(), "{lost}: {error}");
        proxy.mute(false);
        assert!(chords(&backend).complete_chord(&claimed).await.unwrap(), "{lost}");
        assert!(!chords(&backend).complete_chord(&claimed).await.unwrap(), "{lost}: it is over");
        assert_eq!(succeed(&backend, 0).await, ChordProgress::Late);
        assert_eq!(server.asked("flush_all"), "OK\r\n");
    }
}

#[tokio::test]
async fn a_chord_whose_results_cannot_be_read_has_not_failed() {
    let Some(server) = MemcachedServer::start().await else { return };
    let proxy = Proxy::start(server.port()).await;
    let cache = CacheOptions { timeout: Some(Duration::from_secs(2)), ..CacheOptions::default() };
    let url = format!("cache+memcached://127.0.0.1:{}/", proxy.port());
    let backend = open(&url, &BackendOptions { cache, ..BackendOptions::default() });
    chords(&backend).save_header(&header(1)).await.unwrap();
    let claimed = claim(succeed(&backend, 0).await);
    // The header is read, and no more.
    proxy.mute_after(1);
    let error = chords(&backend).claimed(&claimed).await.unwrap_err();
    assert!(error.is_connection(), "{error}");
    proxy.mute(false);
    assert_eq!(results(chords(&backend).claimed(&claimed).await.unwrap()), [0]);
}

/// Its worker died between storing its result and counting it, and a stock worker's members are the last.
#[tokio::test]
async fn a_copy_that_nobody_has_counted_completes_its_chord() {
    let Some(server) = MemcachedServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    chords(&backend).save_header(&header(2)).await.unwrap();
    backend.store(&[success("m0", 0)]).await.unwrap();
    let copy = tokio::spawn(writer.store_with_part(Some(success("m0", 0)), &part("g", 0)));
    eventually("there is a doubt", || async { server.asked("get chord-unlock-g.doubts").starts_with("VALUE") }).await;
    backend.store(&[success("m1", 10)]).await.unwrap();
    assert_eq!(counted_by_stock(&server), 1);
    let claimed = claim(timeout(LONG, copy).await.expect("in time").unwrap().unwrap());
    assert_eq!(results(chords(&backend).claimed(&claimed).await.unwrap()), [0, 10]);
}

#[tokio::test]
async fn a_copy_whose_batch_fails_is_still_one_when_it_comes_again() {
    let Some(server) = MemcachedServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    chords(&backend).save_header(&header(3)).await.unwrap();
    assert_eq!(report(&backend, meta("m0", "FAILURE", 0), 0).await, ChordProgress::Waiting);
    let again = chords(&backend).encode_part(&part("g", 0)).unwrap();
    let results = [success("m0", 0), with_text("large", "x".repeat(2 << 20))].map(|one| backend.encode(&one).unwrap());
    let error = chords(&backend).store_with_parts(&results, std::slice::from_ref(&again)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    let counted = chords(&backend).store_with_parts(&results[..1], &[again]).await.unwrap().remove(0);
    assert_eq!(counted.unwrap(), ChordProgress::Waiting);
    assert!(server.asked("get chord-unlock-g").contains("\r\n1\r\n"));
}

/// Stores values as large as a chord's number until there is no room for another, or deletes them.
fn fill(server: &MemcachedServer, is_full: bool) {
    for thousand in 0..100 {
        let line = |number: usize| match is_full {
            true => format!("set filler-{number:012} 0 0 1\r\n0"),
            false => format!("delete filler-{number:012}"),
        };
        let lines: Vec<String> = (thousand * 1000..(thousand + 1) * 1000).map(line).collect();
        let answers = server.asked(&lines.join("\r\n"));
        if answers.contains(if is_full { "SERVER_ERROR out of memory" } else { "NOT_FOUND" }) {
            return;
        }
    }
    panic!("it takes more than there is room for");
}

#[tokio::test]
async fn what_a_full_server_does_not_count_is_counted_once_when_there_is_room() {
    let Some(server) = MemcachedServer::start_with(&["-m", "2", "-M"]).await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    // Its number is of another size than those of the other chord, and still finds room.
    let long = "long".repeat(20);
    chords(&backend).save_header(&header(3)).await.unwrap();
    chords(&backend).save_header(&ResultTuple { id: long.clone(), ..header(3) }).await.unwrap();
    backend.store(&[success("m0", 0)]).await.unwrap();
    let encode = |part| chords(&backend).encode_part(&part).unwrap();
    // A copy, which is a doubt, and two members of which the other has been counted when the batch comes again.
    for (result, parts, is_doubt) in [
        (success("m0", 0), vec![encode(part("g", 0))], true),
        (success("m1", 10), vec![encode(part("g", 1)), encode(part(&long, 0))], false),
    ] {
        let results = [backend.encode(&result).unwrap()];
        fill(&server, true);
        let error = chords(&backend).store_with_parts(&results, &parts).await.unwrap_err();
        assert!(
            error.can_pass() && error.to_string().contains("refused to count the chord g: out of memory"),
            "{error}"
        );
        fill(&server, false);
        for progress in chords(&backend).store_with_parts(&results, &parts).await.unwrap() {
            let progress = progress.unwrap();
            assert!(if is_doubt {
                matches!(progress, ChordProgress::Busy(_))
            } else {
                progress == ChordProgress::Waiting
            });
        }
    }
    for (chord, number) in [("g", 1), (&long, 1)] {
        let stored = server.asked(&format!("get chord-unlock-{chord}"));
        assert!(stored.contains(&format!("\r\n{number}\r\n")), "{stored}");
    }
    let claimed = claim(succeed(&backend, 2).await);
    assert_eq!(results(chords(&backend).claimed(&claimed).await.unwrap()), [0, 10, 20]);
}

#[tokio::test]
async fn more_is_looked_for_at_once_than_the_sockets_hold() {
    let Some(server) = MemcachedServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    let ids: Vec<String> = (0..20_000).map(|number| format!("{number:036}")).collect();
    for ids in ids.chunks(1000) {
        let requests: Vec<StoreRequest> = ids.iter().map(|id| with_text(id, "x".repeat(400))).collect();
        backend.store(&requests).await.unwrap();
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let found = timeout(LONG, backend.fetch_many(&ids)).await.expect("in time").unwrap();
    assert!(found.iter().flatten().map(|meta| meta.task_id.as_str()).eq(ids.iter().copied()));
}

/// `result_chord_expires` beyond `result_expires` keeps what the last member will need.
#[tokio::test]
async fn the_results_of_a_chord_are_kept_until_it_is_done() {
    let Some(server) = MemcachedServer::start().await else { return };
    let kept = BackendOptions { chord_expires: Some(Duration::from_secs(1000)), ..options(50) };
    let backend = open(&server.url(), &kept);
    chords(&backend).save_header(&header(2)).await.unwrap();
    assert_eq!(succeed(&backend, 0).await, ChordProgress::Waiting);
    let left = |key: &str| {
        let told = server.asked(&format!("mg {key} t"));
        told.trim_start_matches("HD t").trim().parse::<i64>().expect("seconds")
    };
    for key in ["celery-task-meta-m0", "celery-taskset-meta-g", "chord-unlock-g"] {
        assert!(left(key) > 900, "{key}");
    }
    let claimed = claim(succeed(&backend, 1).await);
    assert!(chords(&backend).complete_chord(&claimed).await.unwrap());
    assert!(left("celery-task-meta-m0") <= 50);
    assert!(left("chord-unlock-g") > left("celery-taskset-meta-g"), "a header alone would be a chord that is not over");
}
