//! JSON objects whose members are looked at one by one, so that each wrong one can be named, and whose values stay the
//! caller's own text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::refusal::{FieldError, Reason, Refusal};

/// The members of an object, borrowed from its text. Of several with one name the last counts.
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// # Errors
    /// The text is no JSON object, or something follows it.
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        parse(text, "a JSON object")
    }

    /// The text of a member's value; None where it is absent or null.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.raw(name).filter(|text| *text != "null")
    }

    fn raw(&self, name: &str) -> Option<&'a str> {
        self.members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }

    /// The names of the members, as given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_ref())
    }

    /// A member that must be a string where it is there.
    pub fn string(&self, name: &str, errors: &mut Vec<FieldError>) -> Option<Cow<'a, str>> {
        let text = self.get(name)?;
        match unquote(text) {
            Ok(string) => Some(string),
            Err(error) => {
                errors.push(FieldError { pointer: format!("/{name}"), ..error });
                None
            }
        }
    }

    /// A member that must be a string and must be there.
    pub fn required_string(&self, name: &str, errors: &mut Vec<FieldError>) -> Cow<'a, str> {
        if self.get(name).is_none() {
            errors.push(required(name));
        }
        self.string(name, errors).unwrap_or_default()
    }
}

/// A member that is missing.
pub fn required(name: &str) -> FieldError {
    FieldError::new(format!("/{name}"), "required", "", "is required")
}

/// The string that JSON text stands for.
fn unquote(text: &str) -> Result<Cow<'_, str>, FieldError> {
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let inner = inner.ok_or_else(|| FieldError::new("", "type", text, "must be a string"))?;
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let broken = |e| FieldError::new("", "unicode", text, format!("is no valid text: {e}"));
    serde_json::from_str(text).map(Cow::Owned).map_err(broken)
}

/// The elements of a JSON array, borrowed from its text.
pub struct Elements<'a> {
    pub texts: Vec<&'a str>,
}

/// How many elements an array may have; the rest of a longer one is not read.
const MAX_ELEMENTS: usize = 100_000;

impl<'a> Elements<'a> {
    /// # Errors
    /// The text is no JSON array, or something follows it.
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        parse(text, "a JSON array of events")
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|e| {
        let error = FieldError::new("", "json", text, format!("must be {what}: {e}"));
        Refusal::new(Reason::Malformed, error)
    })
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((Key(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Object { members })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::with_capacity(64);
                while let Some(element) = seq.next_element::<&'de RawValue>()? {
                    if texts.len() == MAX_ELEMENTS {
                        return Err(serde::de::Error::custom(format!("more than {MAX_ELEMENTS} elements")));
                    }
                    texts.push(element.get());
                }
                Ok(Elements { texts })
            }
        }
        deserializer.deserialize_seq(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_counts_and_null_is_absent() {
        let object = Object::parse(r#"{"a":1,"b":null,"a": [ 2 ] ,"\u0063":"x\ny"}"#).expect("an object");
        assert_eq!(object.get("a"), Some("[ 2 ]"));
        assert_eq!(object.get("b"), None);
        let mut errors = Vec::new();
        assert_eq!(object.string("c", &mut errors).as_deref(), Some("x\ny"));
        assert_eq!(object.string("a", &mut errors), None);
        assert_eq!((errors[0].pointer.as_str(), errors[0].rule.as_str()), ("/a", "type"));
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = "[".repeat(200_000);
        assert!(Object::parse(&deep).is_err());
        let closed = format!("{{\"payload\":{}{}}}", deep, "]".repeat(200_000));
        assert!(Object::parse(&closed).is_ok());
    }
}
