//! All rows of a range as a stream of text: a page is read when the one before is taken, so that a slow client costs the
//! database nothing and no more than a page is in memory.

use std::sync::Arc;

use chrono::SecondsFormat;
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::request::Range;
use super::store::{self, Selection};
use super::{Place, Row};
use crate::query::{Query, QueryError};

/// Rows that are read at a time.
const PAGE: i64 = 2_000;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// RFC 4180, with a line of names first; a value that is not there is empty.
    Csv,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// What an `Accept` header asks for first; `None`: something else.
    pub fn accepted(header: &str) -> Option<Self> {
        header.split(',').find_map(|part| match part.split(';').next().unwrap_or_default().trim() {
            "text/csv" => Some(Self::Csv),
            "application/x-ndjson" | "application/ndjson" | "application/*" | "*/*" => Some(Self::Ndjson),
            _ => None,
        })
    }
}

/// An export under way.
pub struct Export {
    query: Query,
    selection: Selection,
    range: Range,
    format: Format,
    next: Next,
    _permit: OwnedSemaphorePermit,
}

enum Next {
    /// The page of the beginning, which was read before anything was answered.
    First(Vec<Row>),
    Behind(Place),
    End,
}

impl Export {
    /// Reads the first page: what is wrong is still answered as an error.
    pub async fn open(query: Query, selection: Selection, range: Range, format: Format) -> Result<Self, QueryError> {
        let permit = query.stream_permit()?;
        let first = store::rows(query.series(), &selection, range, None, PAGE).await?;
        Ok(Self { query, selection, range, format, next: Next::First(first), _permit: permit })
    }

    /// The text of the next page; `None` at the end. An error ends the stream in the middle, which the client sees.
    pub async fn next(&mut self) -> Option<Result<String, QueryError>> {
        let (rows, is_first) = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return None,
            Next::First(rows) => (rows, true),
            Next::Behind(place) => match self.page(&place).await {
                Some(Ok(rows)) => (rows, false),
                Some(Err(error)) => {
                    warn!(table = self.selection.table, %error, "an export ended before its end");
                    return Some(Err(error));
                }
                None => return Some(Err(QueryError::Stopping)),
            },
        };
        if rows.len() == usize::try_from(PAGE).unwrap_or(usize::MAX)
            && let Some(last) = rows.last()
        {
            self.next = Next::Behind(last.place.clone());
        }
        Some(Ok(self.text(&rows, is_first)))
    }

    /// `None`: the service stops.
    async fn page(&self, behind: &Place) -> Option<Result<Vec<Row>, QueryError>> {
        let page = store::rows(self.query.series(), &self.selection, self.range, Some(behind), PAGE);
        Some(self.query.stop().run_until_cancelled(page).await?.map_err(QueryError::from))
    }

    fn text(&self, rows: &[Row], is_first: bool) -> String {
        match self.format {
            Format::Ndjson => rows.iter().fold(String::new(), |mut text, row| {
                text.push_str(&serde_json::to_string(row).unwrap_or_default());
                text.push('\n');
                text
            }),
            Format::Csv => {
                let mut text = if is_first { header(&self.selection.names()) } else { String::new() };
                for row in rows {
                    text.push_str(&line(row));
                }
                text
            }
        }
    }
}

fn header(names: &[Arc<str>]) -> String {
    let fixed = ["time", "aggregate_id", "event_id"];
    let all: Vec<&str> = fixed.into_iter().chain(names.iter().map(|name| &**name)).collect();
    format!("{}\r\n", all.join(","))
}

fn line(row: &Row) -> String {
    let time = row.place.time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let mut line = format!("{time},{},{}", field(&row.place.aggregate_id), row.place.event_id);
    for (_, value) in &row.values {
        line.push(',');
        line.push_str(&match value.get() {
            "null" => String::new(),
            text if text.starts_with('"') => field(&serde_json::from_str::<String>(text).unwrap_or_default()),
            text => field(text),
        });
    }
    line.push_str("\r\n");
    line
}

/// An empty text is quoted, which tells it from none.
fn field(text: &str) -> String {
    if text.is_empty() || text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_line_of_csv_quotes_what_it_must() {
        let values = [r#""a,\"b\"""#, "null", "1.50", r#""""#, r#"{"a":[1,2]}"#];
        let value = |text: &&str| (Arc::from("c"), RawValue::from_string((*text).to_owned()).expect("JSON"));
        let time = DateTime::from_timestamp(0, 0).expect("a time");
        let place = Place { aggregate_id: "d 1".to_owned(), time, event_id: Uuid::nil() };
        let row = Row { place, values: values.iter().map(value).collect() };
        assert_eq!(
            line(&row),
            "1970-01-01T00:00:00Z,d 1,00000000-0000-0000-0000-000000000000,\"a,\"\"b\"\"\",,1.50,\"\",\"{\"\"a\"\":[1,2]}\"\r\n"
        );
        assert_eq!(header(&[Arc::from("v")]), "time,aggregate_id,event_id,v\r\n");
    }

    #[test]
    fn a_format_is_agreed_on() {
        for (header, format) in [
            ("text/csv", Some(Format::Csv)),
            ("text/html, text/csv;q=0.9, */*", Some(Format::Csv)),
            ("*/*", Some(Format::Ndjson)),
            ("application/x-ndjson", Some(Format::Ndjson)),
            ("application/xml", None),
        ] {
            assert_eq!(Format::accepted(header), format, "{header}");
        }
    }
}
