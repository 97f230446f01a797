//! [`Carried`]: the headers that say which trace a message belongs to.

use crate::protocol::{Map, Value};

/// W3C Trace Context.
const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
/// W3C Baggage; Sentry's items stand in it, too.
const BAGGAGE: &str = "baggage";
/// Sentry's own.
const SENTRY: &str = "sentry-trace";
/// Where Sentry's integration looks for its headers, whatever stands beside it: the header `headers`.
const NESTED: &str = "headers";

/// All of them.
const NAMES: [&str; 4] = [PARENT, STATE, BAGGAGE, SENTRY];

/// What is longer is no trace: W3C Baggage allows 8,192 bytes.
const LONGEST: usize = 8192;

/// What a message says of its trace, as text; never empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Carried([Option<String>; NAMES.len()]);

impl Carried {
    /// Reads the headers of a message; `None` where none of them speaks of a trace.
    pub(crate) fn of(headers: &Map) -> Option<Self> {
        let nested = headers.get(NESTED).and_then(Value::as_map);
        let text = |map: &Map, name| map.get(name)?.as_str().filter(|text| is_sound(text)).map(str::to_owned);
        let read = NAMES.map(|name| text(headers, name).or_else(|| text(nested?, name)));
        read.iter().any(Option::is_some).then_some(Carried(read))
    }

    /// Writes them among headers of one's own, where Sentry looks, too. What speaks of a trace already is left alone.
    pub(crate) fn write(&self, headers: &mut Map) {
        if Carried::of(headers).is_some() {
            return;
        }
        let mut sentrys = Map::new();
        for (name, text) in self.texts() {
            headers.insert(name, text);
            if self.has(SENTRY) && [BAGGAGE, SENTRY].contains(&name) {
                sentrys.insert(name, text);
            }
        }
        if !sentrys.is_empty() {
            match headers.get_or_insert_with(NESTED, || Value::Map(Map::new())) {
                Value::Map(nested) => nested.extend(sentrys),
                other => *other = Value::Map(sentrys),
            }
        }
    }

    fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        NAMES.into_iter().zip(&self.0).filter_map(|(name, text)| Some((name, text.as_deref()?)))
    }

    fn has(&self, name: &str) -> bool {
        self.texts().any(|(there, _)| there == name)
    }
}

#[cfg(feature = "otlp")]
impl Carried {
    /// The text of one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.texts().find(|(there, _)| *there == name).map(|(_, text)| text)
    }

    /// The names that there are.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.texts().map(|(name, _)| name).collect()
    }

    /// The same with another place in the W3C trace.
    pub(super) fn replaced(carried: Option<&Self>, parent: String, state: Option<String>) -> Self {
        let mut texts = carried.map_or_else(Default::default, |carried| carried.0.clone());
        for (name, text) in NAMES.into_iter().zip(&mut texts) {
            match name {
                PARENT => *text = Some(parent.clone()),
                STATE => text.clone_from(&state),
                _ => {}
            }
        }
        Carried(texts)
    }

    /// Writes the place in the W3C trace over that of the run before.
    pub(crate) fn renew(&self, headers: &mut Map) {
        for name in [PARENT, STATE] {
            match self.get(name) {
                Some(text) => drop(headers.insert(name, text)),
                None => drop(headers.remove(name)),
            }
        }
    }
}

fn is_sound(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(from: Map, mut to: Map) -> Map {
        Carried::of(&from).expect("a trace").write(&mut to);
        to
    }

    #[test]
    fn what_opentelemetry_writes_is_handed_on() {
        let from = Map::from([("traceparent", "00-1-2-01"), ("tracestate", "a=b"), ("other", "x"), ("lang", "py")]);
        let expected = Map::from([("mine", "y"), ("traceparent", "00-1-2-01"), ("tracestate", "a=b")]);
        assert_eq!(written(from, Map::from([("mine", "y")])), expected);
    }

    #[test]
    fn what_sentry_writes_is_handed_on_where_it_looks() {
        let sentrys = || Map::from([("baggage", "sentry-release=1"), ("sentry-trace", "1-2-1")]);
        let mut expected = sentrys();
        expected.insert("headers", sentrys());
        // In both places, as it writes it; and only within, as other integrations read it.
        let mut both = sentrys();
        both.insert("headers", sentrys());
        assert_eq!(written(both, Map::new()), expected);
        assert_eq!(written(Map::from([("headers", sentrys())]), Map::new()), expected);
        let mine = Map::from([("headers", Map::from([("mine", "y")]))]);
        let nested = written(sentrys(), mine).remove("headers").and_then(Value::into_map);
        assert_eq!(nested.map(|nested| (nested.len(), nested.contains_key("mine"))), Some((3, true)));
    }

    #[test]
    fn a_trace_of_its_own_is_left_alone() {
        let own = Map::from([("traceparent", "00-3-4-01")]);
        assert_eq!(written(Map::from([("sentry-trace", "1-2-1")]), own.clone()), own);
    }

    #[test]
    fn what_is_no_trace_is_not_handed_on() {
        let long = "x".repeat(LONGEST + 1);
        for (name, value) in
            [("traceparent", Value::Int(1)), ("baggage", long.into()), ("baggage", "".into()), ("headers", 1.into())]
        {
            assert_eq!(Carried::of(&Map::from([(name, value)])), None, "{name}");
        }
    }
}
