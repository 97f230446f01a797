//! The operator `|`: one canvas after another (celery/canvas.py `__or__`).

use super::Rules;
use super::node::{Node, Parts, malformed};
use super::steps::unchained;
use crate::Result;

/// Each after the one before it, as `chain(X, Y, Z)` and `X | Y | Z` are built (celery/canvas.py `_fold_chain`).
pub(super) fn fold(tasks: Vec<Node>, rules: &Rules) -> Result<Node> {
    tasks.into_iter().try_fold(Node::chain(Vec::new()), |all, task| pipe(all, task, rules))
}

/// `left | right`.
pub(super) fn pipe(left: Node, right: Node, rules: &Rules) -> Result<Node> {
    match &left.parts {
        Parts::Chain(_) => pipe_chain(left, right, rules),
        Parts::Group(_) if right.is_empty_group() => Ok(left),
        Parts::Group(_) => Ok(chord(left, right)),
        Parts::Chord(_) => pipe_chord(left, right, rules),
        Parts::Task => pipe_task(left, right, rules),
    }
}

fn chord(group: Node, body: Node) -> Node {
    match group.parts {
        Parts::Group(header) => Node::chord(header, Some(body)),
        _ => Node::chord(vec![group], Some(body)),
    }
}

fn pipe_task(left: Node, right: Node, rules: &Rules) -> Result<Node> {
    let mut tasks = vec![left];
    match right.parts {
        Parts::Chain(_) => tasks.extend(unchained(right, rules)?),
        _ => tasks.push(right.unrolled()),
    }
    Ok(Node::chain(tasks))
}

fn pipe_chord(mut left: Node, right: Node, rules: &Rules) -> Result<Node> {
    let right = right.unrolled();
    if matches!(right.parts, Parts::Group(_) | Parts::Chain(_)) {
        return pipe_task(left, right, rules);
    }
    pipe_body(&mut left, right, rules)?;
    Ok(left)
}

/// Puts `right` behind a chord's body.
fn pipe_body(chord: &mut Node, right: Node, rules: &Rules) -> Result<()> {
    let Parts::Chord(parts) = &mut chord.parts else { return Err(malformed("is no chord")) };
    let body = parts.body.take().ok_or_else(|| malformed("is a chord without a body"))?;
    parts.body = Some(pipe(body, right, rules)?);
    Ok(())
}

fn pipe_chain(left: Node, right: Node, rules: &Rules) -> Result<Node> {
    if right.is_empty_group() {
        return Ok(left);
    }
    let right = right.unrolled();
    match &right.parts {
        Parts::Group(_) => pipe_chain_group(left, right, rules),
        Parts::Chain(_) => unchained(right, rules)?.into_iter().try_fold(left, |all, task| pipe(all, task, rules)),
        Parts::Task | Parts::Chord(_) => pipe_chain_one(left, right, rules),
    }
}

fn pipe_chain_group(left: Node, group: Node, rules: &Rules) -> Result<Node> {
    let mut tasks = unchained(left, rules)?;
    match tasks.last_mut() {
        None => return Ok(group),
        Some(last) if last.is_chord() => pipe_body(last, group, rules)?,
        Some(_) => tasks.push(group),
    }
    Ok(Node::chain(tasks))
}

/// A group at the end becomes the header of a chord; what follows a chord joins its body.
fn pipe_chain_one(mut left: Node, right: Node, rules: &Rules) -> Result<Node> {
    let Parts::Chain(tasks) = &mut left.parts else { return Err(malformed("is no chain")) };
    match tasks.last_mut() {
        Some(last) if last.is_group() => {
            let group = tasks.pop().unwrap_or_default();
            let chord = chord(group, right);
            match tasks.last_mut() {
                Some(before) if before.is_chord() => pipe_body(before, chord, rules)?,
                _ => tasks.push(chord),
            }
            Ok(left)
        }
        Some(last) if last.is_chord() && !right.is_chord() => {
            pipe_body(last, right, rules)?;
            Ok(left)
        }
        _ => {
            let mut tasks = unchained(left, rules)?;
            tasks.push(right);
            Ok(Node::chain(tasks))
        }
    }
}
