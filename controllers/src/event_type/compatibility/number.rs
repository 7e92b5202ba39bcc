//! Numbers of a schema, compared exactly: as decimals of any length, not as floating-point numbers.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

/// `0.d₁d₂d₃… × 10^exponent`, without zeros at either end of the digits; zero has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// What the value is, if it is a number.
    pub fn of(value: &Value) -> Option<Self> {
        value.as_number().map(Self::from)
    }

    pub fn is_whole(&self) -> bool {
        i64::try_from(self.digits.len()).is_ok_and(|digits| digits <= self.exponent)
    }

    /// Whether every multiple of this number is one of `divisor`; unknown for numbers out of any ordinary range.
    pub fn is_multiple_of(&self, divisor: &Self) -> Option<bool> {
        // Both as whole numbers of the smaller one's last place.
        let places = [self, divisor].map(|n| i64::try_from(n.digits.len()).unwrap_or(i64::MAX) - n.exponent);
        let last = places[0].max(places[1]);
        match (self.scaled(last)?, divisor.scaled(last)?) {
            (_, 0) => None,
            (number, divisor) => Some(number % divisor == 0),
        }
    }

    /// The whole number at or above (`up`) or at or below it, where it fits.
    pub fn rounded(&self, up: bool) -> Option<i128> {
        if self.is_whole() {
            return self.scaled(0);
        }
        let kept = usize::try_from(self.exponent.max(0)).ok()?;
        let whole = Self { negative: self.negative, digits: self.digits[..kept].to_vec(), exponent: self.exponent };
        let towards_zero = whole.scaled(0)?;
        Some(match (self.negative, up) {
            (false, true) => towards_zero + 1,
            (true, false) => towards_zero - 1,
            _ => towards_zero,
        })
    }

    /// `self × 10^places`, a whole number.
    fn scaled(&self, places: i64) -> Option<i128> {
        let digits = self.digits.iter().try_fold(0_i128, |n, d| n.checked_mul(10)?.checked_add(i128::from(*d)))?;
        if digits == 0 {
            return Some(0);
        }
        let zeros = self.exponent.checked_add(places)?.checked_sub(i64::try_from(self.digits.len()).ok()?)?;
        let size = digits.checked_mul(10_i128.checked_pow(u32::try_from(zeros).ok()?)?)?;
        Some(if self.negative { -size } else { size })
    }

    fn size(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (false, false) => self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits)),
            (mine, theirs) => theirs.cmp(&mine),
        }
    }
}

impl From<i128> for Decimal {
    fn from(whole: i128) -> Self {
        parsed(&whole.to_string())
    }
}

impl From<&Number> for Decimal {
    fn from(number: &Number) -> Self {
        parsed(&number.to_string())
    }
}

/// A number as JSON writes it.
fn parsed(text: &str) -> Decimal {
    let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit.wrapping_sub(b'0')).collect();
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    let end = digits.iter().rposition(|digit| *digit != 0).map_or(leading, |last| last + 1);
    let power: i64 = power.parse().unwrap_or_default();
    let places = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let digits = digits[leading..end].to_vec();
    let exponent = if digits.is_empty() { 0 } else { power + places(whole.len()) - places(leading) };
    Decimal { negative: negative && !digits.is_empty(), digits, exponent }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.size(other),
            (true, true) => other.size(self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(whole) = self.is_whole().then(|| self.scaled(0)).flatten() {
            return write!(f, "{whole}");
        }
        let digits: String = self.digits.iter().map(|digit| char::from(digit + b'0')).collect();
        let sign = if self.negative { "-" } else { "" };
        match usize::try_from(self.exponent) {
            Ok(whole) if whole > 0 && whole < digits.len() => {
                write!(f, "{sign}{}.{}", &digits[..whole], &digits[whole..])
            }
            Ok(0) => write!(f, "{sign}0.{digits}"),
            _ => write!(f, "{sign}0.{digits}e{}", self.exponent),
        }
    }
}

/// Whether two values are the same to JSON Schema, to which 1 and 1.0 are one number.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || Decimal::from(one) == Decimal::from(other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| equal(a, b))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len() && one.iter().all(|(name, a)| other.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decimal(value: &Value) -> Decimal {
        Decimal::of(value).expect("a number")
    }

    #[test]
    fn numbers_are_in_order_however_they_are_written() {
        let ordered =
            [json!(-1e300), json!(-10), json!(-9.5), json!(-0.001), json!(0.0), json!(1e-7), json!(0.1), json!(1.0)];
        let large = [json!(9_007_199_254_740_992_u64), json!(9_007_199_254_740_993_u64), json!(u64::MAX), json!(1e300)];
        let ordered: Vec<Decimal> = ordered.iter().chain(&large).map(decimal).collect();
        assert!(ordered.is_sorted_by(|a, b| a < b), "{ordered:?}");
        assert_eq!(decimal(&json!(100)), decimal(&json!(1e2)));
        assert!(equal(&json!({"a": [1, 2.0]}), &json!({"a": [1.0, 2]})) && !equal(&json!([1]), &json!([1, 1])));
    }

    #[test]
    fn multiples_are_of_decimals_and_rounding_is_to_either_side() {
        for (number, divisor, expected) in [(10, json!(5), true), (5, json!(10), false), (1, json!(0.1), true)] {
            assert_eq!(Decimal::from(number).is_multiple_of(&decimal(&divisor)), Some(expected), "{number} {divisor}");
        }
        assert_eq!(decimal(&json!(0.3)).is_multiple_of(&decimal(&json!(0.1))), Some(true));
        assert_eq!(decimal(&json!(1e300)).is_multiple_of(&Decimal::from(7)), None);
        for (number, down, up) in [(2.5, 2, 3), (-2.5, -3, -2), (3.0, 3, 3), (0.01, 0, 1), (-0.01, -1, 0)] {
            let number = decimal(&json!(number));
            assert_eq!((number.rounded(false), number.rounded(true)), (Some(down), Some(up)), "{number}");
        }
    }

    #[test]
    fn numbers_are_shown_as_people_write_them() {
        for shown in ["0", "-7", "0.5", "-12.25", "18446744073709551615"] {
            assert_eq!(parsed(shown).to_string(), shown);
        }
    }
}
