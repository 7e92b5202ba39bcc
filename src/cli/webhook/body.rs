//! Bodies as people read them. Pure.

use serde::de::IgnoredAny;

/// A body as people read it: JSON over several lines, other text as it is, bytes as their number.
pub fn shown(body: &[u8], most: usize) -> String {
    if body.is_empty() {
        return "(no body)".to_owned();
    }
    let Ok(text) = str::from_utf8(body) else { return format!("({} bytes that are no text)", body.len()) };
    let text = if serde_json::from_str::<IgnoredAny>(text).is_ok() { pretty(text) } else { text.to_owned() };
    let text = visible(&text);
    if text.len() <= most {
        return text;
    }
    let cut = &text[..text.floor_char_boundary(most)];
    format!("{cut}… ({} bytes in all: see more by --print-bytes)", body.len())
}

/// JSON with a member or element a line. Keeps numbers and the order of members as they are written.
fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut last = ' ';
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    for c in json.chars() {
        if quoted {
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
            out.push(c);
            last = c;
            continue;
        }
        match c {
            ' ' | '\t' | '\n' | '\r' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if last != '{' && last != '[' {
                    newline(&mut out, depth);
                }
            }
            _ if last == '{' || last == '[' || last == ',' => newline(&mut out, depth),
            _ => {}
        }
        out.push(c);
        match c {
            '{' | '[' => depth += 1,
            ':' => out.push(' '),
            '"' => quoted = true,
            _ => {}
        }
        last = c;
    }
    out
}

/// Without what would move the cursor or colour the terminal.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Each line further in.
pub fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |out, line| out + "  " + line + "\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn json_is_spread_over_lines_with_its_numbers_and_the_order_of_its_members() {
        let body = br#"{"b":1.50, "a":["\"{",{},[ ]],"c":{"\\":-0e9}}"#;
        let expected = "{\n  \"b\": 1.50,\n  \"a\": [\n    \"\\\"{\",\n    {},\n    []\n  ],\n  \"c\": {\n    \"\\\\\": -0e9\n  }\n}";
        assert_eq!(shown(body, 1_000), expected);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::hash_map(".{0,6}", inner, 0..5).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_of_json_means_the_same(value in values()) {
            prop_assert_eq!(serde_json::from_str::<Value>(&pretty(&value.to_string())).unwrap(), value);
        }

        #[test]
        fn nothing_that_moves_the_cursor_is_shown(body in proptest::collection::vec(any::<u8>(), 0..100), most in 0_usize..200) {
            let text = shown(&body, most);
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
