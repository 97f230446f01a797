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
    let text = shortest(value);
    let text = text.as_str();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    // Digits but for the point after the first of them.
    let digits = mantissa.bytes().filter(u8::is_ascii_digit);
    out.extend_from_slice(sign.as_bytes());
    match exponent {
        -4..0 => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + exponent.unsigned_abs() as usize - 1, b'0');
            out.extend(digits);
        }
        0..16 => write_positional(out, digits, exponent as usize + 1),
        _ => {
            // Writing to a vector cannot fail.
            let sign = if exponent < 0 { '-' } else { '+' };
            let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
        }
    }
}

/// Appends digits of which the first `whole` stand before the point, with a digit on either side of it.
fn write_positional(out: &mut Vec<u8>, mut digits: impl Iterator<Item = u8>, whole: usize) {
    out.extend((0..whole).map(|_| digits.next().unwrap_or(b'0')));
    out.push(b'.');
    out.push(digits.next().unwrap_or(b'0'));
    out.extend(digits);
}

/// The shortest digits with an exponent. Where two texts of that length are equally near, Python takes the even one and
/// Rust the larger; rounding to that length takes the even one. A float has such neighbours only at its full precision.
fn shortest(value: f64) -> Text {
    let text = Text::of(format_args!("{value:e}"));
    let digits = text.as_str().bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
    if digits >= 15 {
        let rounded = Text::of(format_args!("{value:.*e}", digits - 1));
        if rounded.as_str().parse() == Ok(value) {
            return rounded;
        }
    }
    text
}

/// A float with an exponent, which is never longer than `-1.7976931348623157e-308`.
struct Text {
    bytes: [u8; 32],
    length: usize,
}

impl Text {
    fn of(float: std::fmt::Arguments<'_>) -> Self {
        let mut bytes = [0; 32];
        let mut rest = bytes.as_mut_slice();
        // There is room for it.
        let _ = rest.write_fmt(float);
        let length = 32 - rest.len();
        Text { bytes, length }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
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
        // Ties: these two end in .25.
        check(-(2663259495156553.0 / 4.0), "-665814873789138.2");
        check(7924411570590797.0 / 4.0, "1981102892647699.2");
        check(2f64.powi(-44), "5.684341886080802e-14");
        check(9007199254740992.0, "9007199254740992.0");
        check(123.0, "123.0");
        check(f64::NAN, "NaN");
        check(f64::NEG_INFINITY, "-Infinity");
    }
}
