//! The text of statements about a series' table: made once a definition, of names that are quoted. Pure.

use crds::registration::{Column, ColumnType, TimeSeries, sql_name};

/// Writes rows given as an array a column: the fixed ones, then those declared.
pub(in crate::time_series) fn insert(series: &TimeSeries) -> String {
    let fixed = [("time", "timestamptz", ""), ("aggregate_id", "text", ""), ("event_id", "uuid", "")];
    let declared = series.columns.iter().map(|column| (column.name.as_str(), sent_as(column), cast(column)));
    let columns: Vec<_> = fixed.into_iter().chain(declared).collect();
    let names = |with: &dyn Fn(&(&str, &str, &str)) -> String| columns.iter().map(with).collect::<Vec<_>>().join(", ");
    let plain = names(&|(name, ..)| sql_name(name));
    let numbered = columns.iter().enumerate().map(|(i, (_, sent, _))| format!("${}::{sent}[]", i + 1));
    format!(
        "INSERT INTO {} ({plain}) SELECT {} FROM unnest({}) AS sent ({plain})",
        TimeSeries::sql_table(&series.table),
        names(&|(name, _, cast)| format!("{}{cast}", sql_name(name))),
        numbered.collect::<Vec<_>>().join(", "),
    )
}

/// Decimal numbers and JSON are sent as they are written.
fn sent_as(column: &Column) -> &'static str {
    match column.column_type {
        ColumnType::Numeric | ColumnType::Json => "text",
        other => other.sql(),
    }
}

fn cast(column: &Column) -> &'static str {
    match column.column_type {
        ColumnType::Numeric => "::numeric",
        ColumnType::Json => "::jsonb",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::series;
    use super::*;

    #[test]
    fn a_statement_names_what_is_declared_and_nothing_gets_out_of_its_quotes() {
        let columns =
            [("v", ColumnType::Double, "1"), ("select", ColumnType::Numeric, "1"), ("j", ColumnType::Json, "1")];
        assert_eq!(
            insert(&series("t", &columns)),
            "INSERT INTO timeseries.\"t\" (\"time\", \"aggregate_id\", \"event_id\", \"v\", \"select\", \"j\") \
             SELECT \"time\", \"aggregate_id\", \"event_id\", \"v\", \"select\"::numeric, \"j\"::jsonb \
             FROM unnest($1::timestamptz[], $2::text[], $3::uuid[], $4::double precision[], $5::text[], $6::text[]) \
             AS sent (\"time\", \"aggregate_id\", \"event_id\", \"v\", \"select\", \"j\")"
        );
        assert_eq!(sql_name("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
    }
}
