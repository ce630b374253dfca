//! Stores a batch of texts in one transaction, and finds out for each what came of it.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use uuid::Uuid;

use crate::{
    Text,
    connection::data_error,
    transaction::{self, one_transaction},
};

/// What came of storing one text.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    /// It is in the table, from now or from an earlier time.
    Saved(Text),
    /// Its id belongs to another text.
    Conflict,
    /// The database refused its data, with this SQLSTATE.
    Rejected(String),
    /// Somebody deleted the other row with this id at the same time.
    Gone,
}

/// The transaction that stores a batch, as one text: with parameters it would take four round trips in place of one, because nothing may be prepared under a name
/// ([`crate::transaction`]). Texts are hexadecimal digits, which no setting of the server can take for anything else.
///
/// Ordered by id, so that two batches that share ids wait for each other in one order. The trace context holds for this transaction only, and the
/// trigger, which runs after the rows, finds it there.
fn insert_statement(texts: &[(Uuid, &str)], traceparent: &str) -> String {
    let text = |text: &str| format!("convert_from(decode('{}', 'hex'), 'UTF8')", Hex(text.as_bytes()));
    let rows: Vec<String> = texts.iter().map(|(id, body)| format!("('{id}'::uuid, {})", text(body))).collect();
    format!(
        one_transaction!(
            "INSERT INTO tidemark.texts (id, body)
             SELECT id, body FROM (VALUES {rows}) AS new (id, body), set_config('tidemark.traceparent', {traceparent}, true)
             ORDER BY id ON CONFLICT (id) DO NOTHING RETURNING seq, id, created_at"
        ),
        rows = rows.join(", "),
        traceparent = text(traceparent)
    )
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

#[derive(FromRow)]
struct Inserted {
    seq: i64,
    id: Uuid,
    created_at: DateTime<Utc>,
}

/// Stores texts; the answer for each is at the same place. If the database refuses the data, each is stored alone, so that
/// only the guilty one is rejected. The feed keeps `traceparent`, which may be empty, as what changed it last.
///
/// # Errors
/// Any error that is not about the data. Some texts may be stored then; storing them again does no harm.
pub(crate) async fn store(
    connection: &mut PgConnection,
    texts: &[(Uuid, &str)],
    traceparent: &str,
) -> Result<Vec<Stored>, sqlx::Error> {
    match store_together(connection, texts, traceparent).await {
        Err(error) if data_error(&error).is_some() && texts.len() > 1 => {
            let mut answers = Vec::with_capacity(texts.len());
            for text in texts {
                answers.extend(store_one(connection, *text, traceparent).await?);
            }
            Ok(answers)
        }
        Err(error) => data_error(&error).map_or(Err(error), |code| Ok(vec![Stored::Rejected(code); texts.len()])),
        stored => stored,
    }
}

async fn store_one(
    connection: &mut PgConnection,
    text: (Uuid, &str),
    traceparent: &str,
) -> Result<Vec<Stored>, sqlx::Error> {
    match store_together(connection, &[text], traceparent).await {
        Err(error) => data_error(&error).map_or(Err(error), |code| Ok(vec![Stored::Rejected(code)])),
        stored => stored,
    }
}

async fn store_together(
    connection: &mut PgConnection,
    texts: &[(Uuid, &str)],
    traceparent: &str,
) -> Result<Vec<Stored>, sqlx::Error> {
    // Of several texts with one id the first is stored, and the others are compared with it.
    let mut first: HashMap<Uuid, &str> = HashMap::with_capacity(texts.len());
    let mut new: Vec<(Uuid, &str)> = Vec::with_capacity(texts.len());
    for (id, body) in texts {
        if let Entry::Vacant(entry) = first.entry(*id) {
            entry.insert(body);
            new.push((*id, body));
        }
    }
    let insert = sqlx::raw_sql(AssertSqlSafe(insert_statement(&new, traceparent)));
    let inserted = insert.fetch_all(&mut *connection).await?;
    let inserted: Vec<Inserted> = inserted.iter().map(Inserted::from_row).collect::<Result<_, _>>()?;
    let mut rows: HashMap<Uuid, Text> = inserted
        .into_iter()
        .filter_map(|Inserted { seq, id, created_at }| {
            first.get(&id).map(|body| (id, Text { seq, id, text: (*body).to_owned(), created_at }))
        })
        .collect();

    // The rest was there before, or has just been committed by another replica: a new statement sees it.
    let missing: Vec<Uuid> = first.keys().copied().filter(|id| !rows.contains_key(id)).collect();
    if !missing.is_empty() {
        let mut transaction = transaction::begin(connection).await?;
        let earlier = sqlx::query_as("SELECT seq, id, body, created_at FROM tidemark.texts WHERE id = ANY ($1)")
            .bind(&missing)
            .persistent(false)
            .fetch_all(&mut *transaction)
            .await;
        let earlier: Vec<Text> = transaction::end(transaction, earlier).await?;
        rows.extend(earlier.into_iter().map(|text| (text.id, text)));
    }
    let answer = |(id, body): &(Uuid, &str)| match rows.get(id) {
        Some(row) if row.text == *body => Stored::Saved(row.clone()),
        Some(_) => Stored::Conflict,
        None => Stored::Gone,
    };
    Ok(texts.iter().map(answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_text_holds_stands_in_the_statement_as_digits() {
        let id = Uuid::from_u128(7);
        let statement = insert_statement(&[(id, "'; DROP TABLE x; -- \\ é"), (id, "")], "'");
        let values = "(VALUES ('00000000-0000-0000-0000-000000000007'::uuid, convert_from(decode('273b2044524f50205441424c4520783b202d2d205c20c3a9', 'hex'), 'UTF8')), \
            ('00000000-0000-0000-0000-000000000007'::uuid, convert_from(decode('', 'hex'), 'UTF8'))) AS new";
        assert!(statement.contains(values), "{statement}");
        assert!(
            statement.contains("set_config('tidemark.traceparent', convert_from(decode('27', 'hex'), 'UTF8'), true)")
        );
    }
}
