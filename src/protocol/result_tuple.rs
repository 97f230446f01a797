//! [`ResultTuple`]: where a result can be found, as metas and replies carry it (celery/result.py `as_tuple`).

use super::Value;
use crate::{Error, ErrorKind, Result};

/// The ids of a task's result, or of a group's and its members', with those of what they came after
/// (celery/result.py `AsyncResult.as_tuple`, `GroupResult.as_tuple`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultTuple {
    /// The task's or the group's id.
    pub id: String,
    /// The result before it in a chain.
    pub parent: Option<Box<ResultTuple>>,
    /// A group's members; `None` for a task.
    pub children: Option<Vec<ResultTuple>>,
}

impl ResultTuple {
    /// The result of one task that came after none.
    pub fn task(id: impl Into<String>) -> Self {
        ResultTuple { id: id.into(), parent: None, children: None }
    }

    /// The results of a group that came after none.
    pub fn group(id: impl Into<String>, children: Vec<ResultTuple>) -> Self {
        ResultTuple { id: id.into(), parent: None, children: Some(children) }
    }

    /// The same result behind `parent`.
    #[must_use]
    pub fn with_parent(mut self, parent: ResultTuple) -> Self {
        self.parent = Some(Box::new(parent));
        self
    }
}

/// Reads `[[id, parent], children]`, where `children` is null for a task, and `[id, children]`
/// (celery/result.py `result_from_tuple`). Another shape is an error of kind [`ErrorKind::Decode`].
impl TryFrom<&Value> for ResultTuple {
    type Error = Error;

    fn try_from(value: &Value) -> Result<Self> {
        let [result, children] = pair(value)?;
        let (id, parent) = match result {
            Value::List(_) => pair(result).map(|[id, parent]| (id, Some(parent)))?,
            id => (id, None),
        };
        let parent = parent.filter(|parent| parent.is_truthy()).map(ResultTuple::try_from).transpose()?;
        let children = match children {
            Value::Null => None,
            Value::List(children) => Some(children.iter().map(ResultTuple::try_from).collect::<Result<_>>()?),
            _ => return Err(malformed()),
        };
        Ok(ResultTuple { id: id.as_str().ok_or_else(malformed)?.to_owned(), parent: parent.map(Box::new), children })
    }
}

fn pair(value: &Value) -> Result<&[Value; 2]> {
    value.as_list().and_then(|items| items.try_into().ok()).ok_or_else(malformed)
}

fn malformed() -> Error {
    Error::new(ErrorKind::Decode, "a result tuple is not [[id, parent], children]")
}

/// Writes `[[id, parent], children]`.
impl From<ResultTuple> for Value {
    fn from(result: ResultTuple) -> Self {
        let parent = result.parent.map_or(Value::Null, |parent| Value::from(*parent));
        let children = result.children.map(|children| children.into_iter().map(Value::from).collect());
        Value::List(vec![
            Value::List(vec![Value::String(result.id), parent]),
            children.map_or(Value::Null, Value::List),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json;

    fn read(text: &str) -> Result<ResultTuple> {
        ResultTuple::try_from(&json::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn tuples() {
        let check = |text: &str, expected: ResultTuple| {
            assert_eq!(read(text).unwrap(), expected, "{text}");
            assert_eq!(json::to_vec(&expected.into()).unwrap(), text.as_bytes());
        };
        check(r#"[["a", null], null]"#, ResultTuple::task("a"));
        check(r#"[["b", [["a", null], null]], null]"#, ResultTuple::task("b").with_parent(ResultTuple::task("a")));
        check(
            r#"[["g", [["p", null], null]], [[["a", null], null], [["h", null], []]]]"#,
            ResultTuple::group("g", vec![ResultTuple::task("a"), ResultTuple::group("h", vec![])])
                .with_parent(ResultTuple::task("p")),
        );
    }

    #[test]
    fn a_bare_id_and_an_empty_parent() {
        assert_eq!(read(r#"["a", null]"#).unwrap(), ResultTuple::task("a"));
        assert_eq!(read(r#"[["a", []], null]"#).unwrap(), ResultTuple::task("a"));
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in
            ["null", "[]", "[1, null]", r#""a""#, r#"[["a"], null]"#, r#"[["a", null], 1]"#, r#"[["a", "p"], null]"#]
        {
            assert_eq!(read(text).unwrap_err().kind(), ErrorKind::Decode, "{text}");
        }
    }
}
