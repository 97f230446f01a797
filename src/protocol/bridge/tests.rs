use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::*;
use crate::protocol::{Bytes, Date, DateTime, Decimal, Map, Time, Uuid};

fn every_kind() -> Value {
    let moment: DateTime = "2026-11-22T16:07:42.089562+02:00".parse().unwrap();
    Value::from(vec![
        Value::Null,
        true.into(),
        (-3).into(),
        u128::MAX.into(),
        1.5.into(),
        "text".into(),
        Value::Bytes(vec![0, 255]),
        moment.into(),
        moment.civil.date().into(),
        Value::Time("10:11:12+01:00".parse().unwrap()),
        Value::Decimal("1.50".into()),
        uuid::Uuid::from_u128(7).into(),
        Map::from([("a", Value::from([1, 2])), ("b", Map::new().into())]).into(),
    ])
}

#[test]
fn a_value_passes_unchanged_both_ways() {
    assert_eq!(to_value(&every_kind()).unwrap(), every_kind());
    assert_eq!(from_value::<Value>(every_kind()).unwrap(), every_kind());
    let inside: HashMap<String, Vec<Value>> = from_value(Map::from([("x", every_kind())]).into()).unwrap();
    assert_eq!(inside["x"], every_kind().into_list().unwrap());
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    at: DateTime,
    day: Date,
    time: Time,
    price: Decimal,
    id: Uuid,
    raw: Bytes,
    big: u128,
    pair: (i8, String),
    maybe: Option<f32>,
    table: BTreeMap<i64, bool>,
    shape: Shape,
    shapes: Vec<Shape>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Empty,
    Round(f64),
    Flat(i32, i32),
    Named { side: u8 },
}

fn everything() -> Everything {
    Everything {
        at: "2026-11-22T16:07:42".parse().unwrap(),
        day: Date(jiff::civil::date(2026, 11, 22)),
        time: "10:11:12".parse().unwrap(),
        price: Decimal::new("9.90").unwrap(),
        id: Uuid(uuid::Uuid::from_u128(9)),
        raw: Bytes(vec![1, 2]),
        big: u128::MAX,
        pair: (-1, "é".into()),
        maybe: None,
        table: [(-2, true)].into(),
        shape: Shape::Named { side: 3 },
        shapes: vec![Shape::Empty, Shape::Round(1.0), Shape::Flat(1, 2)],
    }
}

#[test]
fn structs_pass_both_ways_with_pythons_own_types() {
    let value = to_value(&everything()).unwrap();
    let map = value.as_map().unwrap();
    assert_eq!(map.get("price"), Some(&Value::Decimal("9.90".into())));
    assert_eq!(map.get("raw"), Some(&Value::Bytes(vec![1, 2])));
    assert!(matches!(map.get("id"), Some(Value::Uuid(_))));
    assert!(matches!(map.get("at"), Some(Value::DateTime(_))));
    assert!(matches!(map.get("day"), Some(Value::Date(_))));
    assert_eq!(from_value::<Everything>(value).unwrap(), everything());
}

#[test]
fn other_formats_see_text() {
    let text = serde_json::to_string(&everything()).unwrap();
    assert!(text.contains(r#""at":"2026-11-22T16:07:42""#), "{text}");
    assert_eq!(serde_json::from_str::<Everything>(&text).unwrap(), everything());
    let value: Value = serde_json::from_str(r#"{"a": [1, 2.5, null]}"#).unwrap();
    assert_eq!(value, Map::from([("a", Value::from(vec![Value::Int(1), Value::Float(2.5), Value::Null]))]).into());
}

#[test]
fn numbers_fit_or_are_refused() {
    assert_eq!(from_value::<f64>(3.into()).unwrap(), 3.0);
    assert_eq!(from_value::<f64>(u64::MAX.into()).unwrap(), u64::MAX as f64);
    assert_eq!(from_value::<u64>(u64::MAX.into()).unwrap(), u64::MAX);
    assert_eq!(from_value::<i128>(Value::Int(-1)).unwrap(), -1);
    assert!(from_value::<i64>(3.0.into()).is_err());
    assert!(from_value::<u8>(256.into()).is_err());
    assert!(from_value::<u8>((-1).into()).is_err());
    assert!(from_value::<i64>(true.into()).is_err());
    assert!(from_value::<bool>(1.into()).is_err());
}

#[test]
fn lists_must_fit_tuples() {
    assert_eq!(from_value::<(i64, String)>(Value::from(vec![Value::Int(1), "a".into()])).unwrap(), (1, "a".into()));
    assert!(from_value::<(i64, i64)>(Value::from([1, 2, 3])).is_err());
    assert!(from_value::<(i64, i64)>(Value::from([1])).is_err());
}

#[test]
fn lenient_where_nothing_is_lost() {
    let moment: Value = "2026-11-22T16:07:42".parse::<DateTime>().unwrap().into();
    assert_eq!(from_value::<String>(moment.clone()).unwrap(), "2026-11-22T16:07:42");
    assert_eq!(from_value::<Date>(moment).unwrap(), Date(jiff::civil::date(2026, 11, 22)));
    assert_eq!(from_value::<DateTime>("2026-11-22".into()).unwrap().to_string(), "2026-11-22T00:00:00");
    assert_eq!(from_value::<Decimal>(7.into()).unwrap().as_str(), "7");
    assert_eq!(from_value::<Bytes>("é".into()).unwrap().0, "é".as_bytes());
    assert_eq!(from_value::<Vec<u8>>(Value::Bytes(vec![1])).unwrap(), [1]);
    assert!(from_value::<DateTime>(7.into()).is_err());
    assert!(from_value::<Decimal>("seven".into()).is_err());
}

#[test]
fn endless_nesting_is_an_error() {
    struct Endless;
    impl Serialize for Endless {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq([Endless])
        }
    }
    assert_eq!(to_value(&Endless).unwrap_err().kind(), ErrorKind::Encode);
}

#[test]
fn deep_values_pass_whole_and_deep_types_are_refused() {
    #[derive(Debug, Deserialize)]
    struct Nested {
        #[serde(rename = "in")]
        inner: Option<Box<Nested>>,
    }
    let nested = |depth: usize| (0..depth).fold(Value::Null, |inner, _| Map::from([("in", inner)]).into());
    assert_eq!(from_value::<Value>(nested(1000)).unwrap(), nested(1000));
    assert_eq!(from_value::<(Value,)>(Value::from([nested(1000)])).unwrap().0, nested(1000));
    let read = from_value::<Nested>(nested(128)).unwrap();
    assert_eq!(std::iter::successors(Some(&read), |nested| nested.inner.as_deref()).count(), 128);
    assert_eq!(from_value::<Nested>(nested(129)).unwrap_err().kind(), ErrorKind::Decode);
    assert_eq!(to_value(&nested(400)).unwrap(), nested(400));
    assert_eq!(to_value(&nested(401)).unwrap_err().kind(), ErrorKind::Encode);
}
