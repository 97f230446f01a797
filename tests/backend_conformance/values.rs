//! A value of each kind that a result can hold.

use celeriac::protocol::{Map, Value, json};

/// Kombu's JSON for a value of each kind.
const JSON: &str = r#"[
    null, true, false, 0, -1, 9223372036854775807, 123456789012345678901234567890, 1.5, -0.0, 1e300, NaN, Infinity,
    "", "text", "h\u00e9llo \ud83c\udf31 \u0000", [], [[]], {}, {"a": {"b": [1, "2", null]}, "": 1},
    {"__type__": "datetime", "__value__": "2026-11-22T16:08:16.252716"},
    {"__type__": "datetime", "__value__": "2026-11-22T16:08:16.252716+00:00"},
    {"__type__": "date", "__value__": "2026-11-22"},
    {"__type__": "time", "__value__": "16:08:16.252716"},
    {"__type__": "decimal", "__value__": "1.10"},
    {"__type__": "uuid", "__value__": {"hex": "00112233445566778899aabbccddeeff"}},
    {"__type__": "bytes", "__value__": "bytes"},
    {"__type__": "base64", "__value__": "//4A"}
]"#;

/// A value of each kind, and one that holds them all.
pub(crate) fn every_kind() -> Vec<Value> {
    let mut values = json::parse(JSON.as_bytes()).unwrap().into_list().unwrap();
    let all: Map = values.iter().enumerate().map(|(number, value)| (number.to_string(), value.clone())).collect();
    values.push(Value::Map(all));
    values.push(Value::from("x".repeat(3_000_000)));
    values
}
