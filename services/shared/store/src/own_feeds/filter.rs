//! The user's condition becomes code of ours, if it depends on nothing but the row.
//!
//! Postgres judges: what it takes as the predicate of an index has no subquery, no aggregate, and no function whose result may change by itself. What is
//! kept is the condition as Postgres writes down what it has understood, every name with its schema; the user's text itself is never part of code.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{OwnFeedError, statements};

/// A condition over the rows that a trigger sees.
///
/// Those have their columns under the names of today, which a rename changes. So the condition calls columns by their place, and a view on the table keeps the
/// places as they are: it follows renames by itself, and what it shows cannot be dropped without Postgres telling who needs it.
#[derive(Debug)]
pub(super) struct Condition {
    /// With the columns called `tidemark_1`, `tidemark_2` …
    text: String,
    /// How many of the table's columns get such a name, from the first on.
    columns: usize,
}

impl Condition {
    /// What stands behind the name of a table so that only the rows remain that count.
    pub fn clause(&self) -> String {
        let names: Vec<String> = (1..=self.columns).map(|place| format!("tidemark_{place}")).collect();
        format!(" AS changed ({}) WHERE {}", names.join(", "), self.text)
    }
}

/// Judges the user's text, and makes the view `feed_NAME_rows` of the rows that it means.
pub(super) async fn create(
    connection: &mut PgConnection,
    name: &str,
    table: &str,
    filter: &str,
) -> Result<Condition, OwnFeedError> {
    let failed = |error| OwnFeedError::of_feed(error, name, table, "prepare the filter");
    let judged = format!(r#"tidemark."feed_{name}_judged""#);
    execute(connection, format!("CREATE TABLE {judged} (LIKE {table} INCLUDING GENERATED)")).await.map_err(failed)?;
    judge(connection, &judged, filter).await.map_err(OwnFeedError::of_filter)?;
    statements::fix_search_path(connection).await.map_err(failed)?;
    let made = make(connection, name, table, &judged).await.map_err(failed)?;
    execute(connection, format!("DROP TABLE {judged}")).await.map_err(failed)?;
    made.ok_or_else(|| OwnFeedError::Filter("it names no column of the table".into()))
}

/// Lets Postgres read the condition on an empty copy of the table. It has to be one between CASE and THEN, where no bracket can be closed that was not
/// opened, and one in brackets, where no CASE can: so the text cannot end what stands around it. The line break ends a comment.
async fn judge(connection: &mut PgConnection, judged: &str, filter: &str) -> Result<(), sqlx::Error> {
    execute(connection, format!("CREATE INDEX ON {judged} ((true)) WHERE ({filter}\n)")).await?;
    execute(connection, format!("SELECT CASE WHEN {filter}\nTHEN true END FROM {judged}")).await
}

/// Makes the view; `None` if the condition names no column. The copy has the table's columns at the places that they have for a trigger: dropped ones have none.
async fn make(
    connection: &mut PgConnection,
    name: &str,
    table: &str,
    judged: &str,
) -> Result<Option<Condition>, sqlx::Error> {
    let named: Vec<i32> = sqlx::query_scalar(
        "SELECT DISTINCT refobjsubid FROM pg_index
         JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = indexrelid AND refclassid = 'pg_class'::regclass AND refobjid = indrelid
         WHERE indrelid = $1::regclass AND refobjsubid > 0 ORDER BY refobjsubid",
    )
    .bind(judged)
    .fetch_all(&mut *connection)
    .await?;
    let Some(last) = named.last() else { return Ok(None) };
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $1::regclass AND attnum BETWEEN 1 AND $2 ORDER BY attnum",
    )
    .bind(judged)
    .bind(last)
    .fetch_all(&mut *connection)
    .await?;
    let condition = predicate(connection, judged).await?;
    let view = format!(
        r#"CREATE VIEW tidemark."feed_{name}_rows" AS SELECT {} FROM ONLY {table} WHERE {condition}"#,
        columns.join(", ")
    );
    execute(connection, view).await?;
    for (place, column) in (1..).zip(&columns).filter(|(place, _)| named.contains(place)) {
        execute(connection, format!("ALTER TABLE {judged} RENAME COLUMN {column} TO tidemark_{place}")).await?;
    }
    Ok(Some(Condition { text: predicate(connection, judged).await?, columns: columns.len() }))
}

/// The condition in Postgres's own words, with the names that the columns have now.
async fn predicate(connection: &mut PgConnection, judged: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indrelid = $1::regclass")
        .bind(judged)
        .fetch_one(connection)
        .await
}

/// Runs one statement. The extended protocol takes no second one, whatever the text says.
async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(connection).await?;
    Ok(())
}
