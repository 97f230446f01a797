//! What results in Redis promise to stock Celery, and when Redis goes away.

use std::time::Duration;

use celeriac::ErrorKind;
use celeriac::backend::{BackendOptions, ChordPart, ChordProgress, ResultWriter, WriterOptions};
use celeriac::protocol::{Exception, MetaResult, State, Value};
use redis::{Commands, Connection};
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::chords::{self, count_one, part};
use crate::open;
use crate::suite::{meta, success};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::{LONG, at_last};

/// A connection of the test's own.
pub(crate) fn connection(server: &RedisServer) -> Connection {
    redis::Client::open(format!("redis+unix://{}", server.socket().display())).unwrap().get_connection().unwrap()
}

/// Deletes everything.
pub(crate) fn flush(server: &RedisServer) {
    redis::cmd("FLUSHALL").exec(&mut connection(server)).unwrap();
}

async fn restart(server: &mut RedisServer) {
    server.stop();
    server.start_again().await;
}

fn text(connection: &mut Connection, key: &str) -> String {
    connection.get::<_, Option<String>>(key).unwrap().unwrap_or_default()
}

/// A number of `INFO`, such as how often a command was called.
fn calls(connection: &mut Connection, command: &str) -> u64 {
    let information: String = redis::cmd("INFO").arg("commandstats").query(connection).unwrap();
    let line = information.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}

async fn until_subscribed(connection: &mut Connection, channel: &str) {
    let subscribed = |connection: &mut Connection| {
        let counts: (String, u64) = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).query(connection).unwrap();
        counts.1 > 0
    };
    while !subscribed(connection) {
        yield_now().await;
    }
}

#[tokio::test]
async fn keys_and_bytes_are_celerys() {
    let Some(server) = RedisServer::start().await else { return };
    let mut connection = connection(&server);
    let mut request = success("an-id", 3);
    request.meta.children = Some(Vec::new());
    request.meta.date_done = Some("2026-11-22T16:08:16.252716+00:00".parse().unwrap());
    let captured = r#"{"status": "SUCCESS", "result": 3, "traceback": null, "children": [], "date_done": "2026-11-22T16:08:16.252716+00:00", "task_id": "an-id"}"#;
    for (global_keyprefix, key) in
        [("", "celery-task-meta-an-id"), ("shop", "shop_celery-task-meta-an-id"), ("s:", "s:celery-task-meta-an-id")]
    {
        let options = BackendOptions { global_keyprefix: global_keyprefix.into(), ..BackendOptions::default() };
        open(&server.url(0), &options).store(std::slice::from_ref(&request)).await.unwrap();
        assert_eq!(text(&mut connection, key), captured);
    }
}

#[tokio::test]
async fn results_expire_as_the_settings_say() {
    let Some(server) = RedisServer::start().await else { return };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let rows = [
        (seconds(86_400), None, 86_400, 86_400),
        (seconds(60), seconds(5), 60, 5),
        (seconds(60), seconds(0), 60, -1),
        (None, None, -1, -1),
        (seconds(0), seconds(7), -1, 7),
    ];
    for (row, (result_expires, result_failure_expires, results, failures)) in rows.into_iter().enumerate() {
        let options = BackendOptions { result_expires, result_failure_expires, ..BackendOptions::default() };
        let backend = open(&server.url(0), &options);
        let [result, failure] = [format!("result-{row}"), format!("failure-{row}")];
        backend.store(&[meta(&result, "STARTED", 1), meta(&failure, "STARTED", 1)]).await.unwrap();
        backend.store(&[success(&result, 1), meta(&failure, "FAILURE", 1)]).await.unwrap();
        for (task_id, expected) in [(result, results), (failure, failures)] {
            let ttl: i64 = connection(&server).ttl(format!("celery-task-meta-{task_id}")).unwrap();
            assert!(ttl <= expected && ttl >= expected - 2, "row {row}, {task_id}: {ttl}");
        }
    }
}

#[tokio::test]
async fn what_is_stored_is_published_and_what_is_not_is_not() {
    let Some(server) = RedisServer::start().await else { return };
    for options in crate::forms() {
        flush(&server);
        let backend = open(&server.url(0), &options);
        let mut subscriber = connection(&server);
        subscriber.set_read_timeout(Some(LONG)).unwrap();
        let mut subscriber = subscriber.as_pubsub();
        subscriber.subscribe(&["celery-task-meta-a", "celery-task-meta-b"]).unwrap();
        let states = ["STARTED", "FAILURE", "STARTED", "SUCCESS", "FAILURE"];
        let batch: Vec<_> = states.iter().zip(1..).map(|(state, number)| meta("a", state, number)).collect();
        backend.store(&batch).await.unwrap();
        backend.store(&[success("b", 9)]).await.unwrap();
        for (state, number) in [("STARTED", 1), ("FAILURE", 2), ("SUCCESS", 4)] {
            let payload: Vec<u8> = subscriber.get_message().unwrap().get_payload().unwrap();
            assert_eq!(payload, backend.encode(&meta("a", state, number)).unwrap().payload);
        }
        let last = subscriber.get_message().unwrap();
        assert_eq!(last.get_channel_name(), "celery-task-meta-b");
        let stored: Vec<u8> = connection(&server).get("celery-task-meta-b").unwrap();
        assert_eq!(last.get_payload::<Vec<u8>>().unwrap(), stored);
    }
}

#[tokio::test]
async fn what_stock_workers_stored_is_read_and_kept() {
    let Some(server) = RedisServer::start().await else { return };
    let backend = open(&server.url(0), &BackendOptions::default());
    let failure = MetaResult::Exception(Exception::with_args("TimeLimitExceeded", "billiard.exceptions", [1]));
    let two = MetaResult::Value(Value::Int(2));
    let rows: [(&str, State, MetaResult, bool); 7] = [
        (
            r#"{"status": "SUCCESS", "result": 2, "traceback": null, "children": [[["c", null], null]], "date_done": "2026-11-22T16:08:16.252716+00:00", "group_id": "g", "parent_id": "p", "name": "t", "args": [1], "kwargs": {}, "worker": "w@h", "retries": 0, "queue": "celery", "task_id": "t"}"#,
            State::Success,
            two.clone(),
            true,
        ),
        (r#"{"task_id":"t","date_done":null,"result":2,"status":"SUCCESS"}"#, State::Success, two.clone(), true),
        (
            "{\n \"result\": {\"status\": \"FAILURE\"},\n \"status\" : \"\\u0053UCCESS\" }",
            State::Success,
            MetaResult::Value(Value::Map([("status", "FAILURE")].into_iter().collect())),
            true,
        ),
        (
            r#"{"status": "FAILURE", "result": {"exc_type": "TimeLimitExceeded", "exc_message": [1], "exc_module": "billiard.exceptions"}, "traceback": null, "children": null, "date_done": "2026-11-22T16:08:16.252716", "task_id": "t"}"#,
            State::Failure,
            failure,
            false,
        ),
        (
            r#"{"status": "STARTED", "result": {"pid": 7, "hostname": "w1@host"}, "traceback": null, "children": [], "date_done": null, "task_id": "t"}"#,
            State::Started,
            MetaResult::Value(Value::Map(
                [("pid", Value::Int(7)), ("hostname", Value::from("w1@host"))].into_iter().collect(),
            )),
            false,
        ),
        (r#"{"status": "SUCCESS-ISH", "result": 2}"#, State::Custom("SUCCESS-ISH".into()), two.clone(), false),
        ("\0celery-compressed\0application/x-gzip\0", State::Pending, two, false),
    ];
    for (row, (stored, state, result, is_kept)) in rows.into_iter().enumerate() {
        let key = format!("celery-task-meta-stock-{row}");
        let mut bytes = stored.as_bytes().to_vec();
        if state != State::Pending {
            connection(&server).set::<_, _, ()>(&key, &bytes).unwrap();
            let found = backend.fetch(&format!("stock-{row}")).await.unwrap().unwrap();
            assert_eq!((found.status, found.result), (state, result), "{stored}");
        } else {
            bytes.extend(b"cut off");
            connection(&server).set::<_, _, ()>(&key, &bytes).unwrap();
            assert_eq!(backend.fetch(&format!("stock-{row}")).await.unwrap_err().kind(), ErrorKind::Decode);
        }
        backend.store(&[meta(&format!("stock-{row}"), "FAILURE", 5)]).await.unwrap();
        let kept = connection(&server).get::<_, Vec<u8>>(&key).unwrap() == bytes;
        assert_eq!(kept, is_kept, "{stored}");
    }
}

#[tokio::test]
async fn whatever_stands_under_a_key_can_be_stored_over() {
    let Some(server) = RedisServer::start().await else { return };
    let mut connection = connection(&server);
    let backend = open(&server.url(0), &BackendOptions::default());
    let deep = "[".repeat(100_000);
    let json_too_deep = format!(r#"{{"x": {deep}"#);
    let strings =
        ["", "x", "{", "{}", "[]", "null", r#"{"status": 5}"#, r#"{"status": null}"#, "\u{80}\u{4}K", &json_too_deep];
    for (number, stored) in strings.iter().enumerate() {
        connection.set::<_, _, ()>(format!("celery-task-meta-odd-{number}"), stored).unwrap();
    }
    connection.rpush::<_, _, ()>("celery-task-meta-odd-list", "x").unwrap();
    let names = (0..strings.len()).map(|number| number.to_string()).chain(["list".to_owned()]);
    let odd_ids = ["h\u{e9}\u{0}\n\r", "{a}", "%s", "*", "id with spaces"].map(str::to_owned);
    let ids: Vec<String> = names.map(|name| format!("odd-{name}")).chain(odd_ids).chain(["x".repeat(5000)]).collect();
    let batch: Vec<_> = ids.iter().flat_map(|id| [meta(id, "STARTED", 1), success(id, 2)]).collect();
    backend.store(&batch).await.unwrap();
    for id in &ids {
        assert_eq!(backend.fetch(id).await.unwrap(), Some(success(id, 2).meta), "{id}");
    }
}

#[tokio::test]
async fn nothing_is_lost_when_redis_is_restarted_under_load() {
    let Some(mut server) = RedisServer::start().await else { return };
    let backend = open(&server.url(0), &BackendOptions::default());
    let writer = ResultWriter::start(backend.clone(), WriterOptions { batch_items: 50, ..WriterOptions::default() });
    let mut stored = Vec::new();
    for round in 0..5 {
        for number in 0..400 {
            let number = round * 400 + number;
            stored.push(writer.store(meta(&format!("r-{}", number % 300), "PROGRESS", number)));
        }
        stored.remove(0).await.unwrap();
        if round % 2 == 0 {
            restart(&mut server).await;
        } else {
            redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut connection(&server)).unwrap();
        }
    }
    for stored in stored {
        timeout(LONG, stored).await.expect("stored after the restart").unwrap();
    }
    for number in 0..300 {
        let last = if number < 200 { 1800 + number } else { 1500 + number };
        let expected = meta(&format!("r-{number}"), "PROGRESS", last).meta;
        assert_eq!(backend.fetch(&expected.task_id).await.unwrap(), Some(expected));
    }
    writer.stop().await;
}

#[tokio::test]
async fn a_backend_outlives_idle_connections_and_forgotten_scripts() {
    let Some(mut server) = RedisServer::start().await else { return };
    let backend = open(&server.url(0), &BackendOptions::default());
    backend.store(&[success("a", 1)]).await.unwrap();
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut connection(&server)).unwrap();
    assert!(backend.fetch("a").await.unwrap().is_some());
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection(&server)).unwrap();
    backend.store(&[success("b", 1)]).await.unwrap();
    restart(&mut server).await;
    backend.store(&[success("c", 1)]).await.unwrap();
    server.stop();
    let error = backend.store(&[success("d", 1)]).await.unwrap_err();
    assert!(error.is_connection(), "{error:?}");
    restart(&mut server).await;
    assert_eq!(backend.fetch_many(&["a", "b", "c", "d"]).await.unwrap().iter().flatten().count(), 3);
}

#[tokio::test]
async fn a_backend_that_is_prepared_stores_the_first_result_at_once() {
    let Some(mut server) = RedisServer::start().await else { return };
    let backend = open(&server.url(0), &BackendOptions::default());
    backend.prepare().await;
    let mut connection = connection(&server);
    let before = (calls(&mut connection, "script|load"), calls(&mut connection, "hello"));
    backend.store(&[success("a", 1)]).await.unwrap();
    assert_eq!(calls(&mut connection, "evalsha"), 1, "the script was there");
    let after = (calls(&mut connection, "script|load"), calls(&mut connection, "hello"));
    assert_eq!(after, before, "and so was the connection");
    server.stop();
    backend.prepare().await;
    restart(&mut server).await;
    backend.store(&[success("b", 1)]).await.unwrap();
}

#[tokio::test]
async fn waiting_does_not_poll() {
    let Some(server) = RedisServer::start().await else { return };
    let backend = open(&server.url(0), &BackendOptions::default());
    let mut connection = connection(&server);
    for round in 0..3 {
        let task_id = format!("w-{round}");
        let waiting = tokio::spawn({
            let (backend, task_id) = (backend.clone(), task_id.clone());
            async move { backend.wait(&task_id, None).await }
        });
        until_subscribed(&mut connection, &format!("celery-task-meta-{task_id}")).await;
        backend.store(&[meta(&task_id, "PROGRESS", 1), success(&task_id, 2)]).await.unwrap();
        let found = timeout(LONG, waiting).await.expect("woken").unwrap().unwrap();
        assert_eq!(found, Some(success(&task_id, 2).meta));
    }
    assert!(calls(&mut connection, "get") <= 6, "one look and one in the script's check for each");
    assert!(calls(&mut connection, "hello") <= 3, "one connection waits for all");
}

#[tokio::test]
async fn waiting_outlives_restarts_and_is_not_left_behind() {
    let Some(mut server) = RedisServer::start().await else { return };
    let backend = open(&server.url(0), &BackendOptions::default());
    let waiting: Vec<_> = (0..10)
        .map(|number| {
            let backend = backend.clone();
            tokio::spawn(async move { backend.wait(&format!("w-{number}"), None).await })
        })
        .collect();
    let channel = "celery-task-meta-w-9";
    until_subscribed(&mut connection(&server), channel).await;
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(&mut connection(&server)).unwrap();
    until_subscribed(&mut connection(&server), channel).await;
    restart(&mut server).await;
    // Published before anybody can have subscribed again: those who wait must look.
    let other = open(&server.url(0), &BackendOptions::default());
    let batch: Vec<_> = (0..10).map(|number| success(&format!("w-{number}"), number)).collect();
    other.store(&batch).await.unwrap();
    for (request, waiting) in batch.into_iter().zip(waiting) {
        let found = timeout(LONG, waiting).await.expect("woken").unwrap().unwrap();
        assert_eq!(found, Some(request.meta));
    }
    assert_eq!(backend.wait("late", Some(Duration::from_millis(20))).await.unwrap(), None);
    let mut connection = connection(&server);
    loop {
        let channels: Vec<String> = redis::cmd("PUBSUB").arg("CHANNELS").query(&mut connection).unwrap();
        if channels.is_empty() {
            break;
        }
        yield_now().await;
    }
}

/// Requests reach Redis and answers get lost: nothing but time tells that such a connection is dead.
#[tokio::test]
async fn an_answer_that_never_comes_is_a_lost_connection() {
    let Some(server) = RedisServer::start().await else { return };
    let proxy = Proxy::start(server.port()).await;
    let short = Duration::from_millis(200);
    let options = BackendOptions {
        socket_timeout: Some(short),
        socket_connect_timeout: short,
        health_check_interval: short,
        ..BackendOptions::default()
    };
    let backend = open(&format!("redis://127.0.0.1:{}/0", proxy.port()), &options);
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    let waiting = tokio::spawn({
        let backend = backend.clone();
        async move { backend.wait("waited", None).await }
    });
    until_subscribed(&mut connection(&server), "celery-task-meta-waited").await;
    writer.store(success("a", 1)).await.unwrap();
    proxy.mute(true);
    let stored = [writer.store(meta("b", "PROGRESS", 1)), writer.store(meta("b", "PROGRESS", 2))];
    assert!(backend.fetch("a").await.unwrap_err().is_connection());
    open(&server.url(0), &BackendOptions::default()).store(&[success("waited", 3)]).await.unwrap();
    proxy.mute(false);
    for stored in stored {
        timeout(LONG, stored).await.expect("stored").unwrap();
    }
    assert_eq!(at_last(|| backend.fetch("b")).await, Some(meta("b", "PROGRESS", 2).meta));
    let found = timeout(LONG, waiting).await.expect("looked again").unwrap().unwrap();
    assert_eq!(found, Some(success("waited", 3).meta));
}

/// A worker asks again when no answer came, and so does the connection itself.
#[tokio::test]
async fn a_member_that_is_added_counts_once_though_the_answer_is_lost() {
    let Some(server) = RedisServer::start().await else { return };
    let proxy = Proxy::start(server.port()).await;
    let options = BackendOptions { socket_timeout: Some(Duration::from_millis(200)), ..BackendOptions::default() };
    let hasty = open(&format!("redis://127.0.0.1:{}/0", proxy.port()), &options);
    let backend = open(&server.url(0), &BackendOptions::default());
    let chords = chords::chords(&backend);
    chords.start_chord("g", 1).await.unwrap();
    // Its connection is up, and what comes now goes over that.
    at_last(|| hasty.fetch("nothing")).await;
    proxy.mute(true);
    let add = || chords::chords(&hasty).add_to_chord("g", "m1", Some(0));
    assert!(add().await.unwrap_err().is_connection());
    proxy.mute(false);
    at_last(add).await;
    assert_eq!(count_one(&backend, part("g", 0)).await, ChordProgress::Waiting);
    let added = ChordPart { task_id: "m1".into(), ..part("g", 0) };
    let claim = chords::claim(count_one(&backend, added).await);
    assert!(chords.complete_chord(&claim).await.unwrap());
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection(&server)).unwrap();
    assert_eq!(left, ["celery-taskset-meta-g.c"], "nothing is left behind but word that it is done");
}

#[tokio::test]
async fn what_is_wrong_is_said_without_the_password() {
    let Some(server) = RedisServer::start_with_password("secret").await else { return };
    let backend = open(&server.url(0), &BackendOptions::default());
    backend.store(&[success("a", 1)]).await.unwrap();
    let with_login = |login: &str| format!("redis://{login}127.0.0.1:{}/0", server.port());
    let rows = [
        (with_login(":wrong-secret@"), ErrorKind::Authentication, "cannot connect to redis://:**@"),
        (with_login(""), ErrorKind::Authentication, "it asks for a password, and the URL has none"),
        (
            "redis://:secret@127.0.0.1:1/0".to_owned(),
            ErrorKind::Connection,
            "redis://:**@127.0.0.1:1/0: connection refused",
        ),
        (
            "redis://:secret@no-such-host.invalid/0".to_owned(),
            ErrorKind::Connection,
            "redis://:**@no-such-host.invalid:6379/0",
        ),
        (server.url(999), ErrorKind::Configuration, "DB index"),
    ];
    for (url, kind, words) in rows {
        let backend = open(&url, &BackendOptions::default());
        let errors = [backend.fetch("a").await.unwrap_err(), backend.store(&[success("b", 1)]).await.unwrap_err()];
        for error in errors {
            let message = error.to_string();
            assert_eq!(error.kind(), kind, "{message}");
            assert!(message.contains(words) && !message.contains("secret"), "{message}");
        }
        if kind != ErrorKind::Connection {
            assert_eq!(backend.wait("a", None).await.unwrap_err().kind(), kind);
        }
    }
}

#[tokio::test]
async fn refusals_that_pass_are_retried_and_others_are_not() {
    let Some(server) = RedisServer::start().await else { return };
    let mut connection = connection(&server);
    let mut config =
        |name: &str, value: &str| redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut connection);
    let backend = open(&server.url(0), &BackendOptions::default());
    config("maxmemory", "1").unwrap();
    let error = backend.store(&[success("a", 1)]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unready && error.to_string().contains("OOM"), "{error}");
    config("maxmemory", "0").unwrap();
    backend.store(&[success("a", 1)]).await.unwrap();
    redis::cmd("ACL").arg(&["SETUSER", "default", "-evalsha"]).exec(&mut connection).unwrap();
    let error = backend.store(&[success("b", 1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend, "{error}");
}

#[tokio::test]
async fn keys_of_another_type_are_the_trouble_of_one_chord() {
    let Some(server) = RedisServer::start().await else { return };
    let mut connection = connection(&server);
    let backend = open(&server.url(0), &BackendOptions::default());
    let chords = chords::chords(&backend);
    for (group, suffix) in [("j", ".j"), ("d", ".d"), ("c", ".c")] {
        let _: () = connection.hset(format!("celery-taskset-meta-{group}{suffix}"), "a", "b").unwrap();
    }
    for (group, suffix, value) in [("s", ".s", "one"), ("t", ".t", "many"), ("t", ".s", "1")] {
        let _: () = connection.set(format!("celery-taskset-meta-{group}{suffix}"), value).unwrap();
    }
    chords.start_chord("good", 1).await.unwrap();
    let groups = ["j", "s", "d", "t", "c", "good"];
    let parts: Vec<_> = groups.iter().map(|group| chords.encode_part(&chords::part(group, 0)).unwrap()).collect();
    let counted = chords.store_with_parts(&[backend.encode(&success("m0", 1)).unwrap()], &parts).await.unwrap();
    let shown: Vec<String> = counted
        .iter()
        .map(|progress| match progress {
            Ok(ChordProgress::Complete(_)) => "complete".to_owned(),
            Ok(other) => format!("{other:?}").to_lowercase(),
            Err(error) => format!("{:?}", error.kind()),
        })
        .collect();
    assert_eq!(shown, ["Backend", "waiting", "Backend", "complete", "Backend", "complete"]);
    let error = counted[0].as_ref().unwrap_err().to_string();
    assert!(error.contains("cannot count the chord j: ") && error.contains("WRONGTYPE"), "{error}");
    assert!(backend.fetch("m0").await.unwrap().is_some());
}

#[tokio::test]
async fn chords_are_counted_through_restarts_and_full_servers() {
    let Some(mut server) = RedisServer::start().await else { return };
    let backend = open(&server.url(0), &BackendOptions::default());
    let chords = chords::chords(&backend);
    let writer = ResultWriter::start(backend.clone(), WriterOptions { batch_items: 20, ..WriterOptions::default() });
    chords.start_chord("g", 300).await.unwrap();
    let members = (0..300).map(|member| tokio::spawn(writer.store_with_part(None, &chords::part("g", member))));
    let members: Vec<_> = members.collect();
    restart(&mut server).await;
    let mut claims = Vec::new();
    for member in members {
        claims.extend(match member.await.unwrap().unwrap() {
            ChordProgress::Complete(claim) => Some(claim),
            other => {
                assert_eq!(other, ChordProgress::Waiting);
                None
            }
        });
    }
    assert_eq!(claims.len(), 1);
    let expected: Vec<i64> = (0..300).map(|member| member * 10).collect();
    assert_eq!(chords::results(chords.claimed(&claims[0]).await.unwrap()), expected);

    let mut connection = connection(&server);
    let mut config = |value: &str| redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(value).exec(&mut connection);
    config("1").unwrap();
    let parts = [chords.encode_part(&chords::part("other", 0)).unwrap()];
    assert_eq!(chords.store_with_parts(&[], &parts).await.unwrap_err().kind(), ErrorKind::Unready);
    config("0").unwrap();
    assert_eq!(chords.store_with_parts(&[], &parts).await.unwrap()[0].as_ref().unwrap(), &ChordProgress::Waiting);
}
