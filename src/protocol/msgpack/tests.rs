use super::*;
use crate::ErrorKind;
use crate::protocol::json;

fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal.bytes().filter(|byte| *byte != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn read(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap()
}

fn moment(text: &str) -> Value {
    Value::DateTime(text.parse().unwrap())
}

fn check_refused(bytes: &[u8]) {
    assert_eq!(decode(bytes).map_err(|error| error.kind()), Err(ErrorKind::Decode), "{bytes:02x?}");
}

/// Written by `packb(value, use_bin_type=True)` of msgpack 1.2.4.
#[test]
fn as_python_writes_it() {
    let check = |value: Value, hexadecimal: &str| {
        assert_eq!(encode(&value).unwrap(), bytes_of(hexadecimal), "{value:?}");
        assert_eq!(decode(&bytes_of(hexadecimal)).unwrap(), value);
    };
    check(read("null"), "c0");
    check(read("[true, false]"), "92c3c2");
    check(read("0"), "00");
    check(read("127"), "7f");
    check(read("128"), "cc80");
    check(read("255"), "ccff");
    check(read("256"), "cd0100");
    check(read("65535"), "cdffff");
    check(read("65536"), "ce00010000");
    check(read("4294967295"), "ceffffffff");
    check(read("4294967296"), "cf0000000100000000");
    check(read("9223372036854775807"), "cf7fffffffffffffff");
    check(read("9223372036854775808"), "cf8000000000000000");
    check(read("18446744073709551615"), "cfffffffffffffffff");
    check(read("-1"), "ff");
    check(read("-32"), "e0");
    check(read("-33"), "d0df");
    check(read("-128"), "d080");
    check(read("-129"), "d1ff7f");
    check(read("-32768"), "d18000");
    check(read("-32769"), "d2ffff7fff");
    check(read("-2147483648"), "d280000000");
    check(read("-2147483649"), "d3ffffffff7fffffff");
    check(read("-9223372036854775808"), "d38000000000000000");
    check(read("1.5"), "cb3ff8000000000000");
    check(read("-Infinity"), "cbfff0000000000000");
    check(read(r#""é😀""#), "a6c3a9f09f9880");
    check(read(r#"[[2, 3], {"z": null}, {"callbacks": null}]"#), "9392020381a17ac081a963616c6c6261636b73c0");
    check(Value::Bytes(b"\xff\x00".to_vec()), "c402ff00");
    check(moment("1970-01-01T00:00:01+00:00"), "d6ff00000001");
    check(moment("2026-11-22T16:07:42.089562+00:00"), "d7ff155a6e406b03134e");
    check(moment("1969-12-31T23:59:59.500000+00:00"), "c70cff1dcd6500ffffffffffffffff");
    check(moment("2600-01-01T00:00:00+00:00"), "c70cff0000000000000004a0fe7280");
    check(moment("0001-01-01T00:00:00+00:00"), "c70cff00000000fffffff1886e0900");
    check(moment("9999-12-30T00:00:00+00:00"), "c70cff000000000000003afff19e80");
}

#[test]
fn lengths_take_their_shortest_form() {
    for length in [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
        let map: crate::protocol::Map = (0..length).map(|key| (key.to_string(), Value::Null)).collect();
        for value in [
            "x".repeat(length).into(),
            Value::Bytes(vec![7; length]),
            Value::List(vec![true.into(); length]),
            map.into(),
        ] {
            assert_eq!(decode(&encode(&value).unwrap()).unwrap(), value);
        }
    }
}

#[test]
fn what_only_others_write() {
    let check = |hexadecimal: &str, expected: Value| assert_eq!(decode(&bytes_of(hexadecimal)).unwrap(), expected);
    check("ca 3fc00000", 1.5.into());
    check("cf 00000000 00000001", 1.into());
    check("d3 ffffffff ffffffff", (-1).into());
    check("dd 00000001 c0", Value::List(vec![Value::Null]));
    check("81 c4 01 61 01", read(r#"{"a": 1}"#));
    check("82 a1 61 01 a1 61 02", read(r#"{"a": 2}"#));
    check("c7 0c ff 3b9ac9ff ffffffff ffffffff", moment("1969-12-31T23:59:59.999999+00:00"));
}

#[test]
fn malformed_input_is_refused() {
    for hexadecimal in [
        "",
        "c1",
        "c0 c0",
        "a2 61",
        "a1 ff",
        "d9",
        "dd ffffffff",
        "df 7fffffff",
        "c6 ffffffff 00",
        "db ffffffff",
        "92 c0",
        "81 01 02",
        "81 c4 01 ff 01",
        "d4 05 61",
        "d4 fe 61",
        "d6 ff 00",
        "d5 ff 0000",
        "d7 ff ffffffff ffffffff",
        "c7 0c ff 00000000 7fffffff ffffffff",
        "c7 0c ff 00000000 fffffff0 00000000",
    ] {
        check_refused(&bytes_of(hexadecimal));
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
    let deepest = decode(&nested(511)).unwrap();
    assert_eq!(encode(&deepest).unwrap(), nested(511));
    check_refused(&nested(512));
    check_refused(&vec![0x91; 1 << 20]);
    check_refused(&b"\xdd\x00\x01\x00\x00".repeat(1 << 16));
    assert_eq!(encode(&Value::List(vec![deepest])).unwrap_err().kind(), ErrorKind::Encode);
}

#[test]
fn what_python_would_not_write_is_refused() {
    let number = |text: &str| read(text);
    let values = [
        number("18446744073709551616"),
        number("-9223372036854775809"),
        moment("2026-11-22T16:00:00"),
        Value::Date("2026-11-22".parse().unwrap()),
        Value::Time("10:00:00".parse().unwrap()),
        Value::Decimal("1.5".into()),
        Value::Uuid(uuid::Uuid::nil()),
    ];
    for value in values {
        assert_eq!(encode(&value).unwrap_err().kind(), ErrorKind::Encode, "{value:?}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = fastrand::Rng::with_seed(11);
    let whole = encode(&read(r#"[[1, "text", {"k": [1.5, null, 70000]}], {}, {"chord": null}]"#)).unwrap();
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        let at = random.usize(..bytes.len());
        bytes[at] = random.u8(..);
        bytes.truncate(random.usize(..=bytes.len()));
        if let Ok(value) = decode(&bytes) {
            assert_eq!(format!("{:?}", decode(&encode(&value).unwrap()).unwrap()), format!("{value:?}"));
        }
    }
}
