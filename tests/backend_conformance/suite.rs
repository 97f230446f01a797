//! The promises, asked of whatever backend they are given.

use std::sync::Arc;
use std::time::Duration;

use celeriac::ErrorKind;
use celeriac::backend::{ReplyTo, ResultBackend, ResultWriter, StoreRequest, WriterOptions};
use celeriac::protocol::{Exception, Map, MetaResult, State, TaskMeta, Value};
use tokio::time::timeout;

use crate::support::LONG;
use crate::values;

type Backend = Arc<dyn ResultBackend>;

/// The result `number` of a task in a state.
pub(crate) fn meta(task_id: &str, state: &str, number: i64) -> StoreRequest {
    let state = State::from(state);
    let result = match state.is_exception() {
        true => MetaResult::Exception(Exception::new("ValueError", number)),
        false => MetaResult::Value(Value::Int(number)),
    };
    StoreRequest { meta: TaskMeta::new(task_id, state, result), reply_to: None }
}

pub(crate) fn success(task_id: &str, number: i64) -> StoreRequest {
    meta(task_id, "SUCCESS", number)
}

/// The same, to this process where results are sent.
pub(crate) fn addressed(backend: &Backend, mut request: StoreRequest) -> StoreRequest {
    let queue = backend.reply_queue();
    request.reply_to = queue.map(|queue| ReplyTo { queue: queue.to_owned(), correlation_id: None });
    request
}

pub(crate) async fn store(backend: &Backend, batch: &[StoreRequest]) -> celeriac::Result<()> {
    let batch: Vec<_> = batch.iter().map(|request| addressed(backend, request.clone())).collect();
    backend.store(&batch).await
}

async fn fetched(backend: &Backend, task_id: &str) -> TaskMeta {
    kept(backend, backend.fetch(task_id).await.unwrap().unwrap())
}

/// What a backend keeps of a meta, and adds nothing to: Django's tables have a time for every row, and few of the columns
/// that `result_extended` adds.
fn kept(backend: &Backend, mut meta: TaskMeta) -> TaskMeta {
    if backend.uri().starts_with("django-db") {
        (meta.date_done, meta.extended) = (None, Map::new());
    }
    meta
}

/// (stored, incoming, whether it replaces what is stored).
const STATE_RULES: &[(&str, &str, bool)] = &[
    ("SUCCESS", "SUCCESS", false),
    ("SUCCESS", "FAILURE", false),
    ("SUCCESS", "REVOKED", false),
    ("SUCCESS", "STARTED", false),
    ("SUCCESS", "RETRY", false),
    ("SUCCESS", "PROGRESS", false),
    ("FAILURE", "STARTED", false),
    ("FAILURE", "PENDING", false),
    ("FAILURE", "RECEIVED", false),
    ("FAILURE", "SUCCESS", true),
    ("FAILURE", "RETRY", true),
    ("FAILURE", "REVOKED", true),
    ("FAILURE", "PROGRESS", true),
    ("REVOKED", "STARTED", false),
    ("REVOKED", "PENDING", false),
    ("REVOKED", "RECEIVED", false),
    ("REVOKED", "FAILURE", true),
    ("REVOKED", "SUCCESS", true),
    ("STARTED", "STARTED", true),
    ("STARTED", "PROGRESS", true),
    ("STARTED", "SUCCESS", true),
    ("PROGRESS", "STARTED", true),
    ("PROGRESS", "FAILURE", true),
    ("RETRY", "STARTED", true),
    ("RETRY", "SUCCESS", true),
    ("odd \"state\\", "STARTED", true),
    ("SUCCESSFUL", "FAILURE", true),
];

pub(crate) async fn state_rules_hold_in_one_batch_and_over_several(backend: Backend) {
    for (row, (stored, incoming, replaces)) in STATE_RULES.iter().enumerate() {
        let together = format!("together-{row}");
        store(&backend, &[meta(&together, stored, 1), meta(&together, incoming, 2)]).await.unwrap();
        let apart = format!("apart-{row}");
        store(&backend, &[meta(&apart, stored, 1)]).await.unwrap();
        store(&backend, &[meta(&apart, incoming, 2)]).await.unwrap();
        for task_id in [together, apart] {
            let expected = if *replaces { meta(&task_id, incoming, 2) } else { meta(&task_id, stored, 1) };
            assert_eq!(fetched(&backend, &task_id).await, expected.meta, "{stored} then {incoming}");
        }
    }
}

pub(crate) async fn an_unknown_id_is_none(backend: Backend) {
    assert_eq!(backend.fetch("nobody").await.unwrap(), None);
    assert_eq!(backend.fetch("").await.unwrap(), None);
    backend.forget("nobody").await.unwrap();
    store(&backend, &[]).await.unwrap();
    assert_eq!(backend.fetch_many(&[]).await.unwrap(), []);
}

/// Where a serializer has no form for a value, storing says so and stores nothing.
pub(crate) async fn values_come_back_as_they_were(backend: Backend) {
    let mut stored = 0;
    for (number, value) in values::every_kind().into_iter().enumerate() {
        let task_id = format!("value-{number}");
        let mut request = StoreRequest { meta: TaskMeta::new(&task_id, State::Success, value), reply_to: None };
        request.meta.traceback = Some("Traceback (most recent call last):\n  …".into());
        request.meta.children = Some(vec![Value::from("child")]);
        request.meta.extended.insert("queue", "celery");
        match store(&backend, std::slice::from_ref(&request)).await {
            Ok(()) => stored += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
                assert_eq!(backend.fetch(&task_id).await.unwrap(), None);
                continue;
            }
        }
        let found = fetched(&backend, &task_id).await;
        assert_eq!(
            format!("{found:?}"),
            format!("{:?}", kept(&backend, request.meta)),
            "as text, for NaN is equal to nothing"
        );
    }
    assert!(stored >= 20, "{stored}");
}

pub(crate) async fn thousands_are_stored_in_order(backend: Backend) {
    let task = |number: usize| format!("task-{}", number % 1500);
    let batch: Vec<_> = (0..4000).map(|number| meta(&task(number), "PROGRESS", number as i64)).collect();
    store(&backend, &batch).await.unwrap();
    let ids: Vec<String> = (0..2000).map(|number| format!("task-{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let found = backend.fetch_many(&ids).await.unwrap();
    assert_eq!(found.len(), 2000);
    for (number, found) in found.into_iter().enumerate() {
        let last = (0..4000).rev().find(|other| other % 1500 == number);
        assert_eq!(
            found.map(|found| kept(&backend, found)),
            last.map(|last| meta(&task(number), "PROGRESS", last as i64).meta)
        );
    }
}

pub(crate) async fn waiting_ends_when_the_task_is_ready(backend: Backend) {
    let waiting: Vec<_> = (0..20)
        .map(|number| {
            let backend = backend.clone();
            tokio::spawn(async move { backend.wait(&format!("waited-{}", number / 2), None).await })
        })
        .collect();
    for state in ["STARTED", "PROGRESS", "RETRY", "FAILURE"] {
        let batch: Vec<_> = (0..10).map(|number| meta(&format!("waited-{number}"), state, number)).collect();
        store(&backend, &batch).await.unwrap();
    }
    for (number, waiting) in waiting.into_iter().enumerate() {
        let number = number / 2;
        let expected = meta(&format!("waited-{number}"), "FAILURE", number as i64).meta;
        let found = timeout(LONG, waiting).await.expect("woken").unwrap().unwrap();
        assert_eq!(found.map(|found| kept(&backend, found)), Some(expected));
    }
}

pub(crate) async fn waiting_for_what_is_ready_does_not_wait(backend: Backend) {
    store(&backend, &[success("ready", 1)]).await.unwrap();
    let found = timeout(LONG, backend.wait("ready", None)).await.expect("at once").unwrap();
    assert_eq!(found.map(|found| kept(&backend, found)), Some(success("ready", 1).meta));
}

pub(crate) async fn waiting_has_a_limit(backend: Backend) {
    store(&backend, &[meta("slow", "STARTED", 1)]).await.unwrap();
    assert_eq!(backend.wait("slow", Some(Duration::from_millis(30))).await.unwrap(), None);
    assert_eq!(backend.wait("slow", Some(Duration::ZERO)).await.unwrap(), None);
}

pub(crate) async fn a_forgotten_result_is_gone(backend: Backend) {
    store(&backend, &[success("a", 1), success("b", 2)]).await.unwrap();
    backend.forget("a").await.unwrap();
    assert_eq!(backend.fetch("a").await.unwrap(), None);
    assert!(backend.fetch("b").await.unwrap().is_some());
    store(&backend, &[meta("a", "STARTED", 3)]).await.unwrap();
    assert_eq!(fetched(&backend, "a").await.status, State::Started);
}

pub(crate) async fn a_result_needs_an_id(backend: Backend) {
    let error = store(&backend, &[success("fine", 1), success("", 1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert_eq!(backend.fetch("fine").await.unwrap(), None, "nothing of the batch is stored");
}

pub(crate) async fn a_writer_keeps_the_order_of_each_task(backend: Backend) {
    let writer = ResultWriter::start(backend.clone(), WriterOptions { batch_items: 64, ..WriterOptions::default() });
    let mut stored = Vec::new();
    for number in 0..3000 {
        stored.push(writer.store(addressed(&backend, meta(&format!("w-{}", number % 40), "PROGRESS", number))));
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for stored in stored {
        stored.await.unwrap();
    }
    for number in 0..40 {
        let expected = meta(&format!("w-{number}"), "PROGRESS", 2960 + number).meta;
        assert_eq!(fetched(&backend, &expected.task_id).await, expected);
    }
    writer.stop().await;
    writer.stop().await;
}
