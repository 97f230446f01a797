//! What results in Celery's tables promise beside what all do.

use std::fs;
use std::sync::Arc;

use celeriac::ErrorKind;
use celeriac::backend::{BackendOptions, ResultBackend, ResultWriter, WriterOptions};
use celeriac::protocol::{Map, Value};
use rusqlite::{Connection, TransactionBehavior};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::open;
use crate::suite::{meta, success};
use crate::support::LONG;
use crate::support::postgres_server::PostgresServer;

fn sqlite(options: &str) -> (TempDir, Arc<dyn ResultBackend>) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("db+sqlite:///{}/results.sqlite{options}", folder.path().display());
    (folder, open(&url, &BackendOptions::default()))
}

fn connection(folder: &TempDir) -> Connection {
    Connection::open(folder.path().join("results.sqlite")).unwrap()
}

#[tokio::test]
async fn columns_are_celerys() {
    let (folder, _) = sqlite("");
    let url = format!("db+sqlite:///{}/results.sqlite", folder.path().display());
    let backend = open(&url, &BackendOptions { extended: true, ..BackendOptions::default() });
    let mut request = success("an-id", 3);
    request.meta.children = Some(vec![Value::from("child")]);
    request.meta.date_done = Some("2026-11-22T16:08:16.002716+00:00".parse().unwrap());
    request.meta.extended = Map::from([
        ("name", Value::from("t")),
        ("args", Value::List(vec![1.into()])),
        ("kwargs", Value::Map(Map::new())),
        ("worker", "w@h".into()),
        ("retries", 2.into()),
        ("queue", "celery".into()),
        ("stamped_headers", Value::List(vec!["a".into()])),
        ("a", "b".into()),
    ]);
    backend.store(std::slice::from_ref(&request)).await.unwrap();
    let row: String = connection(&folder)
        .query_row(
            "SELECT concat_ws('|', id, task_id, status, CAST(result AS TEXT), date_done, coalesce(traceback, 'NULL'), \
             CAST(children AS TEXT), name, CAST(args AS TEXT), CAST(kwargs AS TEXT), worker, retries, queue, \
             CAST(stamps AS TEXT), typeof(result)) FROM celery_taskmeta",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let expected = r#"1|an-id|SUCCESS|3|2026-11-22 16:08:16.002716|NULL|["child"]|t|[1]|{}|w@h|2|celery|{"stamped_headers": ["a"], "stamps": {"a": "b"}}|blob"#;
    assert_eq!(row, expected);
    let found = backend.fetch("an-id").await.unwrap().unwrap();
    assert_eq!(found.extended.get("a"), Some(&"b".into()));
    assert_eq!(found.extended.get("args"), request.meta.extended.get("args"));
}

/// What Django and stock workers do with the same file.
#[tokio::test]
async fn another_that_writes_for_long_is_waited_for_and_ends_nothing() {
    let (folder, backend) = sqlite("?timeout=0.05");
    backend.store(&[success("a", 1)]).await.unwrap();
    let mut other = connection(&folder);
    let held = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let error = backend.store(&[success("b", 1)]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unready && error.to_string().contains("database is locked"), "{error}");
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    let stored = tokio::spawn(writer.store(success("c", 1)));
    held.commit().unwrap();
    timeout(LONG, stored).await.expect("in time").unwrap().unwrap();
    assert!(backend.fetch("c").await.unwrap().is_some());
}

#[tokio::test]
async fn a_table_of_an_older_celery_gets_the_columns_that_it_has_not() {
    let (folder, backend) = sqlite("");
    let older = "CREATE TABLE celery_taskmeta (id INTEGER PRIMARY KEY AUTOINCREMENT, task_id VARCHAR(155) UNIQUE, \
                 status VARCHAR(50), result BLOB, date_done DATETIME, traceback TEXT)";
    let connection = connection(&folder);
    connection.execute(older, []).unwrap();
    // Python's pickle of 3: reading one may run whatever it says.
    connection
        .execute("INSERT INTO celery_taskmeta (task_id, status, result) VALUES ('p', 'SUCCESS', x'80044b032e')", [])
        .unwrap();
    backend.store(&[success("a", 1)]).await.unwrap();
    assert_eq!(backend.fetch("a").await.unwrap(), Some(success("a", 1).meta));
    assert_eq!(backend.fetch("p").await.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn a_file_that_goes_away_and_comes_back_is_written_to_again() {
    let (folder, backend) = sqlite("");
    backend.store(&[success("a", 1)]).await.unwrap();
    for name in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(name.unwrap().path()).unwrap();
    }
    backend.store(&[success("b", 1)]).await.unwrap();
    let count: i64 =
        connection(&folder).query_row("SELECT count(*) FROM celery_taskmeta", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1, "in the file that is there now");
    let nowhere = open("db+sqlite:////proc/self/results.sqlite", &BackendOptions::default());
    let error = nowhere.store(&[success("a", 1)]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unready && error.to_string().contains("unable to open"), "{error}");
}

#[tokio::test]
async fn what_has_expired_is_deleted_when_that_is_asked_for() {
    let (_folder, backend) = sqlite("");
    let dated = |id: &str, date: Option<&str>| {
        let mut request = meta(id, if date.is_some() { "SUCCESS" } else { "STARTED" }, 1);
        request.meta.date_done = date.map(|date| date.parse().unwrap());
        request
    };
    let batch = [
        dated("old", Some("2026-11-22T16:08:16.002716+00:00")),
        dated("new", Some("2026-11-24T16:08:16+00:00")),
        dated("running", None),
    ];
    backend.store(&batch).await.unwrap();
    backend.clean_up("2026-11-24T17:00:00Z".parse().unwrap()).await.unwrap();
    let found = backend.fetch_many(&["old", "new", "running"]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true]);
}

#[tokio::test]
async fn nothing_is_lost_when_postgres_is_killed_under_load() {
    let Some(mut server) = PostgresServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    let writer = ResultWriter::start(backend.clone(), WriterOptions { batch_items: 20, ..WriterOptions::default() });
    let store = |number: i64| tokio::spawn(writer.store(success(&format!("t-{number}"), number)));
    let mut stored: Vec<_> = (0..300).map(store).collect();
    stored.remove(0).await.unwrap().unwrap();
    server.stop();
    assert_eq!(backend.fetch("t-0").await.unwrap_err().kind(), ErrorKind::Connection);
    stored.extend((300..600).map(store));
    server.start_again().await;
    for stored in stored {
        timeout(LONG, stored).await.expect("in time").unwrap().unwrap();
    }
    // An answer that was lost is given again: each is there, and once.
    let count = server.asked("SELECT count(*), count(DISTINCT task_id) FROM celery_taskmeta");
    assert_eq!(count.as_deref(), Some("600|600"));
}

#[tokio::test]
async fn what_postgres_refuses_of_one_result_harms_no_other() {
    let Some(server) = PostgresServer::start().await else { return };
    let backend = open(&server.url(), &BackendOptions::default());
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    let ids = ["a".to_owned(), "x".repeat(200), "b".to_owned()];
    let stored: Vec<_> = ids.iter().map(|id| tokio::spawn(writer.store(success(id, 1)))).collect();
    let mut kinds = Vec::new();
    for stored in stored {
        kinds.push(stored.await.unwrap().map_err(|error| error.kind()));
    }
    assert_eq!(kinds, [Ok(()), Err(ErrorKind::Backend), Ok(())]);
    // Sequences of integers end: none is used up by what is written again.
    for _ in 0..20 {
        backend.store(&[meta("c", "PROGRESS", 1)]).await.unwrap();
    }
    assert_eq!(server.asked("SELECT last_value < 10 FROM task_id_sequence").as_deref(), Some("t"));
    assert!(backend.fetch("with\0nul").await.unwrap().is_none());
}

#[tokio::test]
async fn many_workers_write_the_same_rows_at_once() {
    let Some(server) = PostgresServer::start().await else { return };
    let workers: Vec<_> = (0..4).map(|_| open(&server.url(), &BackendOptions::default())).collect();
    let writers: Vec<_> =
        workers.iter().map(|one| ResultWriter::start(one.clone(), WriterOptions::default())).collect();
    let mut stored = Vec::new();
    for number in 0..200 {
        for (worker, writer) in writers.iter().enumerate() {
            let state = if worker == 0 { "SUCCESS" } else { "FAILURE" };
            stored.push(tokio::spawn(writer.store(meta(&format!("t-{}", (number * 7 + worker * 31) % 200), state, 1))));
        }
    }
    for stored in stored {
        timeout(LONG, stored).await.expect("in time").unwrap().unwrap();
    }
    let counted = server.asked("SELECT status, count(*) FROM celery_taskmeta GROUP BY status");
    assert_eq!(counted.as_deref(), Some("SUCCESS|200"));
}
