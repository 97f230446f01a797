//! [`Sink`]: what one running handler asks of its worker.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::request::parent_of;
use super::results::Results;
use super::sender::{Ready, Sender};
use crate::canvas::continuation::Replaced;
use crate::canvas::{Given, Plan};
use crate::protocol::{Embed, Map, MetaResult, ResultTuple, Signature, State, Value};
use crate::task::{Request, SignatureSink, StateSink};
use crate::trace;
use crate::{Error, ErrorKind, Result};

/// What one running handler asks of its worker: states to store and tasks to send.
pub(crate) struct Sink {
    results: Arc<Results>,
    /// What `result_extended` adds to what the run stores.
    extension: Map,
    sender: Arc<Sender>,
    embed: Arc<Embed>,
    /// What the handler has sent so far.
    children: Mutex<Vec<ResultTuple>>,
}

impl Sink {
    pub(crate) fn new(results: Arc<Results>, extension: Map, sender: Arc<Sender>, embed: Arc<Embed>) -> Arc<Self> {
        Arc::new(Sink { results, extension, sender, embed, children: Mutex::default() })
    }

    /// What the handler has sent: the `children` of its result.
    pub(crate) fn take_children(&self) -> Vec<ResultTuple> {
        std::mem::take(&mut *self.children.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn carry_out(&self, ready: Ready) -> Result<()> {
        let children = self.sender.carry_out_ready(ready).await?;
        self.children.lock().unwrap_or_else(PoisonError::into_inner).extend(children);
        Ok(())
    }
}

fn result_of(plan: &Plan) -> Result<ResultTuple> {
    let nothing = || Error::new(ErrorKind::Configuration, "send a signature: there is nothing in it");
    plan.result.clone().ok_or_else(nothing)
}

#[async_trait]
impl StateSink for Sink {
    async fn update_state(&self, request: &Request, state: State, meta: Value) -> Result<()> {
        let mut store = self.results.metas.of_request(request, state, MetaResult::Value(meta), None);
        store.meta.extended = self.extension.clone();
        self.results.writer.store(store).await
    }
}

#[async_trait]
impl SignatureSink for Sink {
    async fn send(&self, request: &Request, signature: Signature) -> Result<ResultTuple> {
        let plan = self.sender.plan(Some(&parent_of(request)), signature, Given::default())?;
        let result = result_of(&plan)?;
        self.carry_out(trace::within(&request.headers, || self.sender.prepare(plan))?).await?;
        Ok(result)
    }

    async fn add_to_chord(&self, request: &Request, signature: Signature) -> Result<ResultTuple> {
        let of = replaced(request, &self.embed);
        let added =
            self.sender.with_planner(Some(&parent_of(request)), |planner| planner.add_to_chord(of, signature))?;
        let (group_id, result) = (added.group_id, result_of(&added.plan)?);
        // What cannot be encoded is not waited for.
        let ready = trace::within(&request.headers, || self.sender.prepare(added.plan))?;
        // First the count and then the member, which may have ended before the count otherwise.
        self.sender.insist(|chords| chords.add_to_chord(&group_id, &result.id, request.group_index)).await?;
        self.carry_out(ready).await?;
        Ok(result)
    }

    fn add_child(&self, child: ResultTuple) {
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    }
}

/// What `replace` and `add_to_chord` need to know of the run.
pub(crate) fn replaced(request: &Request, embed: &Embed) -> Replaced {
    let nesting = request.headers.get("replaced_task_nesting").and_then(Value::as_i64);
    Replaced {
        id: request.id.clone(),
        root_id: request.root_id.clone(),
        group: request.group.clone(),
        group_index: request.group_index,
        replaced_task_nesting: nesting.unwrap_or_default(),
        embed: embed.clone(),
    }
}
