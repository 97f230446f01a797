//! What backends promise of groups and chords.

use std::sync::Arc;
use std::time::Duration;

use celeriac::backend::{
    ChordClaim, ChordOutcome, ChordPart, ChordProgress, EncodedPart, Joined, NativeChords, ResultBackend, ResultWriter,
    Until, WriterOptions, is_ready, join, poll_chord,
};
use celeriac::protocol::{Exception, MetaResult, ResultTuple, State, Value};
use tokio::task::yield_now;

use crate::suite::{meta, store, success};

type Backend = Arc<dyn ResultBackend>;

pub(crate) fn chords(backend: &Backend) -> &dyn NativeChords {
    backend.native_chords().expect("it counts chords")
}

/// The part of member `index`, `m0` for example, which returned ten times its index.
pub(crate) fn part(group_id: &str, index: i64) -> ChordPart {
    ChordPart {
        group_id: group_id.into(),
        task_id: format!("m{index}"),
        group_index: Some(index),
        state: State::Success,
        result: Value::Int(index * 10).into(),
    }
}

pub(crate) fn failed(group_id: &str, index: i64, exception: Exception) -> ChordPart {
    ChordPart { state: State::Failure, result: exception.into(), ..part(group_id, index) }
}

/// Counts parts in one batch, each as a delivery of its own.
pub(crate) async fn count(backend: &Backend, parts: &[ChordPart]) -> Vec<ChordProgress> {
    let parts: Vec<EncodedPart> = parts.iter().map(|part| chords(backend).encode_part(part).unwrap()).collect();
    let counted = chords(backend).store_with_parts(&[], &parts).await.unwrap();
    counted.into_iter().map(Result::unwrap).collect()
}

pub(crate) async fn count_one(backend: &Backend, part: ChordPart) -> ChordProgress {
    count(backend, &[part]).await.remove(0)
}

pub(crate) fn claim(progress: ChordProgress) -> ChordClaim {
    match progress {
        ChordProgress::Complete(claim) => claim,
        other => panic!("{other:?} is no claim"),
    }
}

pub(crate) fn results(outcome: ChordOutcome) -> Vec<i64> {
    match outcome {
        ChordOutcome::Results(values) => values.iter().map(|value| value.as_i64().unwrap()).collect(),
        ChordOutcome::Failed(failure) => panic!("{failure:?}"),
    }
}

fn is_busy(progress: &ChordProgress) -> bool {
    matches!(progress, ChordProgress::Busy(_))
}

pub(crate) async fn groups_are_kept_with_their_structure(backend: Backend) {
    let group = ResultTuple::group("g", vec![ResultTuple::task("a"), ResultTuple::group("h", vec![])])
        .with_parent(ResultTuple::task("p"));
    assert_eq!(backend.restore_group("g").await.unwrap(), None);
    backend.save_group(&group).await.unwrap();
    assert_eq!(backend.restore_group("g").await.unwrap(), Some(group));
    backend.forget_group("g").await.unwrap();
    assert_eq!(backend.restore_group("g").await.unwrap(), None);
    assert!(backend.save_group(&ResultTuple::group("", vec![])).await.is_err());
}

pub(crate) async fn waiting_for_many_ends_with_the_last_or_the_first_failure(backend: Backend) {
    store(&backend, &[success("a", 1)]).await.unwrap();
    let ids = ["c", "a", "b", "a"];
    let none = Some(Duration::ZERO);
    let early = backend.wait_many(&ids, Until::AllReady, none).await.unwrap();
    let known = |metas: &[Option<_>]| metas.iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(known(&early), [false, true, false, true]);
    let waiting = |until| {
        let backend = backend.clone();
        tokio::spawn(async move { backend.wait_many(&["c", "a", "b", "a"], until, None).await.unwrap() })
    };
    let (all, first) = (waiting(Until::AllReady), waiting(Until::FirstFailure));
    yield_now().await;
    store(&backend, &[meta("b", "STARTED", 0), meta("c", "FAILURE", 3)]).await.unwrap();
    assert_eq!(known(&first.await.unwrap()), [true, true, false, true]);
    assert!(!all.is_finished());
    store(&backend, &[success("b", 2)]).await.unwrap();
    let metas: Vec<_> = all.await.unwrap().into_iter().map(|meta| meta.unwrap().task_id).collect();
    assert_eq!(metas, ids);
    assert_eq!(backend.wait_many(&[], Until::AllReady, None).await.unwrap(), []);
}

pub(crate) async fn a_group_is_joined_in_its_shape(backend: Backend) {
    let task = ResultTuple::task;
    let members = [task("a"), ResultTuple::group("g", vec![task("b"), ResultTuple::group("e", vec![])]), task("c")];
    store(&backend, &[success("a", 1), success("b", 2)]).await.unwrap();
    assert!(!is_ready(&*backend, &members).await.unwrap());
    assert_eq!(join(&*backend, &members, Some(Duration::ZERO)).await.unwrap(), Joined::TimedOut);
    assert_eq!(poll_chord(&*backend, &members, None).await.unwrap(), None);
    store(&backend, &[success("c", 3)]).await.unwrap();
    let expected = vec![1.into(), Value::List(vec![2.into(), Value::List(vec![])]), 3.into()];
    assert_eq!(join(&*backend, &members, None).await.unwrap(), Joined::Values(expected.clone()));
    assert_eq!(poll_chord(&*backend, &members, None).await.unwrap(), Some(ChordOutcome::Results(expected)));
    backend.forget("b").await.unwrap();
    store(&backend, &[meta("b", "FAILURE", 2)]).await.unwrap();
    let exception = Exception::new("ValueError", 2);
    let raised = Joined::Raised { task_id: None, exception: exception.clone() };
    assert_eq!(join(&*backend, &members, None).await.unwrap(), raised);
    let Some(ChordOutcome::Failed(failure)) = poll_chord(&*backend, &[task("a"), task("b")], None).await.unwrap()
    else {
        panic!("it failed");
    };
    assert_eq!((failure.message.as_str(), failure.cause), ("Dependency b raised ValueError(2)", Some(exception)));
}

pub(crate) async fn a_chord_completes_once_and_in_the_headers_order(backend: Backend) {
    let chords = chords(&backend);
    assert_eq!(count(&backend, &[part("g", 2), part("g", 0)]).await, [ChordProgress::Waiting, ChordProgress::Waiting]);
    chords.start_chord("g", 4).await.unwrap();
    assert_eq!(count_one(&backend, part("g", 2)).await, ChordProgress::Waiting, "a copy");
    let unindexed = ChordPart { group_index: None, ..part("g", 9) };
    assert_eq!(count_one(&backend, unindexed).await, ChordProgress::Waiting);
    let claim = claim(count_one(&backend, part("g", 1)).await);
    assert_eq!((claim.group_id.as_str(), claim.count), ("g", 4));
    assert_eq!(results(chords.claimed(&claim).await.unwrap()), [0, 10, 20, 90]);
    assert!(chords.extend_claim(&claim, Duration::from_secs(20)).await.unwrap());
    assert!(chords.complete_chord(&claim).await.unwrap());
    assert_eq!(count(&backend, &[part("g", 1), part("g", 2)]).await, [ChordProgress::Late, ChordProgress::Late]);
    assert!(!chords.complete_chord(&claim).await.unwrap());
    assert!(!chords.extend_claim(&claim, Duration::from_secs(20)).await.unwrap());
    // A frozen chord may be applied again, under the same ids.
    chords.start_chord("g", 1).await.unwrap();
    assert!(matches!(count_one(&backend, part("g", 1)).await, ChordProgress::Complete(_)));
}

/// A chain in the header that ends in a group: stock Celery takes the group's size for that of the chord, and waits for
/// ever where more members have reported by then (celery/canvas.py `group._apply_tasks`).
pub(crate) async fn a_group_that_ends_a_chain_makes_its_chord_no_smaller(backend: Backend) {
    let chords = chords(&backend);
    chords.start_chord("g", 3).await.unwrap();
    assert_eq!(count(&backend, &[part("g", 0), part("g", 1)]).await, [ChordProgress::Waiting, ChordProgress::Waiting]);
    chords.start_chord("g", 2).await.unwrap();
    assert_eq!(claim(count_one(&backend, part("g", 2)).await).count, 3);
    // The chain may be quicker than whoever sends the header.
    chords.start_chord("h", 2).await.unwrap();
    chords.start_chord("h", 3).await.unwrap();
    assert_eq!(count(&backend, &[part("h", 0), part("h", 1)]).await, [ChordProgress::Waiting, ChordProgress::Waiting]);
    assert_eq!(claim(count_one(&backend, part("h", 2)).await).count, 3);
}

pub(crate) async fn members_of_many_chords_are_counted_in_one_batch(backend: Backend) {
    const CHORDS: i64 = 70;
    for number in 0..CHORDS {
        chords(&backend).start_chord(&format!("g{number}"), 5).await.unwrap();
    }
    let parts: Vec<ChordPart> =
        (0..5).flat_map(|index| (0..CHORDS).map(move |number| part(&format!("g{number}"), index))).collect();
    let progress = count(&backend, &parts).await;
    let (early, last) = progress.split_at(4 * CHORDS as usize);
    assert!(early.iter().all(|progress| *progress == ChordProgress::Waiting));
    for (number, progress) in last.iter().enumerate() {
        let claim = claim(progress.clone());
        assert_eq!(claim.group_id, format!("g{number}"));
        assert_eq!(results(chords(&backend).claimed(&claim).await.unwrap()), [0, 10, 20, 30, 40]);
    }
}

pub(crate) async fn a_chord_waits_for_members_that_were_added(backend: Backend) {
    chords(&backend).start_chord("g", 2).await.unwrap();
    // The same again is the same: an answer was lost, or its task was delivered again.
    for index in [7, 7, 8, 7] {
        chords(&backend).add_to_chord("g", "m7", Some(index)).await.unwrap();
    }
    let progress = count(&backend, &[part("g", 0), part("g", 1)]).await;
    assert_eq!(progress, [ChordProgress::Waiting, ChordProgress::Waiting]);
    assert_eq!(count_one(&backend, part("g", 7)).await, ChordProgress::Waiting);
    let claim = claim(count_one(&backend, part("g", 8)).await);
    assert_eq!(results(chords(&backend).claimed(&claim).await.unwrap()), [0, 10, 70, 80]);
}

pub(crate) async fn the_first_failure_in_order_fails_a_chord(backend: Backend) {
    let chords = chords(&backend);
    chords.start_chord("g", 3).await.unwrap();
    let (second, third) = (Exception::new("ValueError", "it's"), Exception::new("KeyError", "late"));
    count(&backend, &[failed("g", 2, third), part("g", 0)]).await;
    let claim = claim(count_one(&backend, failed("g", 1, second.clone())).await);
    let ChordOutcome::Failed(failure) = chords.claimed(&claim).await.unwrap() else { panic!("it failed") };
    assert_eq!(failure.message, r#"Dependency m1 raised ValueError("it's")"#);
    assert_eq!(failure.exception(), Exception::celery("ChordError", failure.message.as_str()));
    assert_eq!(failure.cause, Some(second));
    chords.fail_chord("g").await.unwrap();
    for index in 0..3 {
        assert_eq!(count_one(&backend, part("g", index)).await, ChordProgress::Waiting, "a copy of m{index}");
    }
}

pub(crate) async fn a_saved_header_gives_the_results_their_shape(backend: Backend) {
    let chords = chords(&backend);
    let (a, b) = (ResultTuple::task("m0"), ResultTuple::task("m1"));
    let header = ResultTuple::group("g", vec![ResultTuple::group("h", vec![a]), b]);
    chords.save_header(&header).await.unwrap();
    chords.start_chord("g", 2).await.unwrap();
    store(&backend, &[success("m0", 7), meta("m1", "FAILURE", 8)]).await.unwrap();
    count_one(&backend, part("g", 0)).await;
    let first = claim(count_one(&backend, part("g", 1)).await);
    let ChordOutcome::Failed(failure) = chords.claimed(&first).await.unwrap() else { panic!("m1 failed") };
    assert_eq!((failure.message.as_str(), failure.cause), ("Join error: ValueError(8)", None));
    store(&backend, &[success("m1", 8)]).await.unwrap();
    let expected = ChordOutcome::Results(vec![Value::List(vec![7.into()]), 8.into()]);
    assert_eq!(chords.claimed(&first).await.unwrap(), expected);
}

pub(crate) async fn a_claim_is_one_workers_until_it_is_given_up(backend: Backend) {
    let chords = chords(&backend);
    chords.start_chord("g", 1).await.unwrap();
    let encoded = chords.encode_part(&part("g", 0)).unwrap();
    let again =
        || async { chords.store_with_parts(&[], std::slice::from_ref(&encoded)).await.unwrap().remove(0).unwrap() };
    let ours = claim(again().await);
    // The answer may have been lost: the same attempt claims again, another delivery does not.
    assert_eq!(claim(again().await), ours);
    let copy = count_one(&backend, part("g", 0)).await;
    assert!(matches!(copy, ChordProgress::Busy(lease) if lease <= ours.lease && lease > Duration::ZERO), "{copy:?}");
    let other = ChordClaim { token: "another's".into(), ..ours.clone() };
    assert!(!chords.extend_claim(&other, Duration::from_secs(9)).await.unwrap());
    assert!(!chords.complete_chord(&other).await.unwrap());
    assert!(is_busy(&count_one(&backend, part("g", 0)).await));
    assert!(chords.complete_chord(&ours).await.unwrap());
    assert_eq!(count_one(&backend, part("g", 0)).await, ChordProgress::Late);
}

pub(crate) async fn a_copy_waits_for_the_worker_that_has_the_claim(backend: Backend) {
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    chords(&backend).start_chord("g", 1).await.unwrap();
    let ours = claim(writer.store_with_part(Some(success("m0", 0)), &part("g", 0)).await.unwrap());
    assert_eq!(backend.fetch("m0").await.unwrap().unwrap().result, MetaResult::Value(0.into()));
    let copy = tokio::spawn(writer.store_with_part(Some(success("m0", 0)), &part("g", 0)));
    assert_eq!(writer.store_with_part(None, &part("other", 0)).await.unwrap(), ChordProgress::Waiting);
    assert!(!copy.is_finished());
    assert!(chords(&backend).complete_chord(&ours).await.unwrap());
    assert_eq!(copy.await.unwrap().unwrap(), ChordProgress::Late);
}

pub(crate) async fn a_copy_takes_over_from_a_worker_that_died(backend: Backend) {
    let writer = ResultWriter::start(backend.clone(), WriterOptions::default());
    chords(&backend).start_chord("g", 2).await.unwrap();
    writer.store_with_part(None, &part("g", 1)).await.unwrap();
    let dead = claim(writer.store_with_part(None, &part("g", 0)).await.unwrap());
    assert!(chords(&backend).extend_claim(&dead, Duration::from_secs(1)).await.unwrap());
    let ours = claim(writer.store_with_part(None, &part("g", 0)).await.unwrap());
    assert_ne!(ours.token, dead.token);
    assert_eq!(results(chords(&backend).claimed(&ours).await.unwrap()), [0, 10]);
    assert!(!chords(&backend).complete_chord(&dead).await.unwrap());
    assert!(chords(&backend).complete_chord(&ours).await.unwrap());
}

pub(crate) async fn a_part_needs_its_ids(backend: Backend) {
    for part in [ChordPart { task_id: String::new(), ..part("g", 0) }, part("", 0)] {
        assert!(chords(&backend).encode_part(&part).is_err());
    }
}
