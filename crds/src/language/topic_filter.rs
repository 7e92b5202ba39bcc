//! MQTT topic filters, and what the aggregate id is made of where events come in by MQTT. Pure.
//!
//! `+` stands for one level and `#`, as the last level, for all that follow (MQTT 5.0, section 4.7).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Longest filter, in bytes, as far as MQTT goes.
const MAX_BYTES: usize = 65_535;

/// A topic filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicFilter {
    levels: Vec<Level>,
}

/// In order of how much they say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Exact(String),
    /// `+`
    One,
    /// `#`
    Rest,
}

/// Why a text is no topic filter, or no aggregate id of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("must not be empty")]
    Empty,
    #[error("must have at most {MAX_BYTES} bytes")]
    TooLong,
    #[error("must hold no control characters")]
    Control,
    #[error("a wildcard must be a level of its own: '{0}' is not, write devices/+/reading or devices/#")]
    Mixed(String),
    #[error("'#' must be the last level")]
    RestNotLast,
    #[error("must not begin with $share: subscriptions are shared by the setting of ingest")]
    Shared,
    #[error("'{{{0}}}' names no wildcard: write {{1}} for the first, {{2}} for the second; the filter has {1}")]
    NoSuchWildcard(String, usize),
    #[error("'{{' is not closed")]
    Unclosed,
}

impl FromStr for TopicFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => return Err(FilterError::Empty),
            _ if text.len() > MAX_BYTES => return Err(FilterError::TooLong),
            _ if text.chars().any(char::is_control) => return Err(FilterError::Control),
            _ if text == "$share" || text.starts_with("$share/") => return Err(FilterError::Shared),
            _ => {}
        }
        let levels = text.split('/').map(level).collect::<Result<Vec<_>, _>>()?;
        let last = levels.len() - 1;
        if levels.iter().position(|level| *level == Level::Rest).is_some_and(|at| at < last) {
            return Err(FilterError::RestNotLast);
        }
        Ok(Self { levels })
    }
}

fn level(text: &str) -> Result<Level, FilterError> {
    match text {
        "+" => Ok(Level::One),
        "#" => Ok(Level::Rest),
        _ if text.contains(['+', '#']) => Err(FilterError::Mixed(text.to_owned())),
        _ => Ok(Level::Exact(text.to_owned())),
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, level) in self.levels.iter().enumerate() {
            let text = match level {
                Level::Exact(text) => text,
                Level::One => "+",
                Level::Rest => "#",
            };
            write!(f, "{}{text}", if index == 0 { "" } else { "/" })?;
        }
        Ok(())
    }
}

impl TopicFilter {
    /// What the wildcards stand for where the topic matches, in their order; for `#` all that it matched.
    pub fn matches<'t>(&self, topic: &'t str) -> Option<Vec<&'t str>> {
        // Topics of the broker's own are matched by no wildcard.
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Exact(_))) {
            return None;
        }
        let mut found = Vec::new();
        let mut rest = Some(topic);
        for level in &self.levels {
            if *level == Level::Rest {
                // `a/#` matches `a` too.
                found.push(rest.unwrap_or_default());
                return Some(found);
            }
            let (head, tail) = split(rest?);
            match level {
                Level::Exact(text) if text == head => {}
                Level::One => found.push(head),
                _ => return None,
            }
            rest = tail;
        }
        rest.is_none().then_some(found)
    }

    /// Number of wildcards.
    pub fn wildcards(&self) -> usize {
        self.levels.iter().filter(|level| !matches!(level, Level::Exact(_))).count()
    }

    /// Whether every topic that the other matches is matched by this one.
    pub fn covers(&self, other: &Self) -> bool {
        for (index, mine) in self.levels.iter().enumerate() {
            match (mine, other.levels.get(index)) {
                (Level::Rest, _) => return !other.is_of_the_broker() || self.is_of_the_broker(),
                (Level::One, Some(Level::One | Level::Exact(_))) => {}
                (Level::Exact(mine), Some(Level::Exact(theirs))) if mine == theirs => {}
                _ => return false,
            }
        }
        self.levels.len() == other.levels.len() && (!other.is_of_the_broker() || self.is_of_the_broker())
    }

    /// Whether there is a topic that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        let wild = |filter: &Self| !matches!(filter.levels.first(), Some(Level::Exact(_)));
        if (self.is_of_the_broker() && wild(other)) || (other.is_of_the_broker() && wild(self)) {
            return false;
        }
        let mut index = 0;
        loop {
            match (self.levels.get(index), other.levels.get(index)) {
                (Some(Level::Rest), _) | (_, Some(Level::Rest)) | (None, None) => return true,
                (None, _) | (_, None) => return false,
                (Some(Level::Exact(mine)), Some(Level::Exact(theirs))) if mine != theirs => return false,
                _ => index += 1,
            }
        }
    }

    fn is_of_the_broker(&self) -> bool {
        matches!(self.levels.first(), Some(Level::Exact(first)) if first.starts_with('$'))
    }

    /// The one that says more about a topic that both match comes first: the first level that differs decides, and there a
    /// text comes before `+`, and `+` before `#`.
    pub fn by_what_they_say(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }
}

fn split(topic: &str) -> (&str, Option<&str>) {
    topic.split_once('/').map_or((topic, None), |(head, tail)| (head, Some(tail)))
}

/// The aggregate id of messages: text in which `{1}` stands for what the first wildcard matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateId {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Counted from 0.
    Wildcard(usize),
}

impl AggregateId {
    /// Reads the text for a filter.
    ///
    /// # Errors
    /// It is empty, or names a wildcard that the filter does not have.
    pub fn parse(text: &str, filter: &TopicFilter) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(FilterError::Unclosed)?;
            let number: Option<usize> = name.parse().ok().filter(|n| (1..=filter.wildcards()).contains(n));
            let no_such = || FilterError::NoSuchWildcard(name.to_owned(), filter.wildcards());
            parts.extend((!before.is_empty()).then(|| Part::Text(before.to_owned())));
            parts.push(Part::Wildcard(number.ok_or_else(no_such)? - 1));
            rest = after;
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
        Ok(Self { parts })
    }

    /// `found` is what the filter's wildcards stand for.
    pub fn of(&self, found: &[&str]) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Wildcard(index) => found.get(*index).copied().unwrap_or_default().to_owned(),
        };
        self.parts.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn topics_match_as_the_standard_says() {
        for (text, topic, expected) in [
            ("devices/+/reading", "devices/d1/reading", Some(vec!["d1"])),
            ("devices/+/reading", "devices//reading", Some(vec![""])),
            ("devices/+/reading", "devices/d1/reading/x", None),
            ("devices/+/reading", "devices/reading", None),
            ("devices/#", "devices/a/b", Some(vec!["a/b"])),
            ("devices/#", "devices", Some(vec![""])),
            ("devices/#", "device", None),
            ("#", "a/b", Some(vec!["a/b"])),
            ("#", "$SYS/broker", None),
            ("+/broker", "$SYS/broker", None),
            ("$SYS/#", "$SYS/broker", Some(vec!["broker"])),
            ("+", "/finance", None),
            ("+/+", "/finance", Some(vec!["", "finance"])),
            ("a", "A", None),
        ] {
            assert_eq!(filter(text).matches(topic), expected, "{text} {topic}");
            assert_eq!(filter(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_filter_is_told_why() {
        for (text, why) in [
            ("", FilterError::Empty),
            ("a/b+", FilterError::Mixed("b+".to_owned())),
            ("#a", FilterError::Mixed("#a".to_owned())),
            ("a/#/b", FilterError::RestNotLast),
            ("$share/g/a", FilterError::Shared),
            ("a\u{0}", FilterError::Control),
        ] {
            assert_eq!(text.parse::<TopicFilter>(), Err(why), "{text}");
        }
    }

    #[test]
    fn the_aggregate_id_is_made_of_text_and_wildcards() {
        let site = filter("sites/+/devices/+/#");
        let id = AggregateId::parse("{2}@{1}", &site).expect("is read");
        let found = site.matches("sites/s1/devices/d7/reading/now").expect("matches");
        assert_eq!(id.of(&found), "d7@s1");
        assert_eq!(AggregateId::parse("{3}", &site).expect("is read").of(&found), "reading/now");
        assert_eq!(AggregateId::parse("gateway", &site).expect("is read").of(&found), "gateway");
        let error = |text| AggregateId::parse(text, &site).expect_err("refused").to_string();
        assert_eq!(
            error("{4}"),
            "'{4}' names no wildcard: write {1} for the first, {2} for the second; the filter has 3"
        );
        assert_eq!(
            error("{0}"),
            "'{0}' names no wildcard: write {1} for the first, {2} for the second; the filter has 3"
        );
        assert_eq!(error("{1"), "'{' is not closed");
        assert_eq!(error(""), "must not be empty");
    }

    #[test]
    fn the_filter_that_says_more_comes_first() {
        let mut filters =
            ["#", "devices/#", "devices/+/reading", "devices/d1/#", "devices/d1/reading", "+/d1/reading"].map(filter);
        filters.sort_by(TopicFilter::by_what_they_say);
        let sorted: Vec<String> = filters.iter().map(ToString::to_string).collect();
        let expected = ["devices/d1/reading", "devices/d1/#", "devices/+/reading", "devices/#", "+/d1/reading", "#"];
        assert_eq!(sorted, expected);
    }

    fn any_filter() -> impl Strategy<Value = TopicFilter> {
        let level = prop_oneof!["[ab]", Just("+".to_owned()), Just("$s".to_owned())];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#".to_owned());
            }
            filter(&levels.join("/"))
        })
    }

    proptest! {
        #[test]
        fn what_covers_matches_all_that_the_other_does(
            one in any_filter(), other in any_filter(), topic in r"(\$s|a|b)?(/(a|b)?){0,3}"
        ) {
            if one.covers(&other) && other.matches(&topic).is_some() {
                prop_assert!(one.matches(&topic).is_some());
            }
            if one.matches(&topic).is_some() && other.matches(&topic).is_some() {
                prop_assert!(one.overlaps(&other));
            }
        }
    }
}
