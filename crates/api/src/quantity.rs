//! Quantities: fixed-point numbers with a suffix (`apimachinery/pkg/api/resource`).
//!
//! Held as whole nano-units in an `i128`, which covers every value Kubernetes can hold.

use std::fmt;

const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// How a quantity was written, and so how it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `1Ki`
    BinarySi,
    /// `1k`, `100m`
    DecimalSi,
    /// `1e3`
    DecimalExponent,
}

/// An amount of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// A text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseError;

impl Quantity {
    /// A whole number of units.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nano: i128::from(units) * NANO, format }
    }

    /// A number of thousandths (milli-CPU).
    pub fn from_milli(milli: i64) -> Self {
        Self { nano: i128::from(milli) * 1_000_000, format: Format::DecimalSi }
    }

    /// Parses `1`, `0.5`, `100m`, `1Ki`, `1e3`; fractions below a nano-unit round away from zero.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 64 {
            return Err(ParseError);
        }
        let (multiplier, exponent, format) = scale(suffix)?;
        let nano = fixed(whole, fraction, multiplier, exponent + 9);
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }

    /// Whole units, rounded up, saturating at the ends of `i64`.
    pub fn value(&self) -> i64 {
        saturate(ceil_div(self.nano, NANO))
    }

    /// Thousandths, rounded up, saturating.
    pub fn milli_value(&self) -> i64 {
        saturate(ceil_div(self.nano, NANO / 1000))
    }

    /// The nearest floating-point number.
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    /// The format it was written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nano.signum() as i32
    }

    /// Whether the quantity is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }

    /// The sum, in the format of `self` (of `other` where `self` is zero), saturating.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano), format }
    }

    /// The difference, in the format of `self` (of `other` where `self` is zero), saturating.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&Self { nano: -other.nano, format: other.format })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// Prints the canonical form: no fraction, the largest suffix that keeps the number whole.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.nano.abs() >= 1024 * NANO && self.is_whole();
        if binary {
            let units = self.nano / NANO;
            let (suffix, shift) = BINARY.iter().rev().find(|(_, s)| units % (1i128 << s) == 0).copied().unwrap_or(("", 0));
            return write!(f, "{}{suffix}", units >> shift);
        }
        let (mut number, mut exponent) = (self.nano, -9);
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (Format::DecimalExponent, 0) => write!(f, "{number}"),
            (Format::DecimalExponent, e) => write!(f, "{number}e{e}"),
            (_, e) => write!(f, "{number}{}", DECIMAL.iter().find(|(_, d)| *d == e).map_or("", |(s, _)| s)),
        }
    }
}

fn scale(suffix: &str) -> Result<(i128, i32, Format), ParseError> {
    if let Some((_, shift)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((1i128 << shift, 0, Format::BinarySi));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((1, *exponent, Format::DecimalSi));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(ParseError)?;
    let exponent: i32 = digits.parse().map_err(|_| ParseError)?;
    Ok((1, exponent.clamp(-64, 64), Format::DecimalExponent))
}

/// `whole.fraction × multiplier × 10^exponent`, rounded up, capped at what `i64` units hold.
fn fixed(whole: &str, fraction: &str, multiplier: i128, exponent: i32) -> i128 {
    const CAP: i128 = i64::MAX as i128 * NANO;
    let mut value: i128 = 0;
    let mut exponent = exponent - fraction.len() as i32;
    let mut dropped = false;
    for digit in whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0')) {
        if value > CAP {
            exponent += 1;
            dropped |= digit != 0;
        } else {
            value = value * 10 + digit;
        }
    }
    if value == 0 {
        return 0;
    }
    value = value.saturating_mul(multiplier);
    while exponent > 0 && value <= CAP {
        value = value.saturating_mul(10);
        exponent -= 1;
    }
    while exponent < 0 && value != 0 {
        dropped |= value % 10 != 0;
        value /= 10;
        exponent += 1;
    }
    if dropped {
        value = value.saturating_add(1);
    }
    value.min(CAP)
}

fn ceil_div(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

fn saturate(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_canonically() {
        let table = [
            ("1", "1"), ("0.5", "500m"), ("1.5Gi", "1536Mi"), ("1000m", "1"), ("1000k", "1M"), ("1024", "1024"),
            ("1024Ki", "1Mi"), ("100m", "100m"), ("1e3", "1e3"), ("1E", "1E"), ("0Mi", "0"), ("-5", "-5"),
            ("0.1Ki", "102400m"), ("1500Mi", "1500Mi"), ("12e6", "12e6"), ("1.0", "1"), ("0.0001n", "1n"),
        ];
        for (text, want) in table {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Ok(want.to_owned()), "{text}");
        }
        for text in ["", "a", "1x", "1.2.3", "1ki", "1e", ".", "--1"] {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Err(ParseError), "{text}");
        }
    }

    #[test]
    fn rounds_up_and_adds() {
        let q = |t: &str| Quantity::parse(t).expect("quantity");
        assert_eq!((q("1500m").value(), q("1500m").milli_value()), (2, 1500));
        assert_eq!(q("1Gi").plus(&q("512Mi")).to_string(), "1536Mi");
        assert_eq!(q("1").minus(&q("250m")).to_string(), "750m");
        assert!(q("1Ki") > q("1k"));
        let huge = format!("{}1Ti", "2".repeat(39));
        assert_eq!(q(&huge).value(), i64::MAX, "capped, not wrapped");
    }
}
