//! Stores a batch of texts in one transaction, and finds out for each what came of it.

use std::collections::{HashMap, hash_map::Entry};

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{Text, connection::data_error, transaction};

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

/// Ordered by id, so that two batches that share ids wait for each other in one order. The trace context holds for this transaction only, and the
/// trigger, which runs after the rows, finds it there.
const INSERT: &str = "
INSERT INTO tidemark.texts (id, body)
SELECT id, body
FROM UNNEST($1::uuid[], $2::text[]) AS new (id, body), set_config('tidemark.traceparent', $3, true)
ORDER BY id
ON CONFLICT (id) DO NOTHING
RETURNING seq, id, created_at";

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
    let mut transaction = transaction::begin(connection).await?;
    let stored = insert(&mut transaction, texts, traceparent).await;
    transaction::end(transaction, stored).await
}

async fn insert(
    connection: &mut PgConnection,
    texts: &[(Uuid, &str)],
    traceparent: &str,
) -> Result<Vec<Stored>, sqlx::Error> {
    // Of several texts with one id the first is stored, and the others are compared with it.
    let mut first: HashMap<Uuid, &str> = HashMap::with_capacity(texts.len());
    let (mut ids, mut bodies) = (Vec::with_capacity(texts.len()), Vec::with_capacity(texts.len()));
    for (id, body) in texts {
        if let Entry::Vacant(entry) = first.entry(*id) {
            entry.insert(body);
            ids.push(*id);
            bodies.push(*body);
        }
    }
    let inserted: Vec<Inserted> = sqlx::query_as(INSERT)
        .bind(&ids)
        .bind(&bodies)
        .bind(traceparent)
        .persistent(false)
        .fetch_all(&mut *connection)
        .await?;
    let mut rows: HashMap<Uuid, Text> = inserted
        .into_iter()
        .filter_map(|Inserted { seq, id, created_at }| {
            first.get(&id).map(|body| (id, Text { seq, id, text: (*body).to_owned(), created_at }))
        })
        .collect();

    // The rest was there before, or has just been committed by another replica: a new statement sees it.
    ids.retain(|id| !rows.contains_key(id));
    if !ids.is_empty() {
        let earlier: Vec<Text> =
            sqlx::query_as("SELECT seq, id, body, created_at FROM tidemark.texts WHERE id = ANY ($1)")
                .bind(&ids)
                .persistent(false)
                .fetch_all(connection)
                .await?;
        rows.extend(earlier.into_iter().map(|text| (text.id, text)));
    }
    let answer = |(id, body): &(Uuid, &str)| match rows.get(id) {
        Some(row) if row.text == *body => Stored::Saved(row.clone()),
        Some(_) => Stored::Conflict,
        None => Stored::Gone,
    };
    Ok(texts.iter().map(answer).collect())
}
