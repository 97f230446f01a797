//! The steps of a chain, made ready to be sent (celery/canvas.py `_chain.prepare_steps`).

use std::collections::VecDeque;

use super::draft::Draft;
use super::freeze::{Freezing, strip_header_links};
use super::link::{link, link_error};
use super::node::{Node, Parts, listed, malformed};
use super::results::ResultId;
use super::{Chords, Rules};
use crate::protocol::{Map, Value};
use crate::{Error, ErrorKind, Result};

/// What a chain's steps are prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Use {
    /// To be sent now.
    #[default]
    Send,
    /// To have ids: the steps stay as they were written as far as that goes.
    Freeze,
}

/// The arguments of Celery's `prepare_steps`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Preparing<'p> {
    /// What the last step gets; its `root_id` is for all.
    pub(super) freezing: Freezing<'p>,
    /// Arguments of the first step.
    pub(super) args: &'p [Value],
    pub(super) kwargs: Option<&'p Map>,
    /// Errbacks for every step.
    pub(super) link_error: &'p [Value],
    pub(super) usage: Use,
}

/// Steps and their results, the last one first.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) steps: Vec<Node>,
    pub(super) results: Vec<ResultId>,
    /// The result that the next one found, which stands before it, is the parent of.
    latest: Option<ResultId>,
}

/// How many errbacks one chain may put on its steps in all.
const MAX_ERRBACKS: usize = 200_000;

impl Draft<'_> {
    pub(super) fn prepare_steps(&mut self, steps: VecDeque<Node>, preparing: Preparing<'_>) -> Result<Prepared> {
        let mut steps = with_a_task_in_front(steps);
        let mut prepared = Prepared::default();
        let mut count = 0;
        while let Some(step) = steps.pop_back() {
            let (is_first, is_last) = (steps.is_empty(), count == 0);
            let mut step = step.unrolled();
            if step.is_empty_group() && !(is_first && prepared.steps.is_empty()) {
                continue;
            }
            if preparing.usage == Use::Send && is_led_by_task(&step) {
                steps.extend(unrolled_body(step, self.rules)?);
                continue;
            }
            if preparing.usage == Use::Send {
                forget_header_options(&mut step);
            }
            if is_first && !step.is_group() {
                step.add_arguments(preparing.args, preparing.kwargs.unwrap_or(&Map::new()));
            }
            if let Parts::Chain(tasks) = step.parts {
                steps.extend(tasks);
                continue;
            }
            if step.is_group() && !prepared.steps.is_empty() {
                step = self.upgraded(step, &mut prepared, preparing.freezing.root_id);
            }
            let root_only = Freezing { root_id: preparing.freezing.root_id, ..Freezing::default() };
            let freezing = if is_last { Freezing { parent_id: None, ..preparing.freezing } } else { root_only };
            let result = self.freeze(&mut step, freezing)?;
            count += 1;
            check_errbacks(count, preparing.link_error)?;
            link_error(&mut step, preparing.link_error, self.rules);
            self.append(step, result, &mut prepared)?;
        }
        if preparing.usage == Use::Send {
            prepared.steps.iter_mut().for_each(strip_header_links);
        }
        Ok(prepared)
    }

    fn append(&mut self, step: Node, result: ResultId, prepared: &mut Prepared) -> Result<()> {
        if let Some(latest) = prepared.latest
            && !prepared.steps.is_empty()
            && self.results.parent(latest).is_none()
        {
            self.results.set_parent(latest, Some(result));
        }
        prepared.latest = Some(result);
        if step.is_chord() {
            ensure_chords_allowed(self.rules)?;
            prepared.latest = Some(self.results.first(result));
        }
        prepared.steps.push(step);
        prepared.results.push(result);
        Ok(())
    }

    /// The chord that a group and the step after it are.
    fn upgraded(&mut self, group: Node, prepared: &mut Prepared, root_id: Option<&str>) -> Node {
        let body = prepared.steps.pop();
        let body_result = prepared.results.pop();
        let Parts::Group(tasks) = group.parts else { return group };
        let mut chord = Node::chord(tasks, body);
        if let Some(root_id) = root_id {
            chord.options.insert("root_id", root_id);
        }
        self.unlink(prepared, body_result);
        chord
    }

    /// What comes after the body comes after the chord, whose result is the body's.
    fn unlink(&mut self, prepared: &mut Prepared, body_result: Option<ResultId>) {
        let mut node = prepared.results.last().copied();
        while let Some(at) = node
            && self.results.parent(at) != body_result
        {
            node = self.results.parent(at);
        }
        if let Some(at) = node {
            self.results.set_parent(at, None);
            prepared.latest = Some(at);
        }
    }
}

/// Nested chains at the front are put in their place and empty groups left out, so that the first step is one that takes
/// the chain's arguments. A chain of nothing but empty groups keeps one.
fn with_a_task_in_front(mut steps: VecDeque<Node>) -> VecDeque<Node> {
    let mut stripped = None;
    while let Some(head) = steps.pop_front() {
        if let Parts::Chain(tasks) = head.parts {
            tasks.into_iter().rev().for_each(|task| steps.push_front(task));
            continue;
        }
        let head = head.unrolled();
        if head.is_empty_group() && !steps.is_empty() {
            stripped = Some(head);
            continue;
        }
        steps.push_front(head);
        break;
    }
    if steps.is_empty() {
        steps.extend(stripped);
    }
    steps
}

/// A chord whose body is a chain that does not begin with a group (celery/canvas.py `_is_chain_led_by_task`).
pub(super) fn is_led_by_task(step: &Node) -> bool {
    let Parts::Chord(parts) = &step.parts else { return false };
    let Some(Parts::Chain(tasks)) = parts.body.as_ref().map(|body| &body.parts) else { return false };
    tasks.first().is_some_and(|first| !first.is_group())
}

/// Options of a chain that it keeps for itself (celery/canvas.py `_CHAIN_RUN_OPTIONS`).
const OWN_OPTIONS: [&str; 7] = ["group_id", "group_index", "link", "link_error", "parent_id", "root_id", "task_id"];

/// The chord with the first step of its body, and the other steps (celery/canvas.py `_chord._unroll_body`).
pub(super) fn unrolled_body(mut chord: Node, rules: &Rules) -> Result<Vec<Node>> {
    forget_header_options(&mut chord);
    let Parts::Chord(parts) = &mut chord.parts else { return Ok(vec![chord]) };
    let Some(mut body) = parts.body.take() else { return Ok(vec![chord]) };
    let chain = body.chain.take();
    let options = std::mem::take(&mut body.options);
    body.options = ["link", "link_error"].iter().filter_map(|&name| Some((name, options.get(name)?.clone()))).collect();
    let mut tail = unchained(body, rules)?.into_iter();
    let mut first = tail.next().ok_or_else(|| malformed("is an empty chain"))?;
    first.merge_options(options.into_iter().filter(|(name, _)| !OWN_OPTIONS.contains(&name.as_str())).collect());
    first.chain = chain.or(first.chain);
    parts.body = Some(first);
    Ok(std::iter::once(chord).chain(tail).collect())
}

/// The tasks of a chain, its links on the last and its errbacks on all (celery/canvas.py `_chain.unchain_tasks`).
pub(super) fn unchained(mut chain: Node, rules: &Rules) -> Result<Vec<Node>> {
    let Parts::Chain(mut tasks) = chain.parts else { return Err(malformed("is no chain")) };
    if let Some(last) = tasks.last_mut() {
        link(last, &listed(chain.options.remove("link")))?;
    }
    let errbacks = listed(chain.options.remove("link_error"));
    check_errbacks(tasks.len(), &errbacks)?;
    if !errbacks.is_empty() {
        tasks.iter_mut().for_each(|task| link_error(task, &errbacks, rules));
    }
    Ok(tasks)
}

/// Takes chords apart whose body is a chain (celery/canvas.py `_chain._unroll_chords`).
pub(super) fn unroll_chords(chain: &mut Node, rules: &Rules) -> Result<()> {
    let Parts::Chain(tasks) = &mut chain.parts else { return Ok(()) };
    let mut pending: VecDeque<Node> = std::mem::take(tasks).into();
    while let Some(mut task) = pending.pop_front() {
        unroll_chords(&mut task, rules)?;
        if is_led_by_task(&task) {
            unrolled_body(task, rules)?.into_iter().rev().for_each(|task| pending.push_front(task));
        } else {
            tasks.push(task);
        }
    }
    Ok(())
}

fn check_errbacks(steps: usize, errbacks: &[Value]) -> Result<()> {
    match steps.saturating_mul(errbacks.len()) {
        0..=MAX_ERRBACKS => Ok(()),
        _ => Err(malformed(&format!("puts more than {MAX_ERRBACKS} errbacks on its steps"))),
    }
}

/// A chord that is cloned has a list for its header again. Celery gives it a new id then; ours stays, so that the result
/// that was frozen is the one that is stored.
fn forget_header_options(step: &mut Node) {
    if let Parts::Chord(parts) = &mut step.parts
        && let Some(options) = &mut parts.group
    {
        *options = options.remove("task_id").map(|id| Map::from([("task_id", id)])).unwrap_or_default();
    }
}

pub(super) fn ensure_chords_allowed(rules: &Rules) -> Result<()> {
    match &rules.chords {
        Chords::Refused(why) => Err(Error::new(ErrorKind::Configuration, why.clone())),
        _ => Ok(()),
    }
}
