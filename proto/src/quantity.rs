//! Amounts of a resource as Kubernetes writes them: `500m`, `64Mi`, `1.5G`, `1e3`; exact, never a float.
//!
//! The grammar and the canonical form are those of `k8s.io/apimachinery/pkg/api/resource`: a number with a decimal or binary suffix or
//! a decimal exponent; what is finer than a billionth is rounded up, away from zero, so that who asked for some gets some.
//!
//! Invariant: a quantity is a whole number of billionths, its magnitude at most 2⁶³ − 1; equal amounts are equal, however written.

use std::{cmp::Ordering, fmt, str::FromStr};

use thiserror::Error;

/// The longest quantity, in bytes: room for the largest amount with nine decimals, and no more work than that takes.
pub const MAX_LENGTH: usize = 64;

/// The largest power of ten of an exponent, up or down.
pub const MAX_EXPONENT: i32 = 18;

const NANO: i128 = 1_000_000_000;
const LARGEST: i128 = i64::MAX as i128 * NANO;

/// An amount.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nano: i128,
    style: Style,
}

/// How an amount is written; it does not change what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Decimal,
    Binary,
    Exponent,
}

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Too long.
    #[error("a quantity has at most {MAX_LENGTH} bytes, this one has {0}")]
    Length(usize),
    /// It does not begin with a number.
    #[error("`{0}` is no quantity: it does not begin with a number such as `2`, `0.5` or `-1`")]
    Number(String),
    /// What follows the number is no suffix.
    #[error(
        "`{suffix}` in `{text}` is no suffix of a quantity: use n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, or an exponent such as e3"
    )]
    Suffix {
        /// The whole text.
        text: String,
        /// What follows the number.
        suffix: String,
    },
    /// The exponent is too large.
    #[error("the exponent of `{0}` is beyond {MAX_EXPONENT}")]
    Exponent(String),
    /// The amount is too large.
    #[error("`{0}` is more than the largest quantity, {max}", max = i64::MAX)]
    TooLarge(String),
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0, style: Style::Decimal };

    /// So many thousandths: millicores, for `cpu`.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self { nano: millis as i128 * 1_000_000, style: Style::Decimal }
    }

    /// So many whole units, written with binary suffixes: bytes, for `memory`.
    #[must_use]
    pub const fn from_bytes(bytes: i64) -> Self {
        Self { nano: bytes as i128 * NANO, style: Style::Binary }
    }

    /// In thousandths, rounded up; [`i64::MAX`] if it is more than that.
    #[must_use]
    pub fn millis(self) -> i64 {
        round_up(self.nano, 1_000_000)
    }

    /// In whole units (bytes, pods), rounded up.
    #[must_use]
    pub fn units(self) -> i64 {
        round_up(self.nano, NANO)
    }
}

/// Divides, rounding away from zero as Kubernetes does, into the range of an `i64`.
fn round_up(nano: i128, divisor: i128) -> i64 {
    let magnitude = nano.abs().div_euclid(divisor) + i128::from(nano % divisor != 0);
    i64::try_from(magnitude * nano.signum()).unwrap_or(if nano < 0 { i64::MIN } else { i64::MAX })
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.len() > MAX_LENGTH {
            return Err(QuantityError::Length(text.len()));
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Number(text.to_owned()));
        }
        let (style, unit, finer) = unit(text, suffix)?;

        let too_large = || QuantityError::TooLarge(text.to_owned());
        let whole = digits(whole)
            .try_fold(0_i128, |sum, digit| sum.checked_mul(10)?.checked_add(digit))
            .and_then(|whole| whole.checked_mul(unit))
            .ok_or_else(too_large)?;
        // From the last digit to the first, rounding up each time: the same as rounding up once at the end.
        let fraction = digits(fraction).rev().fold(0, |sum, digit| (sum + digit * unit + 9) / 10);
        let magnitude = (whole.checked_add(fraction).ok_or_else(too_large)? + (finer - 1)) / finer;
        if magnitude > LARGEST {
            return Err(too_large());
        }
        Ok(Self { nano: if negative { -magnitude } else { magnitude }, style })
    }
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = i128> + '_ {
    text.bytes().map(|byte| i128::from(byte.wrapping_sub(b'0')))
}

/// What one unit of a suffix is: so many billionths, divided by the last number where it is finer than that.
fn unit(text: &str, suffix: &str) -> Result<(Style, i128, i128), QuantityError> {
    let decimal = |power: u32| Ok((Style::Decimal, 10_i128.pow(power), 1));
    let binary = |power: u32| Ok((Style::Binary, NANO << (10 * power), 1));
    match suffix {
        "n" => decimal(0),
        "u" => decimal(3),
        "m" => decimal(6),
        "" => decimal(9),
        "k" => decimal(12),
        "M" => decimal(15),
        "G" => decimal(18),
        "T" => decimal(21),
        "P" => decimal(24),
        "E" => decimal(27),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let unknown = || QuantityError::Suffix { text: text.to_owned(), suffix: suffix.to_owned() };
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(unknown)?;
            let exponent: i32 = exponent.parse().map_err(|_| unknown())?;
            if exponent.abs() > MAX_EXPONENT {
                return Err(QuantityError::Exponent(text.to_owned()));
            }
            let power = |exponent: i32| 10_i128.pow(exponent.max(0).unsigned_abs());
            Ok((Style::Exponent, power(exponent + 9), power(-9 - exponent)))
        }
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves a whole number.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.nano % NANO == 0;
        if self.style == Style::Binary && whole && self.nano.abs() >= 1024 * NANO {
            let (mut number, mut power) = (self.nano / NANO, 0);
            while number % 1024 == 0 && power < 6 {
                (number, power) = (number / 1024, power + 1);
            }
            return write!(formatter, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut number, mut power) = (self.nano, 0);
        while number != 0 && number % 1000 == 0 && power < 9 {
            (number, power) = (number / 1000, power + 1);
        }
        match (number, self.style) {
            (0, _) => formatter.write_str("0"),
            (_, Style::Exponent) if power == 3 => number.fmt(formatter),
            (_, Style::Exponent) => write!(formatter, "{number}e{}", i64::try_from(power).unwrap_or_default() * 3 - 9),
            _ => write!(formatter, "{number}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power]),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn amounts_mean_what_they_mean_in_kubernetes() {
        for (text, millis, units) in [
            ("0", 0, 0),
            ("500m", 500, 1),
            ("0.5", 500, 1),
            (".5", 500, 1),
            ("2.", 2000, 2),
            ("+3", 3000, 3),
            ("-1.5", -1500, -2),
            ("64Mi", 67_108_864_000, 67_108_864),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("1G", 1_000_000_000_000, 1_000_000_000),
            ("1e3", 1_000_000, 1000),
            ("1E3", 1_000_000, 1000),
            ("25e-1", 2500, 3),
            ("1u", 1, 1),
            ("0.1n", 1, 1),
            ("1e-18", 1, 1),
            ("1E", i64::MAX, 1_000_000_000_000_000_000),
            ("7Ei", i64::MAX, 8_070_450_532_247_928_832),
            ("9223372036854775807", i64::MAX, i64::MAX),
        ] {
            assert_eq!((parse(text).millis(), parse(text).units()), (millis, units), "{text}");
        }
    }

    #[test]
    fn an_amount_is_written_with_the_largest_suffix_that_leaves_it_whole() {
        for (text, canonical) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("100000", "100k"),
            ("123456", "123456"),
            ("1.5G", "1500M"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Gi", "107374182400m"),
            ("1e3", "1e3"),
            ("1e4", "10e3"),
            ("11e2", "1100"),
            ("5e-1", "500e-3"),
            ("0Mi", "0"),
            ("-2048", "-2048"),
            ("-2Ki", "-2Ki"),
        ] {
            assert_eq!(parse(text).to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_the_reason() {
        for (text, message) in [
            ("", "`` is no quantity: it does not begin with a number such as `2`, `0.5` or `-1`"),
            ("Mi", "`Mi` is no quantity: it does not begin with a number such as `2`, `0.5` or `-1`"),
            ("1.2.3", "`1.2.3` is no quantity: it does not begin with a number such as `2`, `0.5` or `-1`"),
            ("1e19", "the exponent of `1e19` is beyond 18"),
            ("8Ei", "`8Ei` is more than the largest quantity, 9223372036854775807"),
            ("9223372036854775807.1", "`9223372036854775807.1` is more than the largest quantity, 9223372036854775807"),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap_err().to_string(), message);
        }
        for (text, suffix) in
            [("1 Gi", " Gi"), ("64MB", "MB"), ("1K", "K"), ("1e", "e"), ("1e3Mi", "e3Mi"), ("5€", "€")]
        {
            let expected = QuantityError::Suffix { text: text.into(), suffix: suffix.into() };
            assert_eq!(text.parse::<Quantity>(), Err(expected));
        }
        assert_eq!("9".repeat(65).parse::<Quantity>(), Err(QuantityError::Length(65)));
        assert!(matches!("9".repeat(64).parse::<Quantity>(), Err(QuantityError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same_amount(number in 0_i64..1_000_000_000, fraction in 0..1_000_000_000_u32, suffix in 0..16_usize) {
            let suffix = ["n", "u", "m", "", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "e-3", "E-12", "e9", "e0", "e-18"][suffix];
            let amount = parse(&format!("{number}.{fraction:09}{suffix}"));
            prop_assert_eq!(parse(&amount.to_string()), amount);
            prop_assert_eq!(parse(&amount.to_string()).to_string(), amount.to_string(), "the canonical form is its own");
        }

        #[test]
        fn no_text_makes_the_parser_fail_otherwise_than_with_an_error(text in "\\PC{0,70}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
