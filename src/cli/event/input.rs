//! Events to send, as people write them: one a line (NDJSON), one after another over several lines, or an array.

use std::io::{self, BufRead, Read};

use serde_json::value::RawValue;

/// Events in a request.
pub const BATCH_EVENTS: usize = 500;
/// Bytes in a request: the service takes 5 MiB.
const BATCH_BYTES: usize = 4 << 20;
/// Longest event that is looked at; the service refuses far smaller ones.
const MAX_EVENT: usize = 4 << 20;
/// An array is read as a whole.
const MAX_ARRAY: u64 = 256 << 20;

/// An event as it stands in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The line it begins in, from 1.
    pub line: usize,
    /// JSON on one line, or why it is none.
    pub text: Result<String, String>,
}

/// Events that are sent together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub items: Vec<Item>,
    /// Bytes of the input up to the end of the batch.
    pub read: u64,
}

/// Reads everything and hands it on in batches, until `take` answers false.
///
/// # Errors
/// The input cannot be read.
pub fn batches(mut input: impl BufRead, mut take: impl FnMut(Batch) -> bool) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut bytes = 0;
    let mut going = true;
    each(&mut input, |item, read| {
        let size = item.text.as_ref().map_or(0, String::len) + 1;
        if !batch.items.is_empty() && (batch.items.len() == BATCH_EVENTS || bytes + size > BATCH_BYTES) {
            going = take(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.read = read;
        batch.items.push(item);
        going
    })?;
    if going && !batch.items.is_empty() {
        take(batch);
    }
    Ok(())
}

fn each(input: &mut impl BufRead, take: impl FnMut(Item, u64) -> bool) -> io::Result<()> {
    let blank = input.fill_buf()?.iter().position(|b| !b.is_ascii_whitespace());
    match blank.and_then(|n| input.fill_buf().ok().map(|b| b[n])) {
        Some(b'[') => each_element(input, take),
        _ => each_line(input, take),
    }
}

fn each_element(input: &mut impl BufRead, mut take: impl FnMut(Item, u64) -> bool) -> io::Result<()> {
    let mut text = String::new();
    input.take(MAX_ARRAY + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_ARRAY {
        return Err(io::Error::other("an array may have 256 MiB: write one event a line instead"));
    }
    let elements: Vec<&RawValue> = match serde_json::from_str(&text) {
        Ok(elements) => elements,
        Err(error) => {
            take(Item { line: error.line(), text: Err(format!("the array is no JSON: {error}")) }, text.len() as u64);
            return Ok(());
        }
    };
    let (mut line, mut upto) = (1, 0);
    for element in elements {
        // The elements are parts of the text.
        let start = element.get().as_ptr() as usize - text.as_ptr() as usize;
        line += memchr::memchr_iter(b'\n', &text.as_bytes()[upto..start]).count();
        upto = start;
        if !take(Item { line, text: Ok(one_line(element.get())) }, start as u64) {
            break;
        }
    }
    Ok(())
}

/// Line breaks in JSON stand between tokens only.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

fn each_line(input: &mut impl BufRead, mut take: impl FnMut(Item, u64) -> bool) -> io::Result<()> {
    let (mut line, mut read) = (0, 0);
    let mut begun: Option<(usize, String)> = None;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let count = input.by_ref().take(MAX_EVENT as u64).read_until(b'\n', &mut bytes)?;
        if count == 0 {
            break;
        }
        line += 1;
        read += count as u64;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((first, start)) = begun.take() {
            let whole = format!("{start}{text}");
            match complete(&whole) {
                Complete::No if whole.len() <= MAX_EVENT => {
                    begun = Some((first, whole));
                    continue;
                }
                Complete::Yes => {
                    if !take(Item { line: first, text: Ok(one_line(whole.trim())) }, read) {
                        return Ok(());
                    }
                    continue;
                }
                // What began there does not go on here: this line stands for itself.
                Complete::No | Complete::Never(_) => {
                    let why = "is no JSON: it is cut off".to_owned();
                    if !take(Item { line: first, text: Err(why) }, read) {
                        return Ok(());
                    }
                }
            }
        }
        let item = match complete(&text) {
            _ if text.trim().is_empty() => continue,
            Complete::Yes => Ok(one_line(text.trim())),
            Complete::No => {
                begun = Some((line, text));
                continue;
            }
            Complete::Never(error) => Err(format!("is no JSON: {error}")),
        };
        if !take(Item { line, text: item }, read) {
            return Ok(());
        }
    }
    if let Some((first, _)) = begun {
        take(Item { line: first, text: Err("is no JSON: it is cut off".to_owned()) }, read);
    }
    Ok(())
}

enum Complete {
    Yes,
    /// More may follow on the next line.
    No,
    Never(serde_json::Error),
}

fn complete(text: &str) -> Complete {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Complete::Yes,
        Err(error) if error.is_eof() => Complete::No,
        Err(error) => Complete::Never(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, Result<String, ()>)> {
        let mut items = Vec::new();
        batches(text.as_bytes(), |batch| {
            items.extend(batch.items);
            true
        })
        .unwrap();
        items.into_iter().map(|item| (item.line, item.text.map_err(|_| ()))).collect()
    }

    fn ok(line: usize, text: &str) -> (usize, Result<String, ()>) {
        (line, Ok(text.to_owned()))
    }

    #[test]
    fn lines_arrays_and_documents_are_read_with_their_line_numbers() {
        assert_eq!(
            read("{\"a\":1}\n\n {\"b\":2} \r\n{\"c\":3}"),
            [ok(1, "{\"a\":1}"), ok(3, "{\"b\":2}"), ok(4, "{\"c\":3}")]
        );
        assert_eq!(read(" [\n{\"a\":1},\n\n{\"b\":\n2}]"), [ok(2, "{\"a\":1}"), ok(4, "{\"b\": 2}")]);
        assert_eq!(read("{\n  \"a\": 1\n}\n{\"b\":2}\n"), [ok(1, "{   \"a\": 1 }"), ok(4, "{\"b\":2}")]);
        assert_eq!(read(""), []);
    }

    #[test]
    fn what_is_no_json_is_named_and_its_neighbours_are_kept() {
        assert_eq!(read("{\"a\":1}\n{a}\n{\"b\":2}\n"), [ok(1, "{\"a\":1}"), (2, Err(())), ok(3, "{\"b\":2}")]);
        assert_eq!(read("{\"a\":1\n{\"b\":2}\n{\"c\":"), [(1, Err(())), ok(2, "{\"b\":2}"), (3, Err(()))]);
        assert_eq!(read("[{\"a\":1},"), [(1, Err(()))]);
    }

    #[test]
    fn batches_are_bounded_by_count_and_bytes() {
        let mut sizes = Vec::new();
        let lines = "{\"a\":1}\n".repeat(1201);
        let take = |batch: Batch| {
            sizes.push((batch.items.len(), batch.read));
            true
        };
        batches(lines.as_bytes(), take).unwrap();
        assert_eq!(sizes, [(500, 4000), (500, 8000), (201, 9608)]);
        let mut count = 0;
        let big = format!("\"{}\"\n", "x".repeat(1 << 20)).repeat(7);
        batches(big.as_bytes(), |batch| {
            count += 1;
            batch.items.len() <= 3
        })
        .unwrap();
        assert_eq!(count, 3);
    }
}
