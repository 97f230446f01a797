use super::*;
use crate::ErrorKind;
use crate::protocol::{DateTime, Map};

fn parsed(text: &str) -> Value {
    parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn written(value: &Value) -> String {
    String::from_utf8(to_vec(value).unwrap()).unwrap()
}

/// Texts that Python writes for the values that it reads them as.
#[test]
fn unchanged_both_ways() {
    for text in [
        r#"[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#,
        r#"{"a": true, "b": false, "c": [], "d": "\u00e9\ud83d\ude00\u007f\u0000\"\\/\n\r\t\f\b"}"#,
        r#"[NaN, Infinity, -Infinity, 0, -1, 9223372036854775807, 9223372036854775808, -9223372036854775809]"#,
        r#"[1.0, -0.0, 1e+16, 1.5e-07, 0.1, 123456789.125]"#,
        r#"{"__type__": "datetime", "__value__": "2026-11-22T16:07:42.089562+00:00"}"#,
        r#"[{"__type__": "date", "__value__": "2026-11-22"}, {"__type__": "time", "__value__": "10:11:12"}]"#,
        r#"{"x": {"__type__": "decimal", "__value__": "1.50"}}"#,
        r#"{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000007"}}"#,
        r#"[{"__type__": "bytes", "__value__": "\u00e9"}, {"__type__": "base64", "__value__": "/wA="}]"#,
        r#"{"__type__": "datetime", "__value__": "x", "more": 1}"#,
        "\"long enough that whole words of eight bytes are skipped, \\\" then the rest\"",
    ] {
        assert_eq!(written(&parsed(text)), text);
    }
}

#[test]
fn read_as() {
    let check = |text: &str, expected: Value| assert_eq!(parsed(text), expected, "{text}");
    check(" [1 , 2]\n", [1, 2].into());
    check(r#"{"a": 1, "b": 2, "a": 3}"#, Map::from([("a", 3), ("b", 2)]).into());
    check(r#""\ud800""#, "\u{fffd}".into());
    check(r#""\ud800\u0041\udc00""#, "\u{fffd}A\u{fffd}".into());
    check(r#""\u00E9\/""#, "é/".into());
    check("-0", 0.into());
    check("1E5", 1e5.into());
    check("1e400", f64::INFINITY.into());
    check("\"\u{7f}é\"", "\u{7f}é".into());
    check(r#"{"__type__": "date", "__value__": "2026-11-22T10:00:00"}"#, jiff::civil::date(2026, 11, 22).into());
    check(r#"{"__value__": "2026-11-22", "__type__": "datetime"}"#, "2026-11-22".parse::<DateTime>().unwrap().into());
    check(r#"{"__type__": "decimal", "__value__": 5}"#, Value::Decimal("5".into()));
}

#[test]
fn refused() {
    let nested = "[".repeat(100_000);
    let digits = "1".repeat(5000);
    for text in [
        "",
        " ",
        "nul",
        "[1,]",
        "[1 2]",
        "{\"a\" 1}",
        "{\"a\": 1,}",
        "{a: 1}",
        "{1: 2}",
        "[",
        "{",
        "{\"a\":",
        "\"",
        "\"\\",
        "\"\\u12",
        "\"\\x\"",
        "\"\n\"",
        "01",
        "-",
        "1.",
        "1.e5",
        "1e",
        ".5",
        "+1",
        "--1",
        "-Inf",
        "[1]]",
        "1 2",
        "\u{feff}1",
        "tru\u{e9}",
        "1é",
        r#"{"__type__": "complex", "__value__": 1}"#,
        r#"{"__type__": 5, "__value__": 1}"#,
        r#"{"__type__": "uuid", "__value__": "x"}"#,
        r#"{"__type__": "datetime", "__value__": "soon"}"#,
        r#"{"__type__": "decimal", "__value__": "soon"}"#,
        r#"{"__type__": "base64", "__value__": "*"}"#,
        &nested,
        &digits,
    ] {
        let error = parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Decode);
    }
    assert!(parse(b"\"\xff\"").is_err());
}

#[test]
fn nesting_up_to_the_limit() {
    let text = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let value = parsed(&text);
    assert_eq!(written(&value), text);
    assert_eq!(value.clone(), value);
    let deeper = Value::List(vec![value]);
    assert_eq!(to_vec(&deeper).unwrap_err().kind(), ErrorKind::Encode);
}

#[test]
fn large_objects_are_read_in_linear_time() {
    let pairs: Vec<String> = (0..200_000).map(|number| format!("\"{number}\": 0")).collect();
    let value = parsed(&format!("{{{}}}", pairs.join(", ")));
    assert_eq!(value.as_map().map(Map::len), Some(200_000));
}
