//! What comes of rows that were folded anew: pure.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::refold::Anew;
use crate::projection::{Row, RowKey};

/// What came of rows that were folded anew.
#[derive(Default)]
pub(super) struct Made {
    pub mended: Vec<(RowKey, Row)>,
    pub went_in: Vec<Uuid>,
    /// Aggregates whose rows cannot be made, and why.
    pub refused: Vec<(String, String)>,
    /// Letters of rows that cannot be made, and why, where the rows are not those of aggregates: their lanes do not say which
    /// row they belong to.
    pub failed: Vec<(Uuid, String)>,
    /// Rows to which no letter that was asked for belongs.
    pub unmet: Vec<String>,
}

impl Made {
    /// `own_key`: the rows are not those of aggregates.
    pub fn of(rows: BTreeMap<String, Anew>, own_key: bool) -> Self {
        let mut made = Self::default();
        for (key, Anew { row, asked, went_in, refused, .. }) in rows {
            match refused {
                Some(why) if own_key => {
                    let why = format!("the row cannot be folded anew: {why}");
                    made.failed.extend(asked.into_iter().map(|dlq_id| (dlq_id, why.clone())));
                }
                Some(why) => made.refused.push((key, why)),
                None if asked.is_empty() => made.unmet.push(key),
                None => {
                    made.mended.extend(row.filter(|_| !went_in.is_empty()).map(|row| ((0, key), row)));
                    made.went_in.extend(went_in);
                }
            }
        }
        made
    }
}
