//! [`write`]: whole numbers as text. Every message, result and event holds some, and `core::fmt` takes its time for each.

/// As many digits as a number may have.
const MOST: usize = 20;

/// Appends a number in decimal, with zeros before it if it has fewer digits than `least`, which is 20 at most.
pub(crate) fn write(mut number: u64, least: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; MOST];
    let mut begin = MOST;
    while number > 0 {
        begin -= 1;
        digits[begin] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[begin.min(MOST.saturating_sub(least))..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_formatter_writes_them() {
        let powers = (0..20).map(|exponent| 10_u64.pow(exponent)).flat_map(|power| [power - 1, power, power + 1]);
        for number in powers.chain([u64::MAX, u64::MAX - 1]) {
            for least in [1, 6, MOST] {
                let mut out = b"x".to_vec();
                write(number, least, &mut out);
                assert_eq!(String::from_utf8(out).unwrap(), format!("x{number:0least$}"));
            }
        }
    }
}
