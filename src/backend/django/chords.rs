//! Chords in django-celery-results' table: see [`counting`](super::counting) for what its number means.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::counting::{Counting, Own, holds, is_claimed, number};
use super::tables::{chords, counts, states, tasks};
use super::{DjangoBackend, told};
use crate::backend::join::{Joined, leaves, outcome};
use crate::backend::sql::{Cell, Changes, Database, Exchange, Row};
use crate::backend::{
    ChordClaim, ChordOutcome, ChordPart, ChordProgress, EncodedPart, EncodedResult, NativeChords, is_ready, poll_chord,
};
use crate::protocol::{ResultTuple, State, Value, json};
use crate::time::Clock;
use crate::{Error, ErrorKind, Result};

/// The database that counts, and what this process has claimed.
type Counter<'a> = tokio::sync::MutexGuard<'a, (Arc<dyn Database>, HashMap<String, Own>)>;

impl DjangoBackend {
    /// Stores results and counts parts in one transaction. `complete`: the chords whose members are all ready, though the
    /// number says otherwise.
    async fn count(
        &self,
        counter: &mut Counter<'_>,
        rows: Vec<Row>,
        parts: &[EncodedPart],
        complete: HashSet<String>,
    ) -> Result<(Vec<ChordProgress>, HashSet<String>)> {
        let answer = Arc::new(Mutex::new((Vec::new(), HashSet::new(), None)));
        let (own, lease, told_to) = (counter.1.clone(), self.options.claim_lease(), answer.clone());
        let owned = parts.to_vec();
        let decide = Box::new(move |locked: Vec<Row>, seen: Vec<Row>| {
            let counts = locked.iter().filter_map(numbered).collect::<HashMap<_, _>>();
            let reported = seen.iter().filter(|row| has_reported(row)).filter_map(|row| text(&row[0])).collect();
            let stored: HashSet<String> = rows.iter().filter_map(|row| text(&row[0])).collect();
            let now = Clock::system().now();
            let mut counting = Counting { counts: counts.clone(), reported, own, now, lease, copies: HashSet::new() };
            let progress: Vec<ChordProgress> = owned
                .iter()
                .map(|part| match counting.counts.get(&part.group_id) {
                    Some(count) if complete.contains(&part.group_id) && !is_claimed(*count) => counting.claim(part),
                    _ => counting.count(part, stored.contains(&part.task_id)),
                })
                .collect();
            let changed = counting.counts.iter().filter(|(id, count)| counts.get(*id) != Some(count));
            let changed = changed.map(|(id, count)| vec![Cell::Text(id.clone()), Cell::Int(*count)]).collect();
            *told_to.lock().unwrap_or_else(PoisonError::into_inner) = (progress, counting.copies, Some(counting.own));
            let stored = if rows.is_empty() { Vec::new() } else { vec![(tasks(), rows)] };
            Ok(Changes { stored, changed: vec![(super::tables::counts(), changed)], ..Changes::default() })
        });
        let groups: HashSet<&str> = parts.iter().map(|part| part.group_id.as_str()).collect();
        let members = parts.iter().map(|part| part.task_id.clone()).collect();
        let locked = (counts(), groups.into_iter().map(str::to_owned).collect());
        let done = told(counter.0.exchange(Exchange { locked, seen: (states(), members), decide }).await);
        let (progress, copies, own) = std::mem::take(&mut *answer.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(own) = own {
            // Also where the answer was lost: it may be written, and whoever asks again has claimed it.
            counter.1 = own;
        }
        done.map(|()| (progress, copies))
    }

    /// The chords that copies of members tell of, and whose members are all ready: a worker has died after it had stored the
    /// result of one and before it counted that. Nobody else would complete them.
    async fn forgotten(&self, parts: &[EncodedPart], copies: &HashSet<String>) -> Result<HashSet<String>> {
        let mut forgotten = HashSet::new();
        for part in parts.iter().filter(|part| copies.contains(&part.token)) {
            if let Some(header) = self.header(&part.group_id).await?
                && is_ready(self, &header).await?
            {
                forgotten.insert(part.group_id.clone());
            }
        }
        Ok(forgotten)
    }

    /// The members of a chord.
    async fn header(&self, group_id: &str) -> Result<Option<Vec<ResultTuple>>> {
        let Some(row) = told(self.database.read(&chords(), &[group_id]).await)?.pop() else { return Ok(None) };
        members(&row).map(Some)
    }

    /// Decides what becomes of one chord from its row.
    async fn change(
        &self,
        group_id: &str,
        with_members: bool,
        decide: impl FnOnce(Option<Row>) -> Result<Changes> + Send + 'static,
    ) -> Result<()> {
        let locked = (if with_members { chords() } else { counts() }, vec![group_id.to_owned()]);
        let decide = Box::new(|mut locked: Vec<Row>, _: Vec<Row>| decide(locked.pop()));
        let counter = self.counting.lock().await;
        told(counter.0.exchange(Exchange { locked, seen: (states(), Vec::new()), decide }).await)
    }

    /// Changes or deletes the row of a chord if the claim on it holds.
    async fn settle(&self, claim: &ChordClaim, lease: Option<Duration>) -> Result<bool> {
        let known = self.counting.lock().await.1.get(&claim.group_id).cloned();
        let Some(own) = known.filter(|own| own.token == claim.token) else { return Ok(false) };
        let renewed = lease.map(|lease| number(Clock::system().now(), lease).max(own.number));
        let held = Arc::new(Mutex::new(false));
        let (told_to, id) = (held.clone(), claim.group_id.clone());
        if let Some(number) = renewed {
            // Before it is written: the answer may be lost.
            let own = Own { renewed: Some(number), ..own.clone() };
            self.counting.lock().await.1.insert(id.clone(), own);
        }
        self.change(&claim.group_id, false, move |row| {
            let stored = row.as_ref().and_then(numbered).map(|(_, count)| count);
            let holds = stored.is_some_and(|stored| holds(&own, stored));
            *told_to.lock().unwrap_or_else(PoisonError::into_inner) = holds;
            Ok(match renewed {
                _ if !holds => Changes::default(),
                Some(number) => {
                    let row = vec![Cell::Text(id), Cell::Int(number)];
                    Changes { changed: vec![(counts(), vec![row])], ..Changes::default() }
                }
                None => Changes { deleted: vec![(counts(), id)], ..Changes::default() },
            })
        })
        .await?;
        let held = *held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counter = self.counting.lock().await;
        match renewed.filter(|_| held) {
            Some(number) => {
                let own = Own { token: claim.token.clone(), number, renewed: None };
                counter.1.insert(claim.group_id.clone(), own);
            }
            None => _ = counter.1.remove(&claim.group_id),
        }
        Ok(held)
    }
}

fn text(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(text) => Some(text.clone()),
        _ => None,
    }
}

/// A chord and its number, which is the last column.
fn numbered(row: &Row) -> Option<(String, i64)> {
    match row.last() {
        Some(Cell::Int(count)) => Some((text(&row[0])?, *count)),
        _ => None,
    }
}

/// A REVOKED may be stored long before its task comes, and reports then.
fn has_reported(row: &Row) -> bool {
    text(&row[1]).is_some_and(|state| matches!(State::from(state), State::Success | State::Failure))
}

fn members(row: &Row) -> Result<Vec<ResultTuple>> {
    let malformed = || Error::new(ErrorKind::Decode, "the sub_tasks of a chord are no list of results");
    let stored = text(&row[1]).ok_or_else(malformed)?;
    let members = json::parse(stored.as_bytes())?.into_list().ok_or_else(malformed)?;
    members.iter().map(ResultTuple::try_from).collect()
}

fn chord_row(group_id: &str, members: Vec<ResultTuple>, count: i64) -> Result<Row> {
    let members: Vec<Value> = members.into_iter().map(Value::from).collect();
    let text = String::from_utf8_lossy(&json::to_vec(&Value::List(members))?).into_owned();
    Ok(vec![Cell::Text(group_id.to_owned()), Cell::Text(text), Cell::Int(count)])
}

#[async_trait]
impl NativeChords for DjangoBackend {
    fn wants_header(&self) -> bool {
        true
    }

    /// A chord is announced with its header.
    async fn start_chord(&self, _group_id: &str, _size: u64) -> Result<()> {
        Ok(())
    }

    /// Stock workers drop what a member reports before this.
    async fn save_header(&self, header: &ResultTuple) -> Result<()> {
        let members = header.children.clone().unwrap_or_default();
        let count = i64::try_from(leaves(&members).len()).unwrap_or(i64::MAX);
        let row = chord_row(&header.id, members, count)?;
        self.change(&header.id, false, move |known| {
            // It was written already, and the answer was lost.
            let stored = if known.is_some() { Vec::new() } else { vec![(chords(), vec![row])] };
            Ok(Changes { stored, ..Changes::default() })
        })
        .await
    }

    async fn add_to_chord(&self, group_id: &str, task_id: &str, _group_index: Option<i64>) -> Result<()> {
        let (group, added) = (group_id.to_owned(), ResultTuple::task(task_id));
        self.change(group_id, true, move |known| {
            let Some((row, (_, count))) = known.and_then(|row| Some((numbered(&row)?, row))).map(|(n, row)| (row, n))
            else {
                return Err(Error::new(ErrorKind::Backend, format!("there is no chord {group} to add a task to")));
            };
            let mut members = members(&row)?;
            if members.iter().any(|member| member.id == added.id) {
                return Ok(Changes::default());
            }
            members.push(added);
            let row = chord_row(&group, members, count + 1)?;
            Ok(Changes { changed: vec![(chords(), vec![row])], ..Changes::default() })
        })
        .await
    }

    fn encode_part(&self, part: &ChordPart) -> Result<EncodedPart> {
        // Its result is read where the results are: of the part only the ids are.
        let bare = ChordPart { result: Value::Null.into(), ..part.clone() };
        self.codec.encode_part(&bare)
    }

    async fn store_with_parts(
        &self,
        results: &[EncodedResult],
        parts: &[EncodedPart],
    ) -> Result<Vec<Result<ChordProgress>>> {
        let table = tasks();
        let rows = results.iter().map(|result| self.row(&table, &result.payload)).collect::<Result<Vec<_>>>()?;
        let mut counter = self.counting.lock().await;
        let (mut progress, copies) = self.count(&mut counter, rows, parts, HashSet::new()).await?;
        let forgotten = self.forgotten(parts, &copies).await?;
        if !forgotten.is_empty() {
            let last: Vec<EncodedPart> =
                parts.iter().filter(|part| forgotten.contains(&part.group_id)).cloned().collect();
            let (again, _) = self.count(&mut counter, Vec::new(), &last, forgotten).await?;
            for (part, again) in last.iter().zip(again) {
                let place = parts.iter().position(|known| known.token == part.token);
                place.into_iter().for_each(|place| progress[place] = again.clone());
            }
        }
        Ok(progress.into_iter().map(Ok).collect())
    }

    async fn claimed(&self, claim: &ChordClaim) -> Result<ChordOutcome> {
        let gone = || Error::new(ErrorKind::Backend, format!("the chord {} is gone", claim.group_id));
        let header = self.header(&claim.group_id).await?.ok_or_else(gone)?;
        let polled = poll_chord(self, &header, self.options.chord_join_timeout).await?;
        // One that is not ready: a member counted twice, by stock workers. They would leave the body pending for ever.
        Ok(polled.unwrap_or_else(|| outcome(Joined::TimedOut)))
    }

    async fn extend_claim(&self, claim: &ChordClaim, lease: Duration) -> Result<bool> {
        self.settle(claim, Some(lease)).await
    }

    async fn complete_chord(&self, claim: &ChordClaim) -> Result<bool> {
        self.settle(claim, None).await
    }

    async fn fail_chord(&self, group_id: &str) -> Result<()> {
        let id = group_id.to_owned();
        self.change(group_id, false, move |_| Ok(Changes { deleted: vec![(counts(), id)], ..Changes::default() }))
            .await?;
        self.counting.lock().await.1.remove(group_id);
        Ok(())
    }
}
