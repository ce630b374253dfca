//! Trigger functions of version 0.1 become those of today.
//!
//! Two things made writes to the table fail: the account of the feed lost its rights, and something
//! that the filter names was renamed. The filter was code in the text of the trigger function, over
//! columns by their place; it becomes a function of a row. The condition is taken from that text,
//! so it means exactly what it meant before. Nothing is counted again, and no lock of the table is
//! needed.

use sqlx::{Connection, FromRow, PgConnection};
use tracing::{info, warn};

use super::statements;
use crate::DatabaseError;

/// A feed whose trigger function has the form of version 0.1.
#[derive(Debug, FromRow)]
struct Old {
    name: String,
    /// The table, quoted where SQL needs it.
    table: String,
    /// The account that added it, quoted where SQL needs it.
    account: String,
    /// Whether this account may act as that one.
    may: bool,
    filtered: bool,
    /// The text of the trigger function.
    source: String,
    /// The table's columns in their order, quoted where SQL needs it.
    columns: Vec<String>,
}

/// One feed, or all of them.
const OLD: &str = "
SELECT own.feed AS name, quote_ident(space.nspname) || '.' || quote_ident(relation.relname) AS table, quote_ident(rolname) AS account,
  pg_has_role(rolname, 'MEMBER') AS may, own.filter IS NOT NULL AS filtered, counter.prosrc AS source,
  ARRAY(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = relation.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS columns
FROM tidemark.own_feeds AS own
JOIN pg_class AS relation ON relation.oid = own.relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace
JOIN pg_proc AS counter ON counter.pronamespace = 'tidemark'::regnamespace AND counter.proname = 'feed_' || own.feed AND counter.pronargs = 0
JOIN pg_roles ON pg_roles.oid = counter.proowner
WHERE counter.prosrc NOT LIKE '%tidemark.deltas%' AND ($1::text IS NULL OR own.feed = $1)
ORDER BY own.feed";

/// Serialises programs that start together.
const LOCK: &str = "SELECT FROM tidemark.own_feeds WHERE feed = $1 FOR NO KEY UPDATE";

/// What became of a feed.
enum Outcome {
    Upgraded,
    /// Another program was faster, or the feed was removed.
    NothingToDo,
    /// This account may not replace the function, or the function is not as version 0.1 made it.
    NotPossible,
}

/// Converts what this account may convert. A feed that cannot be converted counts as before, and is
/// named in the log.
///
/// # Errors
/// If the list cannot be read.
pub(crate) async fn upgrade_functions(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    let mut transaction = connection.begin_with(statements::BEGIN).await?;
    let old = read(&mut transaction, None).await?;
    transaction.commit().await?;
    for Old { name, account, .. } in old {
        match upgrade(connection, &name).await {
            Ok(Outcome::Upgraded) => {
                info!(feed = name, "the trigger function of this feed is upgraded from version 0.1");
            }
            Ok(Outcome::NothingToDo) => {}
            Ok(Outcome::NotPossible) => warn!(
                feed = name,
                account,
                "the trigger function of this feed has the form of version 0.1, and this account cannot replace it: \
                 remove the feed and add it again"
            ),
            Err(error) => warn!(
                error = &DatabaseError::from(error) as &dyn std::error::Error,
                feed = name,
                "the trigger function of this feed keeps the form of version 0.1: remove the feed and add it again"
            ),
        }
    }
    Ok(())
}

async fn read(connection: &mut PgConnection, name: Option<&str>) -> Result<Vec<Old>, sqlx::Error> {
    sqlx::query_as(OLD).bind(name).persistent(false).fetch_all(connection).await
}

async fn upgrade(connection: &mut PgConnection, name: &str) -> Result<Outcome, sqlx::Error> {
    let mut transaction = connection.begin_with(statements::BEGIN).await?;
    let outcome = replace(&mut transaction, name).await?;
    match outcome {
        Outcome::Upgraded => transaction.commit().await?,
        Outcome::NothingToDo | Outcome::NotPossible => transaction.rollback().await?,
    }
    Ok(outcome)
}

async fn replace(connection: &mut PgConnection, name: &str) -> Result<Outcome, sqlx::Error> {
    sqlx::query(LOCK).bind(name).persistent(false).execute(&mut *connection).await?;
    let Some(old) = read(connection, Some(name)).await?.pop() else { return Ok(Outcome::NothingToDo) };
    if !old.may {
        return Ok(Outcome::NotPossible);
    }
    // What is made belongs to the account of the feed, and needs no more than its rights.
    statements::one(connection, format!("SET LOCAL ROLE {}", old.account)).await?;
    statements::fix_search_path(connection).await?;
    if old.filtered {
        let Some(body) = body(&old.source, &old.columns) else { return Ok(Outcome::NotPossible) };
        statements::create_filter(connection, name, &old.table, &body).await?;
    }
    statements::create_function(connection, name, old.filtered).await?;
    Ok(Outcome::Upgraded)
}

/// The body of the function from the text of the trigger function: `SELECT count(*) INTO change
/// FROM new_rows AS changed (tidemark_1, …) WHERE CONDITION;`. The condition calls the column at
/// place N `tidemark_N`.
fn body(source: &str, columns: &[String]) -> Option<String> {
    let (_, rest) = source.split_once("SELECT count(*) INTO change FROM new_rows AS changed (")?;
    let (_, rest) = rest.split_once(") WHERE ")?;
    let (condition, _) = rest.split_once(";\n    WHEN 'DELETE' THEN")?;
    let named = |(place, column): (usize, &String)| {
        let name = format!("tidemark_{place}");
        contains_word(condition, &name).then(|| format!("(tidemark_row).{column} AS {name}"))
    };
    let columns: Vec<String> = (1..).zip(columns).filter_map(named).collect();
    Some(format!(
        "BEGIN ATOMIC SELECT true FROM (SELECT {}) AS tidemark_rows WHERE ({condition}\n); END",
        columns.join(", ")
    ))
}

/// Whether the text has this word, and not only as the beginning of a longer one.
fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word)
        .any(|(at, _)| !text[at + word.len()..].starts_with(|next: char| next.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_taken_as_it_was() {
        let source = "\nDECLARE\n  change bigint;\nBEGIN\n  CASE TG_OP\n    WHEN 'INSERT' THEN\n      SELECT count(*) INTO change FROM new_rows AS changed (tidemark_1, tidemark_2) WHERE (tidemark_2 = 'open'::text);\n    WHEN 'DELETE' THEN\n      SELECT …";
        assert_eq!(
            body(source, &["id".into(), "\"Status\"".into(), "amount".into()]).unwrap(),
            "BEGIN ATOMIC SELECT true FROM (SELECT (tidemark_row).\"Status\" AS tidemark_2) AS tidemark_rows WHERE ((tidemark_2 = 'open'::text)\n); END"
        );
        assert_eq!(body("BEGIN RETURN NULL; END", &[]), None);
        assert!(!contains_word("tidemark_12 > 1", "tidemark_1") && contains_word("tidemark_1 > 1", "tidemark_1"));
    }
}
