//! What results in files promise beside what all do.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use celeriac::ErrorKind;
use celeriac::backend::{BackendOptions, ResultBackend, ResultWriter, WriterOptions};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::open;
use crate::suite::{meta, success};
use crate::support::LONG;

fn folder() -> (TempDir, Arc<dyn ResultBackend>) {
    let folder = tempfile::tempdir().unwrap();
    let backend = open(&format!("file://{}", folder.path().display()), &BackendOptions::default());
    (folder, backend)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn keys_and_bytes_are_celerys_and_nothing_else_is_left() {
    let (folder, backend) = folder();
    backend.store(&[meta("an-id", "STARTED", 1), success("an-id", 3)]).await.unwrap();
    let stored = fs::read_to_string(folder.path().join("celery-task-meta-an-id")).unwrap();
    let expected = r#"{"status": "SUCCESS", "result": 3, "traceback": null, "children": null, "date_done": null, "task_id": "an-id"}"#;
    assert_eq!((stored.as_str(), names(folder.path())), (expected, vec!["celery-task-meta-an-id".to_owned()]));
}

/// Ids come from whoever sends.
#[tokio::test]
async fn no_id_leads_out_of_the_folder() {
    let (folder, backend) = folder();
    let within = folder.path().join("celery-task-meta-a");
    fs::create_dir(&within).unwrap();
    for id in ["a/../../b", "a/b", "a\0b"] {
        assert_eq!(backend.store(&[success(id, 1)]).await.unwrap_err().kind(), ErrorKind::Backend, "{id}");
        assert_eq!(backend.fetch(id).await.unwrap(), None);
        backend.forget(id).await.unwrap();
    }
    let long = "x".repeat(300);
    assert_eq!(backend.store(&[success(&long, 1)]).await.unwrap_err().kind(), ErrorKind::Backend);
    assert_eq!((names(folder.path()), names(&within)), (vec!["celery-task-meta-a".to_owned()], vec![]));
}

#[tokio::test]
async fn what_another_wrote_into_it_is_overwritten_if_nobody_can_read_it() {
    let (folder, backend) = folder();
    fs::write(folder.path().join("celery-task-meta-a"), b"{\"status\": ").unwrap();
    assert_eq!(backend.fetch("a").await.unwrap_err().kind(), ErrorKind::Decode);
    backend.store(&[meta("a", "STARTED", 1)]).await.unwrap();
    assert_eq!(backend.fetch("a").await.unwrap(), Some(meta("a", "STARTED", 1).meta));
}

#[tokio::test]
async fn nothing_is_lost_while_the_folder_is_away_and_what_is_wrong_is_said() {
    let (folder, backend) = folder();
    let (here, away) = (folder.path().join("here"), folder.path().join("away"));
    fs::create_dir(&away).unwrap();
    let backend_here = open(&format!("file://{}", here.display()), &BackendOptions::default());
    let error = backend_here.store(&[success("a", 1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unready);
    assert_eq!(
        error.to_string(),
        format!("cannot use file://{}: No such file or directory (os error 2)", here.display())
    );
    let writer = ResultWriter::start(backend_here.clone(), WriterOptions::default());
    let stored: Vec<_> =
        (0..50).map(|number| tokio::spawn(writer.store(success(&number.to_string(), number)))).collect();
    fs::rename(&away, &here).unwrap();
    for stored in stored {
        timeout(LONG, stored).await.expect("in time").unwrap().unwrap();
    }
    assert_eq!(names(&here).len(), 50);
    drop(backend);
}

/// A folder that takes no file, whoever writes.
#[tokio::test]
async fn a_folder_that_takes_nothing_is_told_from_a_result_that_is_wrong() {
    let error = open("file:///proc/self", &BackendOptions::default()).store(&[success("a", 1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unready, "{error}");
    assert!(error.to_string().starts_with("cannot write to file:///proc/self: "), "{error}");
}

#[tokio::test]
async fn what_has_expired_is_deleted_when_that_is_asked_for() {
    let (folder, backend) = folder();
    backend.store(&[success("old", 1), success("new", 1)]).await.unwrap();
    let day = Duration::from_secs(86_400);
    let now = SystemTime::UNIX_EPOCH + 20_000 * day;
    let dated = |name: &str, time: SystemTime| {
        let path = folder.path().join(name);
        fs::File::options().write(true).create(true).truncate(false).open(path).unwrap().set_modified(time).unwrap();
    };
    for (name, age) in [
        ("celery-task-meta-old", day * 2),
        ("celery-taskset-meta-old", day * 2),
        ("celery-task-meta-new", day / 2),
        ("another's", day * 2),
        (".fs-backend-celeriac-1", day * 2),
    ] {
        dated(name, now - age);
    }
    backend.clean_up(now.try_into().unwrap()).await.unwrap();
    assert_eq!(names(folder.path()), ["another's", "celery-task-meta-new"]);
}
