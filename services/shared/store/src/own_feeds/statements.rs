//! What is asked of the database. Names that stand in a statement's text are made of a feed's checked name, or quoted by the database itself.

use std::time::Duration;

use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use super::{Follow, InstalledFeed, OwnFeed, filter::Condition, problem::ProblemWord};

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
pub(super) const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '2s';
    SET LOCAL standard_conforming_strings = on; SET LOCAL transform_null_equals = off";

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

/// A table whose name differs from this one in capital letters alone, as SQL names it.
pub(super) async fn similar_table(connection: &mut PgConnection, name: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE relkind IN ('r', 'p') AND lower(nspname || '.' || relname) = lower(replace($1, '\"', '')) ORDER BY 1 LIMIT 1",
    )
    .bind(name)
    .persistent(false)
    .fetch_optional(connection)
    .await
}

/// Whether a limit of temporary files is set, for the server or for anybody.
pub(super) async fn limits_temporary_files(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'temp_file_limit' AND (setting <> '-1' OR reset_val <> '-1'))
           OR EXISTS (SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting WHERE setting LIKE 'temp_file_limit=%' AND setting <> 'temp_file_limit=-1')",
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

/// The function of the table's row that says whether a row counts. It has to see the names that the user's text sees.
pub(super) async fn create_filter(
    connection: &mut PgConnection,
    name: &str,
    table: &str,
    body: &str,
) -> Result<(), sqlx::Error> {
    let create = format!(
        r#"CREATE FUNCTION tidemark."feed_{name}_matches"(tidemark_row {table}) RETURNS SETOF boolean LANGUAGE sql IMMUTABLE {body}"#
    );
    one(connection, create).await?;
    one(connection, format!(r#"REVOKE ALL ON FUNCTION tidemark."feed_{name}_matches" FROM PUBLIC"#)).await
}

/// The function that the triggers call. It counts statements, not rows: a COPY of 100,000 rows is one change.
///
/// It belongs to who adds the feed and has that account's rights, whoever writes. Others may not call it: on a table of theirs it would count for this feed. No write
/// fails because of it: an error of the filter becomes part of the feed's state, and an account that has lost its rights counts nothing, which readers see too.
pub(super) async fn create_function(
    connection: &mut PgConnection,
    name: &str,
    filtered: bool,
) -> Result<(), sqlx::Error> {
    // With the asterisk it is the row, also where a column has the same name.
    let matching = if filtered {
        format!(r#" AS changed CROSS JOIN LATERAL tidemark."feed_{name}_matches"(changed.*)"#)
    } else {
        String::new()
    };
    let count = format!(
        "CASE TG_OP
      WHEN 'INSERT' THEN
        SELECT count(*) INTO change FROM new_rows{matching};
      WHEN 'DELETE' THEN
        SELECT -count(*) INTO change FROM old_rows{matching};
      WHEN 'UPDATE' THEN
        SELECT (SELECT count(*) FROM new_rows{matching}) - (SELECT count(*) FROM old_rows{matching}) INTO change;
    END CASE;"
    );
    // A block that catches errors costs a subtransaction, but one that writes nothing has no number of its own.
    let caught = if filtered {
        format!(
            "BEGIN\n    {count}\n  EXCEPTION WHEN OTHERS THEN\n    PERFORM tidemark.count_failure('{name}', SQLSTATE);\n    RETURN NULL;\n  END;"
        )
    } else {
        count
    };
    let create = format!(
        r#"CREATE OR REPLACE FUNCTION tidemark."feed_{name}"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change bigint;
BEGIN
  IF NOT has_schema_privilege('tidemark', 'USAGE') THEN
    RETURN NULL;
  ELSIF NOT has_table_privilege('tidemark.deltas', 'INSERT') THEN
    RETURN NULL;
  ELSIF TG_OP = 'TRUNCATE' THEN
    PERFORM tidemark.count_reset('{name}');
    RETURN NULL;
  END IF;
  {caught}
  IF change <> 0 THEN
    PERFORM tidemark.count_change('{name}', change, 0);
  END IF;
  RETURN NULL;
END $$"#
    );
    one(connection, create).await?;
    one(connection, format!(r#"REVOKE ALL ON FUNCTION tidemark."feed_{name}"() FROM PUBLIC"#)).await
}

/// Creates the triggers. From here on nobody else changes the table until the end of the transaction, and all who did have ended.
pub(super) async fn install(
    connection: &mut PgConnection,
    name: &str,
    table: &Table,
    filtered: bool,
) -> Result<(), sqlx::Error> {
    create_trigger(connection, name, table, "TRUNCATE", "truncated", "").await?;
    if filtered {
        // Without a filter an UPDATE changes no count.
        let both = "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows";
        create_trigger(connection, name, table, "UPDATE", "updated", both).await?;
    }
    create_trigger(connection, name, table, "INSERT", "inserted", "REFERENCING NEW TABLE AS new_rows").await?;
    create_trigger(connection, name, table, "DELETE", "deleted", "REFERENCING OLD TABLE AS old_rows").await
}

async fn create_trigger(
    connection: &mut PgConnection,
    name: &str,
    table: &Table,
    event: &str,
    end: &str,
    rows: &str,
) -> Result<(), sqlx::Error> {
    let on = &table.name;
    let create = format!(
        r#"CREATE TRIGGER "feed_{name}_{end}" AFTER {event} ON {on} {rows} FOR EACH STATEMENT EXECUTE FUNCTION tidemark."feed_{name}"()"#
    );
    one(connection, create).await?;
    // Also in sessions that replay changes, or the count would be wrong after a restore.
    if table.owned {
        one(connection, format!(r#"ALTER TABLE {on} ENABLE ALWAYS TRIGGER "feed_{name}_{end}""#)).await?;
    }
    Ok(())
}

/// The rows that are there.
#[derive(Debug, Clone, Copy, FromRow)]
pub(super) struct Rows {
    /// As the triggers count.
    pub counted: i64,
    /// As the user's own text counts.
    pub meant: i64,
}

/// Counts what is there. The statement's snapshot is newer than the lock that [`install`] took: it has all that was committed.
pub(super) async fn count(
    connection: &mut PgConnection,
    name: &str,
    table: &str,
    condition: Option<&Condition>,
) -> Result<Rows, sqlx::Error> {
    let query = match condition {
        None => format!("SELECT count(*) AS counted, count(*) AS meant FROM ONLY {table}"),
        Some(condition) => format!(
            r#"SELECT count(tidemark_matches.holds) AS counted, count(*) FILTER (WHERE {}
) AS meant FROM ONLY {table} AS tidemark_rows LEFT JOIN LATERAL tidemark."feed_{name}_matches"(tidemark_rows.*) AS tidemark_matches (holds) ON true"#,
            condition.text()
        ),
    };
    sqlx::query_as(AssertSqlSafe(query)).persistent(false).fetch_one(connection).await
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
    for drop in [
        format!(r#"DROP FUNCTION IF EXISTS tidemark."feed_{name}"() CASCADE"#),
        format!(r#"DROP FUNCTION IF EXISTS tidemark."feed_{name}_matches""#),
        format!(r#"DROP VIEW IF EXISTS tidemark."feed_{name}_rows""#),
    ] {
        one(connection, drop).await?;
    }
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
