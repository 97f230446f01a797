//! Storing batches: a result is added where there is none, which most often is so; one that finds another in its place
//! replaces that by its number, unless the state rules say that it stays.

use std::collections::HashMap;

use super::MemcachedBackend;
use super::wire::{Answer, Item, Request};
use crate::backend::EncodedResult;
use crate::backend::rules::overwrites;
use crate::protocol::State;
use crate::{Error, Result};

/// Results of one task, in their order, that found something in their place: their numbers in the batch.
struct Waiting<'a> {
    key: String,
    results: Vec<(usize, &'a EncodedResult)>,
}

/// What becomes of them.
struct Decided {
    /// The number of the result that is to be stored in the end; `None`: what is there stays.
    last: Option<usize>,
    /// What each of them found, by its number.
    found: Vec<(usize, Found)>,
}

/// What a result found in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or a task that had not ended.
    Unready,
    /// A task that had ended: this may be a copy's. A REVOKED may also be stored long before its task comes; that it is taken
    /// for a copy costs a look.
    Ended,
    /// Itself: it was stored already, and the answer was lost.
    Itself,
}

impl MemcachedBackend {
    /// Stores results, and says what each found, as far as it got. All that can be stored is, also where one is refused.
    pub(super) async fn store_batch(&self, batch: &[EncodedResult], found: &mut Vec<Found>) -> Result<()> {
        let kept_for = self.kept_for();
        let mut request = Request::default();
        for result in batch {
            // Checked where it was encoded, but anybody may call this.
            request.add(&self.checked(self.task_key(&result.task_id))?, kept_for, &result.payload);
        }
        found.resize(batch.len(), Found::Unready);
        let mut refused = None;
        let mut waiting: Vec<Waiting<'_>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (number, (result, answer)) in batch.iter().zip(self.link.exchange(&request).await?).enumerate() {
            match answer {
                Answer::Done => {}
                Answer::Taken => {
                    let place = *places.entry(&result.task_id).or_insert(waiting.len());
                    if place == waiting.len() {
                        waiting.push(Waiting { key: self.task_key(&result.task_id), results: Vec::new() });
                    }
                    waiting[place].results.push((number, result));
                }
                other => _ = refused.get_or_insert(self.not_stored(result, &other)),
            }
        }
        while !waiting.is_empty() {
            waiting = self.replace(waiting, kept_for, found, &mut refused).await?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// One try to put results in the place of others; those whose place was changed meanwhile are returned.
    async fn replace<'a>(
        &self,
        waiting: Vec<Waiting<'a>>,
        kept_for: u32,
        found: &mut [Found],
        refused: &mut Option<Error>,
    ) -> Result<Vec<Waiting<'a>>> {
        let keys: Vec<String> = waiting.iter().map(|one| one.key.clone()).collect();
        let stored = self.read(&keys).await?;
        let (mut request, mut asked) = (Request::default(), Vec::new());
        for one in waiting {
            let item = stored.get(&one.key);
            let decided = self.decide(&one, item);
            decided.found.iter().for_each(|(number, what)| found[*number] = *what);
            let last = decided.last.and_then(|last| one.results.iter().find(|(number, _)| *number == last));
            let Some((_, last)) = last.copied() else { continue };
            match item {
                Some(item) => request.replace(&one.key, kept_for, &last.payload, item.unique),
                None => request.add(&one.key, kept_for, &last.payload),
            }
            asked.push((one, last));
        }
        let mut again = Vec::new();
        for ((one, last), answer) in asked.into_iter().zip(self.link.exchange(&request).await?) {
            match answer {
                Answer::Done => {}
                Answer::Taken | Answer::Changed | Answer::Missing => again.push(one),
                other => _ = refused.get_or_insert(self.not_stored(last, &other)),
            }
        }
        Ok(again)
    }

    fn decide(&self, one: &Waiting<'_>, item: Option<&Item>) -> Decided {
        let mut state = item.and_then(|item| self.state_of(&one.key, item));
        let mut decided = Decided { last: None, found: Vec::with_capacity(one.results.len()) };
        for (number, result) in &one.results {
            let is_itself = decided.last.is_none() && item.is_some_and(|item| item.payload == result.payload);
            let what = match &state {
                _ if is_itself => Found::Itself,
                Some(State::Success | State::Failure | State::Revoked) => Found::Ended,
                _ => Found::Unready,
            };
            decided.found.push((*number, what));
            if !is_itself && state.as_ref().is_none_or(|state| overwrites(state, &result.state)) {
                decided.last = Some(*number);
                state = Some(result.state.clone());
            }
        }
        decided
    }

    /// What nobody can read protects nothing: the new result would otherwise be lost.
    fn state_of(&self, key: &str, item: &Item) -> Option<State> {
        self.decode(Some(item)).map(|meta| meta.map(|meta| meta.status)).unwrap_or_else(|error| {
            tracing::warn!("The stored result {key} is overwritten: {error}");
            None
        })
    }

    fn not_stored(&self, result: &EncodedResult, answer: &Answer) -> Error {
        match answer {
            Answer::Refused(words) => {
                let size = result.payload.len();
                self.refused(&format!("the result of {}, {size} bytes", result.task_id), words)
            }
            _ => self.unexpected(),
        }
    }
}
