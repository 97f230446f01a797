//! Chords in a memcached: the header is a saved group, and beside it stands the number in which all workers count
//! ([`counting`](super::counting)).

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use super::counting::{Decision, Known, Verdict};
use super::memory::{DONE, Member, Memory, claim_number};
use super::store::Found;
use super::wire::{Answer, Item, Request, is_key};
use super::{MemcachedBackend, told};
use crate::backend::chord::ChordFailure;
use crate::backend::join::{leaves, outcome};
use crate::backend::{
    ChordClaim, ChordOutcome, ChordPart, ChordProgress, EncodedPart, EncodedResult, NativeChords, ResultBackend, join,
};
use crate::protocol::{ResultTuple, State, Value};
use crate::time::Clock;
use crate::{Error, ErrorKind, Result};

/// What follows a chord's key in the key of its doubts.
const DOUBTS: &str = ".doubts";

/// The parts of one chord.
struct Counted<'a> {
    group_id: &'a str,
    members: Vec<Member<'a>>,
}

/// Who is told what of a chord, once its number is changed.
struct Asked<'a> {
    chord: Counted<'a>,
    verdict: Verdict,
    /// Which of the answers is that to the change; `None`: there is none.
    answer: Option<usize>,
    /// Which of them are the two to the doubts.
    doubted: Option<usize>,
}

impl MemcachedBackend {
    fn chord_key(&self, group_id: &str) -> Result<String> {
        let key = [&self.chord_keyprefix, group_id].concat();
        self.checked([&key, DOUBTS].concat()).map(|_| key)
    }

    /// How long a chord's number is kept; a claim must outlive its lease.
    fn chord_kept_for(&self, at_least: Duration) -> u32 {
        told(self.options.kept_for_chord().map(|kept| kept.max(at_least)))
    }

    fn header_kept_for(&self) -> u32 {
        told(self.options.kept_for_header())
    }

    /// Whether the results of a chord's members are kept for longer than others until it is done
    /// (`BaseKeyValueStoreBackend._chord_result_expires`).
    fn are_members_kept_longer(&self) -> bool {
        self.options.kept_for_header() != self.options.expires(&State::Success)
    }

    /// Counts parts, in rounds: the number of a chord may be changed by others meanwhile. What the server refuses is an error of
    /// the whole batch, which comes again then: until it is answered its parts are known as those that may have been counted.
    async fn count(&self, memory: &mut Memory, parts: Vec<Member<'_>>) -> Result<Vec<Result<ChordProgress>>> {
        let tokens: Vec<&str> = parts.iter().map(|member| member.part.token.as_str()).collect();
        let mut progress: Vec<Result<ChordProgress>> = parts.iter().map(|_| Ok(ChordProgress::Waiting)).collect();
        let uncounted = parts.into_iter().filter(|member| !memory.is_counted(&member.part.token));
        let mut chords = by_chord(uncounted.collect());
        while !chords.is_empty() {
            let (mut request, mut asked) = (Request::default(), Vec::new());
            let found = self.read(&self.numbers(&chords)?).await?;
            for chord in chords {
                let key = self.chord_key(chord.group_id)?;
                match self.verdict(memory, &chord, &key, &found).await {
                    Ok(verdict) => asked.push(self.ask(&mut request, chord, verdict, &key, found.get(&key))),
                    Err(error) if error.can_pass() => return Err(error),
                    Err(error) => tell(&chord.members, Err(error), &mut progress),
                }
            }
            let changed = asked.iter().filter(|asked| asked.answer.is_some());
            changed.for_each(|asked| memory.may_be_counted(&asked.chord.members));
            let answers = self.link.exchange(&request).await?;
            chords = self.counted(memory, asked, &answers, &mut progress)?;
        }
        for (token, told) in tokens.iter().zip(&progress) {
            memory.answered(token, matches!(told, Ok(ChordProgress::Busy(_))));
        }
        Ok(progress)
    }

    /// Tells the parts what the answers make of them; returns the chords whose numbers others have changed.
    fn counted<'a>(
        &self,
        memory: &mut Memory,
        asked: Vec<Asked<'a>>,
        answers: &[Answer],
        progress: &mut [Result<ChordProgress>],
    ) -> Result<Vec<Counted<'a>>> {
        let (mut again, mut refused) = (Vec::new(), None);
        for Asked { chord, verdict, answer, doubted } in asked {
            let undoubted = doubted.and_then(|place| self.not_doubted(&chord, &answers[place..]));
            if doubted.is_some() && undoubted.is_none() {
                memory.was_doubted(&chord.members);
            }
            match answer.map(|place| &answers[place]) {
                None | Some(Answer::Done) if undoubted.is_none() => {
                    memory.was_counted(&chord.members, &verdict.progress);
                    tell(&chord.members, Ok(verdict.progress), progress);
                }
                None | Some(Answer::Done) => {}
                Some(Answer::Taken | Answer::Changed | Answer::Missing) => {
                    memory.was_not_counted(&chord.members);
                    again.push(chord);
                }
                Some(Answer::Refused(words)) => {
                    memory.was_not_counted(&chord.members);
                    refused.get_or_insert(self.refused(&format!("to count the chord {}", chord.group_id), words));
                }
                Some(_) => tell(&chord.members, Err(self.unexpected()), progress),
            }
            refused = refused.or(undoubted);
        }
        refused.map_or(Ok(again), Err)
    }

    /// Why doubts were not written down, if they were not.
    fn not_doubted(&self, chord: &Counted<'_>, answers: &[Answer]) -> Option<Error> {
        match answers {
            // Whether it was there before, and the sum.
            [Answer::Done | Answer::Taken, Answer::Done, ..] => None,
            [Answer::Refused(words), ..] | [_, Answer::Refused(words), ..] => {
                Some(self.refused(&format!("to count the chord {}", chord.group_id), words))
            }
            _ => Some(Error::new(ErrorKind::Unready, format!("{} has thrown a chord out", self.link))),
        }
    }

    fn numbers(&self, chords: &[Counted<'_>]) -> Result<Vec<String>> {
        let mut keys = Vec::with_capacity(2 * chords.len());
        for chord in chords {
            let key = self.chord_key(chord.group_id)?;
            // The doubts after the number: who has added some has changed it since.
            keys.extend([key.clone(), [&key, DOUBTS].concat()]);
        }
        Ok(keys)
    }

    /// Decides, and looks for it at no more than has to be looked at.
    async fn verdict(
        &self,
        memory: &mut Memory,
        chord: &Counted<'_>,
        key: &str,
        found: &HashMap<String, Item>,
    ) -> Result<Verdict> {
        let doubts = found.get(&[key, DOUBTS].concat()).and_then(number).unwrap_or(0);
        let mut known = Known {
            number: found.get(key).and_then(number),
            doubts,
            size: memory.sizes.get(chord.group_id).copied(),
            is_certain: false,
            ready: None,
            now: Clock::system().now(),
            lease: self.options.claim_lease(),
        };
        let mut header = None;
        loop {
            match memory.decide(chord.group_id, &chord.members, known) {
                Decision::Is(verdict) => return Ok(verdict),
                Decision::NeedsHeader => {
                    header = self.restore_group(chord.group_id).await?;
                    known.is_certain = true;
                    known.size = header.as_ref().map(|header| leaves(children(header)).len() as u64);
                    known.size.map(|size| memory.sizes.insert(chord.group_id.to_owned(), size));
                }
                Decision::NeedsReadiness => {
                    let members = header.as_ref().map(|header| leaves(children(header))).unwrap_or_default();
                    known.ready = Some(self.ready(&members).await?);
                }
            }
        }
    }

    /// How many of these tasks are ready. What cannot be read was a result, and is an error of who joins them.
    async fn ready(&self, task_ids: &[&str]) -> Result<u64> {
        let keys = task_ids.iter().map(|task_id| self.task_key(task_id)).filter(|key| is_key(key));
        let found = self.read(&keys.collect::<Vec<_>>()).await?;
        let is_ready =
            |item: &&Item| self.decode(Some(item)).map_or(true, |meta| meta.is_some_and(|meta| meta.status.is_ready()));
        Ok(found.values().filter(is_ready).count() as u64)
    }

    /// Writes the commands that a verdict asks for.
    fn ask<'a>(
        &self,
        request: &mut Request,
        chord: Counted<'a>,
        verdict: Verdict,
        key: &str,
        stored: Option<&Item>,
    ) -> Asked<'a> {
        let doubted = (verdict.doubts > 0).then(|| {
            let key = [key, DOUBTS].concat();
            request.add(&key, self.chord_kept_for(Duration::ZERO), b"0");
            request.increment(&key, verdict.doubts);
            request.forms().len() - 2
        });
        let answer = verdict.number.map(|number| {
            let kept_for = self.chord_kept_for(self.options.claim_lease().saturating_mul(2));
            let number = number.to_string();
            match stored {
                Some(stored) => request.replace(key, kept_for, number.as_bytes(), stored.unique),
                None => request.add(key, kept_for, number.as_bytes()),
            }
            request.forms().len() - 1
        });
        // As in `on_chord_part_return`: what the last member will need must not expire before it comes.
        request.touch(&[&self.group_keyprefix, chord.group_id].concat(), self.header_kept_for());
        if self.are_members_kept_longer() {
            let keys = chord.members.iter().map(|member| self.task_key(&member.part.task_id));
            keys.filter(|key| is_key(key)).for_each(|key| request.touch(&key, self.header_kept_for()));
        }
        Asked { chord, verdict, answer, doubted }
    }

    /// Changes the number of a chord whose claim holds.
    async fn settle(&self, claim: &ChordClaim, lease: Option<Duration>) -> Result<bool> {
        let key = self.chord_key(&claim.group_id)?;
        let mut memory = self.counting.lock().await;
        loop {
            let Some(own) = memory.own.get(&claim.group_id).filter(|own| own.token == claim.token).cloned() else {
                return Ok(false);
            };
            let stored = self.read(std::slice::from_ref(&key)).await?.remove(&key);
            let was = match stored.as_ref().map(number) {
                // What memcached has thrown out nobody else has.
                None => own.number,
                Some(Some(was)) if own.holds(was) => was,
                Some(_) => {
                    memory.own.remove(&claim.group_id);
                    return Ok(false);
                }
            };
            let (next, kept_for) = match lease {
                Some(lease) => {
                    let next = claim_number(Clock::system().now(), lease, &own.token).max(was);
                    (next, self.chord_kept_for(lease.saturating_mul(2)))
                }
                // For longer than the header: who finds that alone takes the chord for one whose number is lost.
                None => (DONE, self.header_kept_for()),
            };
            // Before it is written: the answer may be lost.
            let own = own.stored_as(was).renewed_as(next);
            memory.own.insert(claim.group_id.clone(), own.clone());
            let mut request = Request::default();
            match &stored {
                Some(stored) => request.replace(&key, kept_for, next.to_string().as_bytes(), stored.unique),
                None => request.add(&key, kept_for, next.to_string().as_bytes()),
            }
            if self.done("to change a chord", &request).await? == [Answer::Done] {
                memory.own.insert(claim.group_id.clone(), own.stored_as(next));
                return Ok(true);
            }
        }
    }

    /// What is left of a chord that is over is kept for as long as copies of its members may come, where stock workers delete
    /// it: such a copy would fail the body at theirs. Results get their usual time back.
    async fn leave(&self, group_id: &str) -> Result<()> {
        let mut request = Request::default();
        let (key, done) = (self.group_key(group_id)?, told(Some(self.options.done_lease())));
        request.touch(&key, done);
        request.delete(&[&self.chord_key(group_id)?, DOUBTS].concat());
        if self.are_members_kept_longer()
            && let Some(header) = self.restore_group(group_id).await?
        {
            let kept_for = self.kept_for();
            // The ids are whatever a client has sent.
            let keys = leaves(children(&header)).into_iter().map(|id| self.task_key(id));
            keys.filter(|key| is_key(key)).for_each(|key| request.touch(&key, kept_for));
        }
        self.done("to end a chord", &request).await.map(|_| ())
    }

    /// One try to add a member to a header; `false`: somebody else has changed it meanwhile.
    async fn try_to_add(&self, group_id: &str, task_id: &str) -> Result<bool> {
        let (key, chord) = (self.group_key(group_id)?, self.chord_key(group_id)?);
        let found = self.read(&[key.clone(), chord.clone()]).await?;
        let is_open = found.get(&chord).and_then(number).is_some_and(|number| number < DONE);
        let Some(stored) = found.get(&key).filter(|_| is_open) else {
            return Err(Error::new(ErrorKind::Backend, format!("there is no chord {group_id} to add a task to")));
        };
        let mut header = self.codec.decode_group(&stored.payload)?;
        let members = header.children.get_or_insert_default();
        if members.iter().any(|member| member.id == task_id) {
            return Ok(true);
        }
        members.push(ResultTuple::task(task_id));
        let mut request = Request::default();
        request.replace(&key, self.header_kept_for(), &self.codec.encode_group(&header)?, stored.unique);
        let answers = self.done(&format!("the header of the chord {group_id}"), &request).await?;
        Ok(answers == [Answer::Done])
    }
}

#[async_trait]
impl NativeChords for MemcachedBackend {
    fn wants_header(&self) -> bool {
        true
    }

    /// A chord is announced with its header.
    async fn start_chord(&self, _group_id: &str, _size: u64) -> Result<()> {
        Ok(())
    }

    /// As celery/backends/cache.py `CacheBackend._apply_chord_incr`, but that a number that is there stays: the answer may
    /// have been lost, and members have reported. One of a chord that is over begins anew.
    async fn save_header(&self, header: &ResultTuple) -> Result<()> {
        let (key, payload) = (self.chord_key(&header.id)?, self.codec.encode_group(header)?);
        self.counting.lock().await.is_over(&header.id);
        let kept_for = self.chord_kept_for(Duration::ZERO);
        let mut request = Request::default();
        request.set(&self.group_key(&header.id)?, self.header_kept_for(), &payload);
        request.add(&key, kept_for, b"0");
        let what = format!("the header of the chord {}", header.id);
        if self.done(&what, &request).await?.last() != Some(&Answer::Taken) {
            return Ok(());
        }
        let stored = self.read(std::slice::from_ref(&key)).await?.remove(&key);
        let mut request = Request::default();
        if let Some(stored) = stored.filter(|stored| number(stored).is_none_or(|number| number >= DONE)) {
            request.replace(&key, kept_for, b"0", stored.unique);
        }
        self.done(&what, &request).await.map(|_| ())
    }

    async fn add_to_chord(&self, group_id: &str, task_id: &str, _group_index: Option<i64>) -> Result<()> {
        while !self.try_to_add(group_id, task_id).await? {}
        Ok(())
    }

    fn encode_part(&self, part: &ChordPart) -> Result<EncodedPart> {
        // Its result is read where the results are: of the part only the ids are.
        let bare = ChordPart { result: Value::Null.into(), ..part.clone() };
        self.chord_key(&part.group_id)?;
        self.group_key(&part.group_id)?;
        self.codec.encode_part(&bare)
    }

    async fn store_with_parts(
        &self,
        results: &[EncodedResult],
        parts: &[EncodedPart],
    ) -> Result<Vec<Result<ChordProgress>>> {
        let expected = self.counting.lock().await.expect(parts, Clock::system().now());
        let mut found = Vec::new();
        let kept = self.store_batch(results, &mut found).await;
        let mut stored = ended(results, found);
        let mut memory = self.counting.lock().await;
        let members = parts.iter().zip(expected).enumerate().map(|(place, (part, was_expected))| {
            let found = stored.get_mut(part.task_id.as_str()).and_then(Vec::pop);
            let is_copy = match found {
                _ if memory.is_copy(&part.token) => true,
                Some(Found::Ended) => {
                    memory.had_ended(&part.token);
                    true
                }
                Some(Found::Itself) => !was_expected,
                Some(Found::Unready) | None => false,
            };
            Member { place, part, is_copy, has_result: found.is_some() }
        });
        let members = members.collect();
        kept?;
        self.count(&mut memory, members).await
    }

    async fn claimed(&self, claim: &ChordClaim) -> Result<ChordOutcome> {
        let Some(header) = self.restore_group(&claim.group_id).await? else {
            let message = format!("GroupResult {} no longer exists", claim.group_id);
            return Ok(ChordOutcome::Failed(ChordFailure { message, cause: None }));
        };
        Ok(outcome(join(self, children(&header), self.options.chord_join_timeout).await?))
    }

    async fn extend_claim(&self, claim: &ChordClaim, lease: Duration) -> Result<bool> {
        self.settle(claim, Some(lease)).await
    }

    async fn complete_chord(&self, claim: &ChordClaim) -> Result<bool> {
        if !self.settle(claim, None).await? {
            return Ok(false);
        }
        self.leave(&claim.group_id).await?;
        self.counting.lock().await.forget(&claim.group_id);
        Ok(true)
    }

    async fn fail_chord(&self, group_id: &str) -> Result<()> {
        let mut request = Request::default();
        request.set(&self.chord_key(group_id)?, self.header_kept_for(), DONE.to_string().as_bytes());
        self.done("to fail a chord", &request).await?;
        self.counting.lock().await.forget(group_id);
        self.leave(group_id).await
    }
}

fn children(header: &ResultTuple) -> &[ResultTuple] {
    header.children.as_deref().unwrap_or_default()
}

/// A number as stock clients write it; pylibmc leaves blanks after one that has become shorter.
fn number(item: &Item) -> Option<u64> {
    std::str::from_utf8(&item.payload).ok()?.trim().parse().ok()
}

fn by_chord(parts: Vec<Member<'_>>) -> Vec<Counted<'_>> {
    let mut chords: Vec<Counted<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for member in parts {
        let group_id = member.part.group_id.as_str();
        let place = *places.entry(group_id).or_insert(chords.len());
        if place == chords.len() {
            chords.push(Counted { group_id, members: Vec::new() });
        }
        chords[place].members.push(member);
    }
    chords
}

/// What the results found that end tasks; those of one task from the last to the first.
fn ended(results: &[EncodedResult], found: Vec<Found>) -> HashMap<&str, Vec<Found>> {
    let mut ended: HashMap<&str, Vec<Found>> = HashMap::new();
    for (result, found) in results.iter().zip(found).rev().filter(|(result, _)| result.state.is_ready()) {
        ended.entry(&result.task_id).or_default().push(found);
    }
    ended
}

/// Puts what each part is told in its place.
fn tell(members: &[Member<'_>], told: Result<Vec<ChordProgress>>, progress: &mut [Result<ChordProgress>]) {
    let each = match told {
        Ok(told) => told.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) => members.iter().map(|_| Err(Error::new(error.kind(), error.to_string()))).collect(),
    };
    for (member, told) in members.iter().zip(each) {
        progress[member.place] = told;
    }
}
