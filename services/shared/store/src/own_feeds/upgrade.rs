//! Filters of version 0.1 become functions of a row, as those of today are.
//!
//! They were code in the text of the trigger function, over columns by their place: a rename of anything else that they name made every write to the table fail. The
//! condition is taken from that text, so that it means exactly what it meant before; nothing is counted, and nobody waits.

use sqlx::{Connection, FromRow, PgConnection};
use tracing::{info, warn};

use super::statements;
use crate::DatabaseError;

/// A feed whose filter is still of the old form.
#[derive(Debug, FromRow)]
struct Old {
    name: String,
    /// The table, quoted where SQL needs it.
    table: String,
    /// The account that added it, quoted where SQL needs it.
    account: String,
    /// Whether this account may act as that one.
    may: bool,
    /// The text of the trigger function.
    source: String,
    /// The table's columns in their order, quoted where SQL needs it.
    columns: Vec<String>,
}

const OLD: &str = "
SELECT own.feed AS name, quote_ident(space.nspname) || '.' || quote_ident(relation.relname) AS table, quote_ident(rolname) AS account,
  pg_has_role(rolname, 'MEMBER') AS may, counter.prosrc AS source,
  ARRAY(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = relation.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS columns
FROM tidemark.own_feeds AS own
JOIN pg_class AS relation ON relation.oid = own.relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace
JOIN pg_proc AS counter ON counter.pronamespace = 'tidemark'::regnamespace AND counter.proname = 'feed_' || own.feed
JOIN pg_roles ON pg_roles.oid = counter.proowner
WHERE own.filter IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'tidemark'::regnamespace AND proname = 'feed_' || own.feed || '_matches')
ORDER BY own.feed";

/// Converts what this account may convert. A feed that cannot be converted counts as before, and is named in the log.
///
/// # Errors
/// If the list cannot be read.
pub(crate) async fn upgrade_filters(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    let mut transaction = connection.begin_with(statements::BEGIN).await?;
    let old: Vec<Old> = sqlx::query_as(OLD).persistent(false).fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    for feed in old {
        let name = feed.name.clone();
        match upgrade(connection, &feed).await {
            Ok(true) => info!(feed = name, "the filter of this feed is a function now, which follows renames"),
            Ok(false) => warn!(
                feed = name,
                account = feed.account,
                "the filter of this feed has the form of version 0.1, and this account may not change it: remove the feed and add it again"
            ),
            Err(error) => warn!(
                error = &DatabaseError::from(error) as &dyn std::error::Error,
                feed = name,
                "the filter of this feed keeps the form of version 0.1: remove the feed and add it again"
            ),
        }
    }
    Ok(())
}

/// False: this account may not, or the function is not as version 0.1 made it.
async fn upgrade(connection: &mut PgConnection, old: &Old) -> Result<bool, sqlx::Error> {
    let Some(body) = old.may.then(|| body(&old.source, &old.columns)).flatten() else { return Ok(false) };
    let mut transaction = connection.begin_with(statements::BEGIN).await?;
    // What is made belongs to the account of the feed, and needs no more than its rights.
    statements::one(&mut transaction, format!("SET LOCAL ROLE {}", old.account)).await?;
    statements::fix_search_path(&mut transaction).await?;
    statements::create_filter(&mut transaction, &old.name, &old.table, &body).await?;
    statements::create_function(&mut transaction, &old.name, true).await?;
    transaction.commit().await?;
    Ok(true)
}

/// The body of the function from the text of the trigger function: `SELECT count(*) INTO change FROM new_rows AS changed (tidemark_1, …) WHERE CONDITION;`. The condition
/// calls the column at place N `tidemark_N`.
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
