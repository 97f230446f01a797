use super::*;
use crate::ErrorKind;
use crate::protocol::json;

/// What is read, as JSON.
fn read(text: &str) -> String {
    let value = decode(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    String::from_utf8(json::to_vec(&value).unwrap()).unwrap()
}

fn check_refused(text: &str) {
    let shown: String = text.chars().take(80).collect();
    assert_eq!(decode(text.as_bytes()).map_err(|error| error.kind()), Err(ErrorKind::Decode), "{shown:?}");
}

/// As `safe_load` of PyYAML 6.0.3 reads it.
#[test]
fn scalars() {
    let rows = [
        ("yes", "true"),
        ("No", "false"),
        ("ON", "true"),
        ("off", "false"),
        ("TRUE", "true"),
        ("tRue", r#""tRue""#),
        ("y", r#""y""#),
        ("null", "null"),
        ("~", "null"),
        ("", "null"),
        ("NULL", "null"),
        ("nULL", r#""nULL""#),
        ("0", "0"),
        ("-0", "0"),
        ("017", "15"),
        ("-017", "-15"),
        ("08", r#""08""#),
        ("0_", "0"),
        ("0x1F", "31"),
        ("-0x_f", "-15"),
        ("0b101", "5"),
        ("0o17", r#""0o17""#),
        ("1_000", "1000"),
        ("1:30", "90"),
        ("-1:30:15", "-5415"),
        ("1:60", r#""1:60""#),
        ("1.5", "1.5"),
        ("1.", "1.0"),
        (".5", "0.5"),
        ("+.5", r#""+.5""#),
        ("1e3", r#""1e3""#),
        ("1.5e3", r#""1.5e3""#),
        ("1.5e+3", "1500.0"),
        ("1_0.5", "10.5"),
        ("1:30.5", "90.5"),
        (".inf", "Infinity"),
        ("-.INF", "-Infinity"),
        ("+.inf", "Infinity"),
        (".NaN", "NaN"),
        ("-.nan", r#""-.nan""#),
        ("9223372036854775808", "9223372036854775808"),
        ("2020-01-01", r#"{"__type__": "date", "__value__": "2020-01-01"}"#),
        ("2020-1-1", r#""2020-1-1""#),
        ("2020-1-1 1:00:00", r#"{"__type__": "datetime", "__value__": "2020-01-01T01:00:00"}"#),
        ("2020-01-01T10:00:00Z", r#"{"__type__": "datetime", "__value__": "2020-01-01T10:00:00+00:00"}"#),
        (
            "2020-01-01 10:00:00.1234567 -05:30",
            r#"{"__type__": "datetime", "__value__": "2020-01-01T10:00:00.123456-05:30"}"#,
        ),
        ("2020-01-01 10:00:00 +5", r#"{"__type__": "datetime", "__value__": "2020-01-01T10:00:00+05:00"}"#),
        ("=x", r#""=x""#),
        ("a b", r#""a b""#),
        (r#""yes""#, r#""yes""#),
        ("'1'", r#""1""#),
        (r#"! "1""#, "1"),
        ("!!str 1", r#""1""#),
        (r#"!!int "0x10""#, "16"),
        (r#"!!float "1""#, "1.0"),
        (r#"!!bool "On""#, "true"),
        (r#"!!null "x""#, "null"),
        (r#"!!timestamp "2020-1-1""#, r#"{"__type__": "date", "__value__": "2020-01-01"}"#),
        (r#"!!binary "YWI=""#, r#"{"__type__": "bytes", "__value__": "ab"}"#),
        (r#"!!binary "/w==""#, r#"{"__type__": "base64", "__value__": "/w=="}"#),
        (r#"!<tag:yaml.org,2002:int> "3""#, "3"),
        (r#""\x41\u00e9\U0001F600\n\\""#, r#""A\u00e9\ud83d\ude00\n\\""#),
        ("'it''s'", r#""it's""#),
    ];
    for (text, expected) in rows {
        assert_eq!(read(text), expected, "{text}");
    }
}

/// As `safe_load` of PyYAML 6.0.3 reads it; keys as JSON has them, pairs and sets as lists.
#[test]
fn documents() {
    let rows = [
        ("", "null"),
        ("# nothing", "null"),
        ("--- a\n...\n", r#""a""#),
        ("%TAG !e! tag:yaml.org,2002:\n--- !e!int \"3\"", "3"),
        ("a: 1\na: 2", r#"{"a": 2}"#),
        ("{2: a, -1.5: b, true: c, ~: d}", r#"{"2": "a", "-1.5": "b", "true": "c", "null": "d"}"#),
        ("{=: 1}", r#"{"=": 1}"#),
        ("{a, b: }", r#"{"a": null, "b": null}"#),
        ("- &a {x: 1}\n- *a", r#"[{"x": 1}, {"x": 1}]"#),
        ("{<<: {a: 1}, a: 2, b: 3}", r#"{"a": 2, "b": 3}"#),
        ("{a: 2, <<: {a: 1, c: 3}}", r#"{"a": 2, "c": 3}"#),
        ("{<<: [{a: 1}, {a: 2, b: 3}]}", r#"{"a": 1, "b": 3}"#),
        ("{<<: {a: 1}, <<: {a: 2}}", r#"{"a": 2}"#),
        ("!!omap [a: 1, b: 2]", r#"[["a", 1], ["b", 2]]"#),
        ("!!pairs [a: 1, a: 2]", r#"[["a", 1], ["a", 2]]"#),
        ("!!set {b, a, b}", r#"["b", "a"]"#),
        ("|\n a\n  b\n", r#""a\n b\n""#),
        (">-\n a\n b\n\n c\n", r#""a b\nc""#),
        ("? long\n: - 1\n  - 2\n", r#"{"long": [1, 2]}"#),
    ];
    for (text, expected) in rows {
        assert_eq!(read(text), expected, "{text:?}");
    }
}

/// Each written text was read by `safe_load` as the value that it was written from.
#[test]
fn what_is_written() {
    let rows = [
        ("null", "null"),
        ("true", "true"),
        ("0", "0"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551616", "18446744073709551616"),
        ("1.0", "1.0"),
        ("1e+16", "1.0e+16"),
        ("1.5e-07", "1.5e-07"),
        ("Infinity", ".inf"),
        (r#""""#, r#""""#),
        (
            r#""it's \"q\"\\\n\t\u0000\u007f\u0085\u00e9\u2028\ud83d\ude00""#,
            r#""it's \"q\"\\\n\x09\x00\x7F\x85\xE9\u2028\U0001F600""#,
        ),
        (r#"{"__type__": "base64", "__value__": "/wA="}"#, r#"!!binary "/wA=""#),
        ("[]", "[]"),
        ("{}", "{}"),
        (r#"[[2, 3], {"z": null}, {"callbacks": null}]"#, r#"[[2, 3], {"z": null}, {"callbacks": null}]"#),
        (r#"{"__type__": "date", "__value__": "2026-11-22"}"#, r#"!!timestamp "2026-11-22""#),
        (
            r#"{"__type__": "datetime", "__value__": "2026-11-22T16:07:42.089562-05:00"}"#,
            r#"!!timestamp "2026-11-22T16:07:42.089562-05:00""#,
        ),
        (r#"{"__type__": "datetime", "__value__": "2026-11-22T00:00:00"}"#, r#"!!timestamp "2026-11-22T00:00:00""#),
    ];
    for (value, expected) in rows {
        let value = json::parse(value.as_bytes()).unwrap();
        let written = encode(&value).unwrap();
        assert_eq!(String::from_utf8_lossy(&written), expected);
        assert_eq!(decode(&written).unwrap(), value, "{expected}");
    }
}

#[test]
fn long_keys_are_explicit() {
    for length in [997, 998, 999, 1030] {
        let map: crate::protocol::Map = [("k".repeat(length), 1)].into_iter().collect();
        let written = encode(&map.clone().into()).unwrap();
        assert_eq!(written.starts_with(b"{? \""), length > 998);
        assert_eq!(decode(&written).unwrap(), Value::Map(map));
    }
}

#[test]
fn malformed_documents_are_refused() {
    for text in [
        "[",
        "{a",
        "\"a",
        "a: b: c",
        "--- 1\n--- 2",
        "*x",
        "a\0b",
        "a\u{7}",
        "=",
        "- <<",
        "<<: 3",
        "<<: [3]",
        "? [1]\n: 2",
        "{{}: 1}",
        "{2020-01-01: 1}",
        "!foo 1",
        "!!foo 1",
        "!!python/object:os.system x",
        "!!python/tuple [1]",
        "!<tag:yaml.org,2002:python/none> x",
        "!!str [1]",
        "!!map [1]",
        "!!seq {a: 1}",
        "!!omap {a: 1}",
        "!!omap [1]",
        "!!pairs [{a: 1, b: 2}]",
        "!!set {[1]}",
        "!!bool maybe",
        "!!int x",
        "!!float x",
        "!!binary YQ",
        "!!binary é=",
        "!!timestamp x",
        "0x_",
        "2020-13-01",
        "2020-01-01T24:00:00",
        "0000-01-01",
        "2020-01-01T10:00:00+24:00",
    ] {
        check_refused(text);
    }
    check_refused(&"9".repeat(4301));
    check_refused(&format!("0x{}", "f".repeat(4000)));
}

#[test]
fn encodings() {
    let check = |bytes: &[u8], expected: Option<&str>| assert_eq!(decode(bytes).ok(), expected.map(Value::from));
    check(b"\xef\xbb\xbfa", Some("a"));
    check(b"\xff\xfea\0\xe9\0", Some("aé"));
    check(b"\xfe\xff\0a\xd8\x3d\xde\0", Some("a😀"));
    check(b"\xff\xfea", None);
    check(b"\xff\xfe\0\xd8", None);
    check(b"a\xff", None);
}

#[test]
fn nesting_is_bounded() {
    let written = "[".repeat(255) + &"]".repeat(255);
    let deep = decode(written.as_bytes()).unwrap();
    assert_eq!(encode(&deep).unwrap(), written.as_bytes());
    assert_eq!(encode(&Value::List(vec![deep])).unwrap_err().kind(), ErrorKind::Encode);
    assert!(decode("- ".repeat(1000).as_bytes()).is_ok());
    check_refused(&"- ".repeat(1001));
    check_refused(&"[".repeat(100_000));
    check_refused(&"{".repeat(100_000));
    let chain: String = (1..1200).map(|at| format!("- &a{at} [*a{}]\n", at - 1)).collect();
    check_refused(&format!("- &a0 x\n{chain}"));
}

#[test]
fn aliases_do_not_multiply_without_end() {
    check_refused("- &a [*a]");
    check_refused("&a {b: *a}");
    let names: Vec<char> = ('a'..='l').collect();
    let bomb: String = names
        .windows(2)
        .map(|pair| format!("{}: &{} [{}]\n", pair[1], pair[1], vec![format!("*{}", pair[0]); 9].join(",")))
        .collect();
    check_refused(&format!("a: &a [x,x,x,x,x,x,x,x,x]\n{bomb}"));
    let anchors: String = (0..400).map(|at| format!("{}- &a{at}\n", " ".repeat(at))).collect();
    check_refused(&format!("{anchors}{}- {}", " ".repeat(400), "x".repeat(400_000)));
}

#[test]
fn what_python_would_not_write_is_refused() {
    let values = [
        Value::Time("10:00:00".parse().unwrap()),
        Value::Decimal("1.5".into()),
        Value::Uuid(uuid::Uuid::nil()),
        Value::DateTime("1890-01-01T00:00:00+00:53:28".parse().unwrap()),
    ];
    for value in values {
        assert_eq!(encode(&value).unwrap_err().kind(), ErrorKind::Encode, "{value:?}");
    }
}

#[test]
fn no_text_makes_it_panic() {
    let parts = [
        "- ", ": ", "? ", "&a ", "*a", "!!str ", "!", "|", ">", "[", "]", "{", "}", ",", "\"", "'", "\n", " ", "%TAG",
        "---", "...", "#", "\\", "<<: ", "\t", "é", "1", "x",
    ];
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..10_000 {
        let text: String = (0..random.usize(..14)).map(|_| parts[random.usize(..parts.len())]).collect();
        if let Ok(value) = decode(text.as_bytes()) {
            assert_eq!(decode(&encode(&value).unwrap()).unwrap(), value, "{text:?}");
        }
    }
}
