use super::*;
use crate::protocol::json;

fn read(json: &str) -> Value {
    json::parse(json.as_bytes()).unwrap()
}

#[test]
fn whole() {
    let check = |json: &str, expected: &str| assert_eq!(repr(&read(json)), expected);
    check("[null, true, false, 1, -2.5, 1e16, NaN, -Infinity]", "[None, True, False, 1, -2.5, 1e+16, nan, -inf]");
    check(r#"{"a": [], "it's": {}}"#, r#"{'a': [], "it's": {}}"#);
    check(r#""both ' and \"""#, r#"'both \' and "'"#);
    check(
        r#""\u00e9\u0000\u007f\u00a0\u200b\ud83d\ude00\udb40\udc01\n\t\\""#,
        r"'é\x00\x7f\xa0\u200b😀\U000e0001\n\t\\'",
    );
    check(r#""e\u0301""#, "'e\u{301}'");
    check(r#"{"__type__": "bytes", "__value__": "a'\u0000\\"}"#, r#"b"a'\x00\\""#);
    check(r#"{"__type__": "base64", "__value__": "/w=="}"#, r"b'\xff'");
    check(r#"{"__type__": "decimal", "__value__": "1.50"}"#, "Decimal('1.50')");
    check(
        r#"{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000007"}}"#,
        "UUID('00000000-0000-0000-0000-000000000007')",
    );
    assert_eq!(tuple(&[1.into()]), "(1,)");
    assert_eq!(tuple(&[]), "()");
    assert_eq!(tuple(&[1.into(), "a".into()]), "(1, 'a')");
}

#[test]
fn moments() {
    let check = |kind: &str, text: &str, expected: &str| {
        assert_eq!(repr(&read(&format!(r#"{{"__type__": "{kind}", "__value__": "{text}"}}"#))), expected);
    };
    let utc = "datetime.datetime(2026, 11, 22, 16, 7, 42, 89562, tzinfo=datetime.timezone.utc)";
    check("datetime", "2026-11-22T16:07:42.089562+00:00", utc);
    check("datetime", "2026-11-22T00:00:00", "datetime.datetime(2026, 11, 22, 0, 0)");
    let west =
        "datetime.datetime(2026, 11, 22, 0, 0, tzinfo=datetime.timezone(datetime.timedelta(days=-1, seconds=68400)))";
    check("datetime", "2026-11-22T00:00:00-05:00", west);
    check("date", "2026-11-22", "datetime.date(2026, 11, 22)");
    check("time", "10:11:00.000005", "datetime.time(10, 11, 0, 5)");
    check(
        "time",
        "10:11:12+01:00",
        "datetime.time(10, 11, 12, tzinfo=datetime.timezone(datetime.timedelta(seconds=3600)))",
    );
}

/// As `saferepr(value, maxlen, maxlevels)` of Celery 5.7 returns it; the third says whether the list stands for a tuple.
#[test]
fn shortened() {
    let rows = [
        ("[1]", 1024, 3, true, "(1,)"),
        ("[]", 1024, 3, true, "()"),
        (
            r##"[1, "it's", null, 1.5, {"__type__": "bytes", "__value__": "abc"}]"##,
            1024,
            3,
            true,
            r"(1, 'it\'s', None, 1.5, b'abc')",
        ),
        (r##"[[[[1]]], {"a": {"b": {"c": 1}}}]"##, 1024, 3, true, "([[[...]]], {'a': {'b': {...}}})"),
        ("[[1], {}]", 1024, 1, false, "[[...], {...}]"),
        ("[[[1]]]", 1024, 0, false, "[[[1]]]"),
        (r##""word word word word word ""##, 12, 3, false, "'word word...'"),
        (r##""xxxxxxxxxxxxxxxxxxxx""##, 10, 3, false, "'xxxxxxxxxx...'"),
        (r##""'''''""##, 3, 3, false, r"'\'\'\'...'"),
        (r##"{"__type__": "base64", "__value__": "/wA="}"##, 1024, 3, false, "b'ff00'"),
        (r##"{"__type__": "bytes", "__value__": "\u00e9\ud83d\ude00"}"##, 3, 3, false, "b'c3a9f0...'"),
        (r##"{"__type__": "bytes", "__value__": "abcdef"}"##, 3, 3, false, "b'abc...'"),
        ("[1, 2, 3, 4, 5]", 5, 3, true, "(1, 2..., ...)"),
        ("[1, 2, 3]", 1, 3, true, "(, ...)"),
        ("[1, 2, 3]", 0, 3, true, ", ..."),
        ("[1]", 2, 3, true, "(1...,)"),
        ("[[1, 2], [3, 4]]", 6, 3, true, "([1, 2...], ...)"),
        (r##"{"key": "value", "other": [1, 2]}"##, 12, 3, false, "{'key': 'valu...', ...}"),
        (r##"{"a": 1}"##, 3, 3, false, "{'a', ...}"),
        ("[[], []]", 3, 3, false, "[[], ...]"),
        (r##"[123456789, "a b c"]"##, 8, 3, true, "(1234567..., ...)"),
        ("12345678", 5, 3, false, "12345..."),
        (r##"[{"__type__": "decimal", "__value__": "1.50"}]"##, 12, 3, false, "[Decimal('1....]"),
        (r##""a\nb""##, 1024, 3, false, "'a\nb'"),
        ("[null, [1]]", 5, 3, true, "(None..., ...)"),
    ];
    for (value, length, levels, tuple, expected) in rows {
        let limits = Limits { length: Some(length), levels };
        let shown = match read(value) {
            Value::List(items) if tuple => argsrepr(&items, limits),
            value => saferepr(&value, limits),
        };
        assert_eq!(shown, expected, "{value} {length} {levels}");
    }
}
