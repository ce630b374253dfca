//! The user's condition becomes a function of the table's row, if it depends on nothing but the row.
//!
//! Postgres judges: what it takes as the predicate of an index has no subquery, no aggregate, and no function whose result may change by itself. What is kept is
//! the condition as Postgres has understood it, in a body that it has parsed: so it follows every rename of what it names, means the same in every session, and
//! names nothing that could be dropped without Postgres telling who needs it.

use sqlx::{Connection, FromRow, PgConnection};

use super::{OwnFeedError, statements};

/// A condition over the rows of a table.
#[derive(Debug)]
pub(super) struct Condition {
    /// As the user wrote it.
    text: String,
    /// The columns that it names, quoted where SQL needs it.
    columns: Vec<String>,
}

/// A column that a condition names.
#[derive(Debug, FromRow)]
struct Column {
    /// Quoted where SQL needs it.
    name: String,
    /// The expression of a column that is computed when it is read, and so not in a trigger.
    computed: Option<String>,
}

impl Condition {
    /// The body of a function whose argument is a row of the table, and which gives a row if the condition holds. Only the columns that the condition names stand in
    /// it: the others may be dropped. Postgres makes it part of the query that calls it.
    pub fn body(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("(tidemark_row).{column} AS {column}")).collect();
        format!(
            "BEGIN ATOMIC SELECT true FROM (SELECT {}) AS tidemark_rows WHERE ({}\n); END",
            columns.join(", "),
            self.text
        )
    }

    /// The user's own text, to count by it.
    pub fn text(&self) -> &str {
        &self.text
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
    // Columns that are computed when they are read become plain ones here: an index could not name them, and the user shall be told why a trigger cannot.
    execute(&mut savepoint, format!("CREATE TABLE {copy} (LIKE {table})")).await.map_err(failed)?;
    parse(&mut savepoint, &copy, filter).await.map_err(OwnFeedError::of_filter)?;
    let columns = columns(&mut savepoint, &copy, table).await.map_err(failed)?;
    savepoint.rollback().await.map_err(failed)?;
    if columns.is_empty() {
        return Err(OwnFeedError::Filter("it names no column of the table".into()));
    }
    if let Some((column, computed)) = columns.iter().find_map(|column| Some((&column.name, column.computed.as_ref()?)))
    {
        return Err(OwnFeedError::Filter(format!(
            "{column} is a virtual generated column, which Postgres does not compute in triggers: write its expression in place of it, {computed}"
        )));
    }
    Ok(Condition { text: filter.to_owned(), columns: columns.into_iter().map(|column| column.name).collect() })
}

/// Lets Postgres read the condition. It has to be one between CASE and THEN, where no bracket can be closed that was not opened, and one in brackets, where
/// no CASE can: so the text cannot end what stands around it. The line break ends a comment.
async fn parse(connection: &mut PgConnection, copy: &str, filter: &str) -> Result<(), sqlx::Error> {
    execute(connection, format!("CREATE INDEX ON {copy} ((true)) WHERE ({filter}\n)")).await?;
    execute(connection, format!("SELECT CASE WHEN {filter}\nTHEN true END FROM {copy}")).await
}

/// The columns that the index on the copy depends on, as the table has them.
async fn columns(connection: &mut PgConnection, copy: &str, table: &str) -> Result<Vec<Column>, sqlx::Error> {
    sqlx::query_as(
        "SELECT quote_ident(named.attname) AS name,
           CASE WHEN original.attgenerated = 'v' THEN pg_get_expr(adbin, adrelid) END AS computed
         FROM pg_attribute AS named
         JOIN pg_attribute AS original ON original.attrelid = $2::regclass AND original.attname = named.attname AND NOT original.attisdropped
         LEFT JOIN pg_attrdef ON adrelid = original.attrelid AND adnum = original.attnum
         WHERE named.attrelid = $1::regclass AND named.attnum IN (
           SELECT refobjsubid FROM pg_index
           JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = indexrelid AND refclassid = 'pg_class'::regclass AND refobjid = indrelid
           WHERE indrelid = $1::regclass)
         ORDER BY named.attnum",
    )
    .bind(copy)
    .bind(table)
    .persistent(false)
    .fetch_all(connection)
    .await
}

/// Runs one statement. The extended protocol takes no second one, whatever the text says.
async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    statements::one(connection, statement).await
}
