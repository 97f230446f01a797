//! [`States`]: where `TaskContext::update_state` goes.

use async_trait::async_trait;

use super::metas::Metas;
use crate::Result;
use crate::backend::ResultWriter;
use crate::protocol::{Map, MetaResult, State, Value};
use crate::task::{Request, StateSink};

/// Stores the states that one running handler sets, or, without `result_extended`, that all do.
#[derive(Debug, Clone)]
pub(crate) struct States {
    pub(crate) writer: ResultWriter,
    pub(crate) metas: Metas,
    /// [`Metas::extension`] of the run.
    pub(crate) extension: Map,
}

#[async_trait]
impl StateSink for States {
    async fn update_state(&self, request: &Request, state: State, meta: Value) -> Result<()> {
        let mut store = self.metas.of_request(request, state, MetaResult::Value(meta), None);
        store.meta.extended = self.extension.clone();
        self.writer.store(store).await
    }
}
