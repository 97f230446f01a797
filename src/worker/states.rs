//! [`States`]: where `TaskContext::update_state` goes.

use async_trait::async_trait;

use super::metas::Metas;
use crate::Result;
use crate::backend::ResultWriter;
use crate::protocol::{MetaResult, State, Value};
use crate::task::{Request, StateSink};

/// Stores the states that running handlers set.
#[derive(Debug, Clone)]
pub(crate) struct States {
    pub(crate) writer: ResultWriter,
    pub(crate) metas: Metas,
}

#[async_trait]
impl StateSink for States {
    async fn update_state(&self, request: &Request, state: State, meta: Value) -> Result<()> {
        self.writer.store(self.metas.of_request(request, state, MetaResult::Value(meta), None)).await
    }
}
