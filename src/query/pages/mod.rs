//! Pages of a projection's rows behind a key, each found within a time, however rare the rows are that match.
//!
//! Rows that match are first asked for as they are: an index on a field finds them at once, and where many match, a page is
//! full soon. Where neither is so, one stretch of keys after the other is looked at until the page is full or the time is
//! up. Such a page holds what was found, perhaps nothing, and says where to go on: a walk always comes to its end.

mod store;

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use super::store::{Projection, Selection, was_ended};

/// Rows looked at by one statement: at first, and the bounds of what a quick or slow one makes of it.
const STRETCH: i64 = 1000;
const SHORTEST: i64 = 100;
const LONGEST: i64 = 32_000;
/// A statement that takes less than this looks at twice as many next time; a slower one at half as many.
const QUICK: Duration = Duration::from_millis(200);

/// A page, and the key to go on behind; `None`: there are no more.
#[derive(Debug)]
pub struct Page {
    pub rows: Vec<Projection>,
    pub next: Option<String>,
}

/// The page behind a key (from the first row without one), ordered by aggregate id. With filters it takes about twice
/// `time` at most.
///
/// # Errors
/// The database's.
pub async fn behind(
    pool: &PgPool,
    selection: &Selection,
    limit: i64,
    key: Option<&str>,
    time: Duration,
) -> sqlx::Result<Page> {
    match store::direct(pool, selection, limit + 1, key, time).await {
        Err(error) if was_ended(&error) && !selection.conditions.is_empty() => {
            walk(pool, selection, limit, key, time).await
        }
        found => Ok(cut(found?, limit)),
    }
}

/// The page of what was found with a limit one higher.
fn cut(mut rows: Vec<Projection>, limit: i64) -> Page {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    rows.truncate(wanted);
    let next = rows.last().filter(|_| more).map(|row| row.aggregate_id.clone());
    Page { rows, next }
}

async fn walk(
    pool: &PgPool,
    selection: &Selection,
    limit: i64,
    key: Option<&str>,
    time: Duration,
) -> sqlx::Result<Page> {
    let end = Instant::now() + time;
    let (mut after, mut stretch, mut rows) = (key.unwrap_or_default().to_owned(), STRETCH, Vec::new());
    loop {
        let begun = Instant::now();
        let wanted = limit + 1 - i64::try_from(rows.len()).unwrap_or(limit);
        let looked = store::look(pool, selection, wanted, &after, stretch).await?;
        rows.extend(looked.rows);
        let Some(last) = looked.last else { return Ok(cut(rows, limit)) };
        if i64::try_from(rows.len()).is_ok_and(|found| found > limit) {
            return Ok(cut(rows, limit));
        }
        if Instant::now() >= end {
            return Ok(Page { rows, next: Some(last) });
        }
        after = last;
        stretch = adapted(stretch, begun.elapsed());
    }
}

/// How many rows to look at next.
fn adapted(stretch: i64, took: Duration) -> i64 {
    let next = if took < QUICK { stretch * 2 } else { stretch / 2 };
    next.clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_grow_while_they_are_quick_and_shrink_when_they_are_not() {
        let (quick, slow) = (Duration::from_millis(5), Duration::from_secs(3));
        assert_eq!((adapted(STRETCH, quick), adapted(STRETCH, slow)), (2000, 500));
        assert_eq!((adapted(LONGEST, quick), adapted(SHORTEST, slow)), (LONGEST, SHORTEST));
    }
}
