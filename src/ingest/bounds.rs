//! What JSON must keep to so that whatever is accepted can be stored and read again: nesting, text that PostgreSQL
//! can hold, numbers that jsonb and every reader can hold.
//!
//! In: syntactically valid JSON (other text is scanned without a panic, but may pass). Out: nothing, or the first
//! place that breaks a rule.

use std::ops::Range;

use super::pointer::pointer_to;
use super::refusal::FieldError;

/// Most digits before the point of a number written out: those of the largest double.
const MAX_INTEGER_DIGITS: i64 = 309;
/// Most digits behind the point of a number written out, and the largest exponent.
const MAX_FRACTION_DIGITS: i64 = 1_000;
/// Bytes that the numbers of one payload may grow by when they are written out: `1e300` is 301 digits in jsonb.
const MAX_GROWTH: i64 = 1 << 20;

/// A rule that JSON text breaks, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Depth(usize),
    Nul,
    Surrogate,
    NumberRange,
    NumberGrowth,
}

impl Broken {
    fn rule(self) -> &'static str {
        match self {
            Self::Depth(_) => "max-depth",
            Self::Nul => "no-nul",
            Self::Surrogate => "unicode",
            Self::NumberRange => "number-range",
            Self::NumberGrowth => "number-size",
        }
    }

    fn message(self) -> String {
        match self {
            Self::Depth(max) => format!("must not be nested deeper than {max} levels"),
            Self::Nul => "must not contain \\u0000, which the database cannot store".to_owned(),
            Self::Surrogate => "must not contain half of a surrogate pair: write both halves or none".to_owned(),
            Self::NumberRange => format!(
                "must be a number within the range of a double (at most {MAX_FRACTION_DIGITS} digits behind the point); \
                 send larger ones as strings"
            ),
            Self::NumberGrowth => "holds too many numbers with large exponents; send them as strings".to_owned(),
        }
    }
}

/// Checks JSON text that stands at `pointer`.
///
/// # Errors
/// The first broken rule, with the pointer to its place.
pub fn check(text: &str, max_depth: usize, pointer: &str) -> Result<(), FieldError> {
    scan(text.as_bytes(), max_depth).map_err(|(broken, at)| {
        let place = format!("{pointer}{}", pointer_to(text, at.start));
        let shown = match broken {
            Broken::Depth(_) => "",
            _ => text.get(at).unwrap_or_default(),
        };
        FieldError::new(place, broken.rule(), shown, broken.message())
    })
}

fn scan(text: &[u8], max_depth: usize) -> Result<(), (Broken, Range<usize>)> {
    let (mut at, mut depth, mut growth) = (0, 0_usize, 0_i64);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at)?,
            b'-' | b'0'..=b'9' => {
                let end = number_end(text, at);
                growth += number_growth(&text[at..end]).ok_or((Broken::NumberRange, at..end))?;
                if growth > MAX_GROWTH {
                    return Err((Broken::NumberGrowth, at..end));
                }
                at = end;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err((Broken::Depth(max_depth), at..at + 1));
                }
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// The place behind the string that begins at `start`.
fn string_end(text: &[u8], start: usize) -> Result<usize, (Broken, Range<usize>)> {
    let mut at = start + 1;
    loop {
        let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) else {
            return Ok(text.len());
        };
        at += found;
        if text[at] == b'"' {
            return Ok(at + 1);
        }
        let wrong = |broken, at: usize| (broken, start..(at + 6).min(text.len()));
        at += match (text.get(at + 1), code_unit(text, at)) {
            (Some(b'u'), Some(0)) => return Err(wrong(Broken::Nul, at)),
            (Some(b'u'), Some(0xD800..=0xDBFF)) => match code_unit(text, at + 6) {
                Some(0xDC00..=0xDFFF) => 12,
                _ => return Err(wrong(Broken::Surrogate, at)),
            },
            (Some(b'u'), Some(0xDC00..=0xDFFF)) => return Err(wrong(Broken::Surrogate, at)),
            _ => 2,
        };
    }
}

/// The UTF-16 code unit of the escape `\uXXXX` at `at`.
fn code_unit(text: &[u8], at: usize) -> Option<u16> {
    let escape = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()
}

fn number_end(text: &[u8], start: usize) -> usize {
    let part = |b: &u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    start + text[start..].iter().take_while(|b| part(b)).count()
}

/// How many bytes longer a number is when it is written out without exponent; None if it is out of range.
fn number_growth(number: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(number).ok()?;
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        None => (text, 0),
        Some(e) => (&text[..e], text[e + 1..].parse::<i64>().ok()?),
    };
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if exponent.abs() > MAX_FRACTION_DIGITS {
        return None;
    }
    let length = |part: &str| i64::try_from(part.len()).unwrap_or(i64::MAX);
    let scale = length(fraction).saturating_sub(exponent).max(0);
    let digits = length(integer.trim_start_matches('0')).saturating_add(exponent).max(0);
    if scale > MAX_FRACTION_DIGITS || digits > MAX_INTEGER_DIGITS {
        let zero = mantissa.bytes().all(|b| matches!(b, b'0' | b'.'));
        return (zero && scale <= MAX_FRACTION_DIGITS).then_some(0);
    }
    if digits >= MAX_INTEGER_DIGITS - 1 && !text.parse::<f64>().is_ok_and(f64::is_finite) {
        return None;
    }
    Some((digits + scale - length(mantissa)).max(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn rule(text: &str) -> (String, String) {
        let error = check(text, 4, "/payload").expect_err(text);
        (error.pointer, error.rule)
    }

    #[test]
    fn names_the_place_and_the_rule() {
        for (text, pointer, broken) in [
            ("[[[[[1]]]]]", "/payload/0/0/0/0", "max-depth"),
            (r#"{"a":[1,{"b/c":"x\u0000"}]}"#, "/payload/a/1/b~1c", "no-nul"),
            (r#"{"x\u0000":1}"#, "/payload/", "no-nul"),
            (r#"{"a":"\ud800"}"#, "/payload/a", "unicode"),
            (r#"["\ud800\u0041"]"#, "/payload/0", "unicode"),
            (r#"["\udc00"]"#, "/payload/0", "unicode"),
            ("[1,1e309]", "/payload/1", "number-range"),
            ("-1.8e308", "/payload", "number-range"),
            ("1e-1001", "/payload", "number-range"),
            ("0e999999999999999999999", "/payload", "number-range"),
        ] {
            assert_eq!(rule(text), (pointer.to_owned(), broken.to_owned()), "{text}");
        }
        let many = format!("[{}1]", "1e300,".repeat(4_000));
        assert_eq!(rule(&many).1, "number-size");
    }

    #[test]
    fn lets_pass_what_can_be_stored() {
        for text in [
            "[[[[1]]]]",
            r#""\ud83d\ude00 \\u0000 \"""#,
            r#"{"a":1.7976931348623157e308,"b":5e-324,"c":123456789012345678901234567890.5}"#,
            "0e300",
            "0.0000e999",
        ] {
            assert_eq!(check(text, 4, ""), Ok(()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in r#"[\[\]{}",:\\u0dDc89aeE.+\-1 ü]{0,60}"#, depth in 0_usize..6) {
            let _ = check(&text, depth, "");
        }

        #[test]
        fn what_passes_every_reader_can_parse(text in r"-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,4})?") {
            if check(&text, 1, "").is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
            }
        }
    }
}
