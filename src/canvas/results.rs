//! [`Results`]: the tree of results that freezing makes, whose parents are still being set.

use crate::protocol::ResultTuple;

/// How many parents are written of one result: deeper ones no serializer takes.
const MAX_PARENTS: usize = 300;

/// A result in [`Results`].
pub(super) type ResultId = usize;

/// Results by number; a parent is another number.
#[derive(Debug, Default)]
pub(super) struct Results(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    id: String,
    parent: Option<ResultId>,
    children: Option<Vec<ResultId>>,
}

impl Results {
    pub(super) fn task(&mut self, id: String) -> ResultId {
        self.push(Entry { id, parent: None, children: None })
    }

    pub(super) fn group(&mut self, id: String, children: Vec<ResultId>) -> ResultId {
        self.push(Entry { id, parent: None, children: Some(children) })
    }

    fn push(&mut self, entry: Entry) -> ResultId {
        self.0.push(entry);
        self.0.len() - 1
    }

    pub(super) fn id(&self, result: ResultId) -> &str {
        &self.0[result].id
    }

    pub(super) fn is_group(&self, result: ResultId) -> bool {
        self.0[result].children.is_some()
    }

    pub(super) fn children(&self, result: ResultId) -> &[ResultId] {
        self.0[result].children.as_deref().unwrap_or_default()
    }

    pub(super) fn parent(&self, result: ResultId) -> Option<ResultId> {
        self.0[result].parent
    }

    pub(super) fn set_parent(&mut self, result: ResultId, parent: Option<ResultId>) {
        self.0[result].parent = parent;
    }

    /// The first result of those that this one came after.
    pub(super) fn first(&self, mut result: ResultId) -> ResultId {
        while let Some(parent) = self.0[result].parent {
            result = parent;
        }
        result
    }

    /// As `as_tuple()` writes it.
    pub(super) fn tuple(&self, result: ResultId) -> ResultTuple {
        self.tuple_at(result, 0)
    }

    fn tuple_at(&self, result: ResultId, depth: usize) -> ResultTuple {
        let mut line = vec![result];
        while let Some(parent) = self.0[line[line.len() - 1]].parent
            && depth + line.len() < MAX_PARENTS
        {
            line.push(parent);
        }
        let mut parent = None;
        for (above, &result) in line.iter().enumerate().rev() {
            let entry = &self.0[result];
            let children = entry.children.as_ref();
            let children = children.map(|ids| ids.iter().map(|&id| self.tuple_at(id, depth + above + 1)).collect());
            parent = Some(Box::new(ResultTuple { id: entry.id.clone(), parent, children }));
        }
        *parent.unwrap_or_else(|| Box::new(ResultTuple::task("")))
    }
}
