//! What is asked of the database. Names that stand in a statement's text are made of a feed's checked name, or quoted by the database itself.

use std::time::Duration;

use sqlx::{AssertSqlSafe, FromRow, PgConnection};

pub(super) use super::triggers::{create_filter, create_function};
use super::{Follow, InstalledFeed, OwnFeed, filter::Condition, problem::ProblemWord};
use crate::transaction::no_transaction_timeout;

/// Whoever wants to write to a table queues behind us while we wait for it. So long may nobody wait; a transaction that is open for longer is somebody's
/// own business.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// A table that was found.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Table {
    /// Quoted where SQL needs it.
    pub name: String,
    /// A word of [`super::Obstacle`].
    pub obstacle: Option<String>,
    /// Whether the account has the owner's rights.
    pub owned: bool,
}

/// An own feed, as it is recorded.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Recorded {
    pub owner: Option<String>,
    /// Its table, quoted where SQL needs it; the name it once had when it is gone.
    pub table: String,
    /// Whether it counts the same rows of the same table, and is right.
    pub same: bool,
}

/// Begins a transaction whose every statement sees what was committed before it, whatever the account's default is: the count depends on it. Its waits for locks are
/// bounded; counting a large table may take any time. A filter means what it means in standard SQL.
pub(super) const BEGIN: &str = concat!(
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '2s';
    SET LOCAL standard_conforming_strings = on; SET LOCAL transform_null_equals = off; ",
    no_transaction_timeout!()
);

/// From here on names mean what Postgres itself calls so, and everything else has its schema: what is created does not depend on the account's search path.
pub(super) async fn fix_search_path(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    one(connection, "SET LOCAL search_path = pg_catalog, pg_temp".into()).await
}

/// Runs one statement. The extended protocol takes no second one, whatever the text says.
pub(super) async fn one(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(connection).await?;
    Ok(())
}

/// Looks for a table; `None` if there is none of that name.
pub(super) async fn table(connection: &mut PgConnection, name: &str) -> Result<Option<Table>, sqlx::Error> {
    sqlx::query_as(
        "SELECT quote_ident(space.nspname) || '.' || quote_ident(relation.relname) AS name, pg_has_role(relation.relowner, 'USAGE') AS owned,
           coalesce(tidemark.table_obstacle(relation.oid), CASE
             WHEN NOT has_table_privilege(relation.oid, 'TRIGGER') THEN 'no_trigger'
             WHEN NOT has_table_privilege(relation.oid, 'SELECT') THEN 'no_select'
             WHEN row_security_active(relation.oid) THEN 'hidden_rows'
           END) AS obstacle
         FROM pg_class AS relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace
         WHERE relation.oid = to_regclass($1)",
    )
    .bind(name)
    .persistent(false)
    .fetch_optional(connection)
    .await
}

/// A table whose name differs from this one in capital letters alone, as SQL names it. A name that is none is refused.
pub(super) async fn similar_table(connection: &mut PgConnection, name: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE relkind IN ('r', 'p') AND ARRAY[lower(nspname), lower(relname)] = (SELECT array_agg(lower(part)) FROM unnest(parse_ident($1)) AS part)
         ORDER BY 1 LIMIT 1",
    )
    .bind(name)
    .persistent(false)
    .fetch_optional(connection)
    .await
}

/// Whether a limit of temporary files is set, for the server or for anybody in this database.
pub(super) async fn limits_temporary_files(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'temp_file_limit' AND (setting <> '-1' OR reset_val <> '-1'))
           OR EXISTS (SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
             WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
               AND setting LIKE 'temp_file_limit=%' AND setting <> 'temp_file_limit=-1')",
    )
    .persistent(false)
    .fetch_one(connection)
    .await
}

/// Records the feed. Another of that name is a unique violation, after its own transaction has ended.
pub(super) async fn record(
    connection: &mut PgConnection,
    feed: &OwnFeed,
    table: &str,
    owner: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT tidemark.create_feed($1, 'count', NULL)")
        .bind(&feed.name)
        .persistent(false)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO tidemark.own_feeds (feed, relation, named, filter, owner, follow) VALUES ($1, $2::regclass, $2, $3, $4, $5)",
    )
    .bind(&feed.name)
    .bind(table)
    .bind(&feed.filter)
    .bind(owner)
    .bind(feed.follow.as_str())
    .persistent(false)
    .execute(connection)
    .await?;
    Ok(())
}

/// The recorded feed of this name, beside a wanted one of the same name.
pub(super) async fn recorded(
    connection: &mut PgConnection,
    name: &str,
    wanted: Option<&OwnFeed>,
) -> Result<Option<Recorded>, sqlx::Error> {
    sqlx::query_as(
        "SELECT own.owner, coalesce(quote_ident(space.nspname) || '.' || quote_ident(relation.relname), own.named) AS table,
           coalesce(relation.oid = to_regclass($2), false) AND own.filter IS NOT DISTINCT FROM $3 AND own.follow IS NOT DISTINCT FROM $4
             AND NOT EXISTS (SELECT FROM tidemark.feed_problems() AS problem WHERE problem.feed = own.feed)
             AND NOT EXISTS (SELECT FROM tidemark.feed_values() AS value WHERE value.feed = own.feed AND value.failure IS NOT NULL) AS same
         FROM tidemark.own_feeds AS own LEFT JOIN (pg_class AS relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace)
           ON relation.oid = own.relation
         WHERE own.feed = $1",
    )
    .bind(name)
    .bind(wanted.map(|feed| &feed.table))
    .bind(wanted.and_then(|feed| feed.filter.as_ref()))
    .bind(wanted.map(|feed| feed.follow.as_str()))
    .persistent(false)
    .fetch_optional(connection)
    .await
}

/// The rows that are there.
#[derive(Debug, Clone, Copy, FromRow)]
pub(super) struct Rows {
    /// As the triggers count.
    pub counted: i64,
    /// As the user's own text counts.
    pub meant: i64,
}

/// Counts what is there. The statement's snapshot is newer than the lock that `install` took: it has all that was committed.
///
/// The user's text is read with the names that the user sees, and all is counted with those that triggers see: a function whose text relies on others fails here.
pub(super) async fn count(
    connection: &mut PgConnection,
    name: &str,
    table: &str,
    condition: Option<&Condition>,
) -> Result<Rows, sqlx::Error> {
    let Some(condition) = condition else {
        let query = format!("SELECT count(*) AS counted, count(*) AS meant FROM ONLY {table}");
        return sqlx::query_as(AssertSqlSafe(query)).persistent(false).fetch_one(connection).await;
    };
    let view = format!(r#"tidemark."feed_{name}_counted""#);
    let create = format!(
        r#"CREATE VIEW {view} AS SELECT count(tidemark_matches.tidemark_holds) AS counted, count(*) FILTER (WHERE {}
) AS meant FROM ONLY {table} AS tidemark_rows
LEFT JOIN LATERAL tidemark."feed_{name}_matches"(tidemark_rows.*) AS tidemark_matches (tidemark_holds) ON true"#,
        condition.text()
    );
    one(connection, create).await?;
    fix_search_path(connection).await?;
    let query = format!("SELECT counted, meant FROM {view}");
    let rows = sqlx::query_as(AssertSqlSafe(query)).persistent(false).fetch_one(&mut *connection).await?;
    one(connection, format!("DROP VIEW {view}")).await?;
    Ok(rows)
}

/// Makes these rows the feed's first value.
pub(super) async fn begin_with(connection: &mut PgConnection, name: &str, rows: i64) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO tidemark.deltas (source, n) VALUES ($1, $2)")
        .bind(name)
        .bind(rows)
        .persistent(false)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes the feed with its function, and with that the triggers: dropping a trigger by its name is for the table's owner alone.
pub(super) async fn remove(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    // The function first: with its triggers comes the lock of the table, and nobody counts after that. Version 0.1 made a view.
    one(connection, format!(r#"DROP FUNCTION IF EXISTS tidemark."feed_{name}"() CASCADE"#)).await?;
    one(connection, format!(r#"DROP VIEW IF EXISTS tidemark."feed_{name}_rows""#)).await?;
    sqlx::query("SELECT tidemark.remove_feed($1)").bind(name).persistent(false).execute(connection).await?;
    Ok(())
}

#[derive(FromRow)]
struct Listed {
    name: String,
    table: String,
    filter: Option<String>,
    owner: Option<String>,
    #[sqlx(try_from = "String")]
    follow: Follow,
    count: i64,
    #[sqlx(try_from = "Option<String>")]
    problem: ProblemWord,
    failure: Option<String>,
}

/// All own feeds, and whether their counts are still right.
pub(super) async fn list(connection: &mut PgConnection) -> Result<Vec<InstalledFeed>, sqlx::Error> {
    let listed: Vec<Listed> = sqlx::query_as(
        "SELECT own.feed AS name, coalesce(quote_ident(space.nspname) || '.' || quote_ident(relation.relname), own.named) AS table, own.filter, own.owner,
           own.follow, coalesce(value.n, 0) AS count, value.failure,
           coalesce(problem.problem, CASE WHEN value.failure IS NOT NULL THEN 'filter_failed' END) AS problem
         FROM tidemark.own_feeds AS own
         LEFT JOIN (pg_class AS relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace) ON relation.oid = own.relation
         LEFT JOIN tidemark.feed_values() AS value ON value.feed = own.feed
         LEFT JOIN tidemark.feed_problems() AS problem ON problem.feed = own.feed
         ORDER BY own.feed",
    )
    .persistent(false)
    .fetch_all(connection)
    .await?;
    let feed = |Listed { name, table, filter, owner, follow, count, problem, failure }| InstalledFeed {
        name,
        table,
        filter,
        owner,
        follow,
        count,
        problem: problem.0,
        failure,
    };
    Ok(listed.into_iter().map(feed).collect())
}

/// Whether transactions can be prepared on this server.
pub(super) async fn prepares_transactions(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT current_setting('max_prepared_transactions') <> '0'")
        .persistent(false)
        .fetch_one(connection)
        .await
}

/// The feeds on this list.
pub(super) async fn owned_by(connection: &mut PgConnection, owner: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT feed FROM tidemark.own_feeds WHERE owner = $1 ORDER BY feed")
        .bind(owner)
        .persistent(false)
        .fetch_all(connection)
        .await
}
