//! The user's condition becomes code of ours, if it depends on nothing but the row.
//!
//! Postgres judges: what it takes as the predicate of an index has no subquery, no aggregate, and no function whose result may change by itself. What is
//! kept is the condition as Postgres writes down what it has understood, every name with its schema; the user's text itself is never part of code.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{OwnFeedError, statements};

/// A condition over the rows that a trigger sees.
///
/// Those have their columns under the names of today, which a rename changes. So the condition calls columns by their place, and a view on the table keeps the
/// places as they are: it follows renames by itself, and what it shows cannot be dropped without Postgres telling who needs it.
#[derive(Debug)]
pub(super) struct Condition {
    /// With the columns called by their names.
    by_name: String,
    /// With the columns called `tidemark_1`, `tidemark_2` …
    by_place: String,
    /// The table's columns from the first to the last one that the condition names, quoted where SQL needs it.
    columns: Vec<String>,
}

impl Condition {
    /// What stands behind the rows of a trigger so that only those remain that count.
    pub fn clause(&self) -> String {
        let places: Vec<String> = (1..=self.columns.len()).map(|place| format!("tidemark_{place}")).collect();
        format!(" AS changed ({}) WHERE {}", places.join(", "), self.by_place)
    }

    /// The query of the view.
    pub fn query(&self, table: &str) -> String {
        format!("SELECT {} FROM ONLY {table} WHERE {}", self.columns.join(", "), self.by_name)
    }

    /// Whether the columns of the table are still those that were judged.
    pub async fn fits(&self, connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
        let last = i32::try_from(self.columns.len()).unwrap_or(i32::MAX);
        Ok(columns(connection, table, last).await? == self.columns)
    }
}

/// Judges the user's text on an empty copy of the table. It is taken back, and with it the lock of the table: the next one must be the strongest, or a
/// transaction that wants more of the table than it has would be in a circle with ours.
pub(super) async fn judge(
    connection: &mut PgConnection,
    name: &str,
    table: &str,
    filter: &str,
) -> Result<Condition, OwnFeedError> {
    let failed = |error| OwnFeedError::of_feed(error, name, table, "prepare the filter");
    let mut savepoint = connection.begin().await.map_err(failed)?;
    let copy = format!(r#"tidemark."feed_{name}_judged""#);
    execute(&mut savepoint, format!("CREATE TABLE {copy} (LIKE {table} INCLUDING GENERATED)")).await.map_err(failed)?;
    parse(&mut savepoint, &copy, filter).await.map_err(OwnFeedError::of_filter)?;
    let condition = understood(&mut savepoint, &copy).await.map_err(failed)?;
    savepoint.rollback().await.map_err(failed)?;
    condition.ok_or_else(|| OwnFeedError::Filter("it names no column of the table".into()))
}

/// Lets Postgres read the condition. It has to be one between CASE and THEN, where no bracket can be closed that was not opened, and one in brackets, where
/// no CASE can: so the text cannot end what stands around it. The line break ends a comment.
async fn parse(connection: &mut PgConnection, copy: &str, filter: &str) -> Result<(), sqlx::Error> {
    execute(connection, format!("CREATE INDEX ON {copy} ((true)) WHERE ({filter}\n)")).await?;
    execute(connection, format!("SELECT CASE WHEN {filter}\nTHEN true END FROM {copy}")).await
}

/// What Postgres has understood; `None` if that names no column. The copy has the table's columns at the places that they have for a trigger.
async fn understood(connection: &mut PgConnection, copy: &str) -> Result<Option<Condition>, sqlx::Error> {
    statements::fix_search_path(connection).await?;
    let named: Vec<i32> = sqlx::query_scalar(
        "SELECT DISTINCT refobjsubid FROM pg_index
         JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = indexrelid AND refclassid = 'pg_class'::regclass AND refobjid = indrelid
         WHERE indrelid = $1::regclass AND refobjsubid > 0 ORDER BY refobjsubid",
    )
    .bind(copy)
    .fetch_all(&mut *connection)
    .await?;
    let Some(last) = named.last() else { return Ok(None) };
    let columns = columns(connection, copy, *last).await?;
    let by_name = predicate(connection, copy).await?;
    for (place, column) in (1..).zip(&columns).filter(|(place, _)| named.contains(place)) {
        execute(connection, format!("ALTER TABLE {copy} RENAME COLUMN {column} TO tidemark_{place}")).await?;
    }
    Ok(Some(Condition { by_name, by_place: predicate(connection, copy).await?, columns }))
}

/// The first columns of a table. Dropped ones have no place.
async fn columns(connection: &mut PgConnection, table: &str, most: i32) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT $2",
    )
    .bind(table)
    .bind(most)
    .fetch_all(connection)
    .await
}

/// The condition in Postgres's own words, with the names that the columns have now.
async fn predicate(connection: &mut PgConnection, copy: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indrelid = $1::regclass")
        .bind(copy)
        .fetch_one(connection)
        .await
}

/// Runs one statement. The extended protocol takes no second one, whatever the text says.
async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(connection).await?;
    Ok(())
}
