//! Sets of types. `number` is whole numbers and others, so that `integer` is a part of it.

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    pub const NULL: Self = Self(1);
    pub const BOOLEAN: Self = Self(1 << 1);
    pub const OBJECT: Self = Self(1 << 2);
    pub const ARRAY: Self = Self(1 << 3);
    pub const STRING: Self = Self(1 << 4);
    pub const INTEGER: Self = Self(1 << 5);
    /// Numbers that are not whole.
    pub const FRACTION: Self = Self(1 << 6);
    pub const NUMBER: Self = Self(Self::INTEGER.0 | Self::FRACTION.0);
    pub const ALL: Self = Self((1 << 7) - 1);

    /// What the keyword `type` allows.
    pub fn of(keyword: &Value) -> Self {
        match keyword {
            Value::Array(names) => names.iter().map(Self::of).fold(Self(0), |all, one| Self(all.0 | one.0)),
            name => match name.as_str() {
                Some("null") => Self::NULL,
                Some("boolean") => Self::BOOLEAN,
                Some("object") => Self::OBJECT,
                Some("array") => Self::ARRAY,
                Some("string") => Self::STRING,
                Some("integer") => Self::INTEGER,
                Some("number") => Self::NUMBER,
                _ => Self::ALL,
            },
        }
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether some type is in both.
    pub fn meets(self, other: Self) -> bool {
        !self.and(other).is_empty()
    }

    pub fn is_within(self, other: Self) -> bool {
        self.without(other).is_empty()
    }

    /// Each type by itself.
    pub fn each(self) -> impl Iterator<Item = Self> {
        (0..7).map(|bit| Self(1 << bit)).filter(move |one| self.meets(*one))
    }

    /// For people: `string or number`.
    pub fn names(self) -> String {
        const NAMES: [(Types, &str); 7] = [
            (Types::NULL, "null"),
            (Types::BOOLEAN, "boolean"),
            (Types::OBJECT, "object"),
            (Types::ARRAY, "array"),
            (Types::STRING, "string"),
            (Types::INTEGER, "integer"),
            (Types::FRACTION, "number"),
        ];
        if self == Self::ALL {
            return "anything".to_owned();
        }
        // A number that may also be whole is said in one word.
        let said = if self.meets(Self::FRACTION) { self.without(Self::INTEGER) } else { self };
        let names: Vec<&str> = NAMES.iter().filter(|(one, _)| said.meets(*one)).map(|(_, name)| *name).collect();
        names.join(" or ")
    }
}
