//! The user's condition becomes a function of a row, if it depends on nothing but the row.
//!
//! Postgres judges: what it takes as the predicate of an index has no subquery, no aggregate, and no function whose result may change by itself. What is
//! kept is the condition as Postgres wrote it down from what it had understood, every name with its schema; the user's text itself is never kept in code.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{OwnFeedError, statements};

/// Makes `feed_NAME_matches(row)`. It gives a set, because Postgres writes such a function into the query that calls it: a COPY pays for no calls. Its body
/// is bound to columns, not to their names: it follows when one is renamed, and one that it needs cannot be dropped without being told.
pub(super) async fn create(
    connection: &mut PgConnection,
    name: &str,
    table: &str,
    filter: &str,
) -> Result<(), OwnFeedError> {
    let of_feed = |error| OwnFeedError::of_feed(error, name, table, "prepare the filter");
    let judged = format!(r#"tidemark."feed_{name}_judged""#);
    execute(connection, format!("CREATE TABLE {judged} (LIKE {table} INCLUDING GENERATED)")).await.map_err(of_feed)?;
    judge(connection, &judged, filter).await.map_err(OwnFeedError::of_filter)?;
    statements::fix_search_path(connection).await.map_err(of_feed)?;
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT format('(changed).%I AS %1$I', attname) FROM pg_index
         JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = indexrelid AND refclassid = 'pg_class'::regclass AND refobjid = indrelid
         JOIN pg_attribute ON attrelid = indrelid AND attnum = refobjsubid
         WHERE indrelid = $1::regclass AND attnum > 0 ORDER BY attnum",
    )
    .bind(&judged)
    .fetch_all(&mut *connection)
    .await
    .map_err(of_feed)?;
    if columns.is_empty() {
        return Err(OwnFeedError::Filter("it names no column of the table".into()));
    }
    let condition: String =
        sqlx::query_scalar("SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indrelid = $1::regclass")
            .bind(&judged)
            .fetch_one(&mut *connection)
            .await
            .map_err(of_feed)?;
    execute(connection, format!("DROP TABLE {judged}")).await.map_err(of_feed)?;
    let create = format!(
        r#"CREATE FUNCTION tidemark."feed_{name}_matches"(changed {table}) RETURNS SETOF boolean LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
  SELECT {condition} FROM (SELECT {}) AS columns;
END"#,
        columns.join(", ")
    );
    execute(connection, create).await.map_err(OwnFeedError::of_filter)
}

/// Lets Postgres read the condition on an empty copy of the table. It has to be one between CASE and THEN, where no bracket can be closed that was not
/// opened, and one in brackets, where no CASE can: so the text cannot end what stands around it. The line break ends a comment.
async fn judge(connection: &mut PgConnection, judged: &str, filter: &str) -> Result<(), sqlx::Error> {
    execute(connection, format!("CREATE INDEX ON {judged} ((true)) WHERE ({filter}\n)")).await?;
    execute(connection, format!("SELECT CASE WHEN {filter}\nTHEN true END FROM {judged}")).await
}

/// Runs one statement. The extended protocol takes no second one, whatever the text says.
async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(connection).await?;
    Ok(())
}
