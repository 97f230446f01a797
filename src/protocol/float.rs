//! Floats as Python writes them.

use std::io::Write;

/// Appends a float as `json.dumps` writes it: `1.0`, `1e+16`, `NaN`, `-Infinity`.
pub(crate) fn write_json(out: &mut Vec<u8>, value: f64) {
    write(out, value, ["NaN", "Infinity", "-Infinity"]);
}

/// Appends a float as Python's `repr` writes it: `1.0`, `1e+16`, `nan`, `-inf`.
pub(crate) fn write_repr(out: &mut Vec<u8>, value: f64) {
    write(out, value, ["nan", "inf", "-inf"]);
}

fn write(out: &mut Vec<u8>, value: f64, [nan, infinity, negative_infinity]: [&str; 3]) {
    match value {
        _ if value.is_nan() => out.extend_from_slice(nan.as_bytes()),
        f64::INFINITY => out.extend_from_slice(infinity.as_bytes()),
        f64::NEG_INFINITY => out.extend_from_slice(negative_infinity.as_bytes()),
        _ => write_finite(out, value),
    }
}

/// Python writes the shortest digits that read back as the same float, as Rust does, but has its own bounds for when an
/// exponent is written (CPython's `float_repr_style` "short": below 1e-4 and from 1e16 on).
fn write_finite(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        // Writing to a vector cannot fail; `{:?}` puts `.0` behind a whole number.
        let _ = write!(out, "{value:?}");
        return;
    }
    let start = out.len();
    let _ = write!(out, "{value:e}");
    let Some(at) = out[start..].iter().position(|byte| *byte == b'e') else { return };
    let exponent = out.split_off(start + at + 1);
    let (sign, digits) = match exponent.split_first() {
        Some((b'-', digits)) => (b'-', digits),
        _ => (b'+', exponent.as_slice()),
    };
    out.push(sign);
    if digits.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_writes_them() {
        let check = |value: f64, expected: &str| {
            let mut out = Vec::new();
            write_json(&mut out, value);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(1.0, "1.0");
        check(-0.0, "-0.0");
        check(0.1, "0.1");
        check(1e15, "1000000000000000.0");
        check(9999999999999998.0, "9999999999999998.0");
        check(1e16, "1e+16");
        check(1.5e16, "1.5e+16");
        check(1e22, "1e+22");
        check(0.0001, "0.0001");
        check(0.00001, "1e-05");
        check(0.00012345, "0.00012345");
        check(-1.5e-7, "-1.5e-07");
        check(f64::MAX, "1.7976931348623157e+308");
        check(f64::MIN_POSITIVE, "2.2250738585072014e-308");
        check(5e-324, "5e-324");
        check(f64::NAN, "NaN");
        check(f64::NEG_INFINITY, "-Infinity");
    }
}
