//! What is asked of the database. Names that stand in a statement's text are made of a feed's checked name, or quoted by the database itself.

use std::time::Duration;

use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use super::{InstalledFeed, OwnFeed, filter::Condition};

/// Whoever wants to write to a table queues behind us while we wait for it. So long may nobody wait; a transaction that is open for longer is somebody's
/// own business.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether triggers see all changes of a table: NULL, or a word of [`super::Obstacle`].
const OBSTACLE: &str = "CASE
    WHEN relation.relkind = 'p' THEN 'partitioned'
    WHEN relation.relkind <> 'r' THEN 'not_a_table'
    WHEN space.nspname = 'tidemark' THEN 'ours'
    WHEN space.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') THEN 'system'
    WHEN relation.relispartition THEN 'partition'
    WHEN EXISTS (SELECT FROM pg_inherits WHERE relation.oid IN (inhparent, inhrelid)) THEN 'inheritance'
    WHEN relation.relpersistence = 't' THEN 'temporary'
    WHEN relation.relpersistence = 'u' THEN 'unlogged'
    WHEN EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = relation.oid) THEN 'subscribed'
  END";

/// A table that was found.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Table {
    /// Quoted where SQL needs it.
    pub name: String,
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
    /// Whether it counts the same rows of the same table.
    pub same: bool,
}

/// Bounds the transaction's waits for locks.
pub(super) async fn bound(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('lock_timeout', $1, true)")
        .bind(LOCK_TIMEOUT.as_millis().to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// From here on names mean what Postgres itself calls so, and everything else has its schema: what is created does not depend on the account's search path.
pub(super) async fn fix_search_path(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL search_path = pg_catalog, pg_temp").execute(connection).await?;
    Ok(())
}

/// Looks for a table; `None` if there is none of that name.
pub(super) async fn table(connection: &mut PgConnection, name: &str) -> Result<Option<Table>, sqlx::Error> {
    let query = format!(
        "SELECT quote_ident(space.nspname) || '.' || quote_ident(relation.relname) AS name, pg_has_role(relation.relowner, 'USAGE') AS owned,
           coalesce({OBSTACLE}, CASE
             WHEN NOT has_table_privilege(relation.oid, 'TRIGGER') THEN 'no_trigger'
             WHEN NOT has_table_privilege(relation.oid, 'SELECT') THEN 'no_select'
             WHEN row_security_active(relation.oid) THEN 'hidden_rows'
           END) AS obstacle
         FROM pg_class AS relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace
         WHERE relation.oid = to_regclass($1)"
    );
    sqlx::query_as(AssertSqlSafe(query)).bind(name).fetch_optional(connection).await
}

/// Records the feed. Another of that name is a unique violation, after its own transaction has ended.
pub(super) async fn record(
    connection: &mut PgConnection,
    feed: &OwnFeed,
    table: &str,
    owner: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT tidemark.create_feed($1, 'count', NULL)").bind(&feed.name).execute(&mut *connection).await?;
    sqlx::query(
        "INSERT INTO tidemark.own_feeds (feed, relation, named, filter, owner) VALUES ($1, $2::regclass, $2, $3, $4)",
    )
    .bind(&feed.name)
    .bind(table)
    .bind(&feed.filter)
    .bind(owner)
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
           coalesce(relation.oid = to_regclass($2), false) AND own.filter IS NOT DISTINCT FROM $3 AS same
         FROM tidemark.own_feeds AS own LEFT JOIN (pg_class AS relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace)
           ON relation.oid = own.relation
         WHERE own.feed = $1",
    )
    .bind(name)
    .bind(wanted.map(|feed| &feed.table))
    .bind(wanted.and_then(|feed| feed.filter.as_ref()))
    .fetch_optional(connection)
    .await
}

/// The function that the triggers call. It counts statements, not rows: a COPY of 100,000 rows is one change.
///
/// It belongs to who adds the feed and has that account's rights, whoever writes. Others may not call it: on a table of theirs it would count for this feed.
pub(super) async fn create_function(
    connection: &mut PgConnection,
    name: &str,
    condition: Option<&Condition>,
) -> Result<(), sqlx::Error> {
    let matching = condition.map(Condition::clause).unwrap_or_default();
    // The condition stands between dollars, and may have some of its own.
    let mut quote = "$body$".to_owned();
    while matching.contains(&quote) {
        quote.insert(1, '_');
    }
    let create = format!(
        r#"CREATE FUNCTION tidemark."feed_{name}"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {quote}
DECLARE
  change bigint;
BEGIN
  CASE TG_OP
    WHEN 'INSERT' THEN
      SELECT count(*) INTO change FROM new_rows{matching};
    WHEN 'DELETE' THEN
      SELECT -count(*) INTO change FROM old_rows{matching};
    WHEN 'UPDATE' THEN
      SELECT (SELECT count(*) FROM new_rows{matching}) - (SELECT count(*) FROM old_rows{matching}) INTO change;
    ELSE
      PERFORM tidemark.count_reset('{name}');
      RETURN NULL;
  END CASE;
  IF change <> 0 THEN
    PERFORM tidemark.count_change('{name}', change, 0);
  END IF;
  RETURN NULL;
END {quote}"#
    );
    sqlx::query(AssertSqlSafe(create)).execute(&mut *connection).await?;
    let revoke = format!(r#"REVOKE ALL ON FUNCTION tidemark."feed_{name}"() FROM PUBLIC"#);
    sqlx::query(AssertSqlSafe(revoke)).execute(connection).await?;
    Ok(())
}

/// Creates the triggers and, with a filter, the view that they depend on. From here on nobody else changes the table until the end of the transaction, and
/// all who did have ended.
///
/// The first trigger takes the lock, and needs no view: a view of the table would take a weaker lock before.
pub(super) async fn install(
    connection: &mut PgConnection,
    name: &str,
    table: &Table,
    condition: Option<&Condition>,
) -> Result<(), sqlx::Error> {
    create_trigger(connection, name, table, "TRUNCATE", "truncated", "").await?;
    let mut when = String::new();
    if let Some(condition) = condition {
        let query = condition.query(&table.name);
        let view = format!(r#"CREATE VIEW tidemark."feed_{name}_rows" AS {query}"#);
        sqlx::query(AssertSqlSafe(view)).execute(&mut *connection).await?;
        // Always true. By it the triggers depend on the view: a DROP … CASCADE that takes a column of the filter takes them too, instead of leaving a table
        // that cannot be written to.
        when = format!(r#"WHEN ('tidemark."feed_{name}_rows"'::regclass IS NOT NULL) "#);
        // Without a filter an UPDATE changes no count.
        let both = format!("REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT {when}");
        create_trigger(connection, name, table, "UPDATE", "updated", &both).await?;
    }
    let new = format!("REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT {when}");
    create_trigger(connection, name, table, "INSERT", "inserted", &new).await?;
    let old = format!("REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT {when}");
    create_trigger(connection, name, table, "DELETE", "deleted", &old).await
}

async fn create_trigger(
    connection: &mut PgConnection,
    name: &str,
    table: &Table,
    event: &str,
    end: &str,
    clauses: &str,
) -> Result<(), sqlx::Error> {
    let on = &table.name;
    let create = format!(
        r#"CREATE TRIGGER "feed_{name}_{end}" AFTER {event} ON {on} {clauses}EXECUTE FUNCTION tidemark."feed_{name}"()"#
    );
    sqlx::query(AssertSqlSafe(create)).execute(&mut *connection).await?;
    // Also in sessions that replay changes, or the count would be wrong after a restore.
    if table.owned {
        let always = format!(r#"ALTER TABLE {on} ENABLE ALWAYS TRIGGER "feed_{name}_{end}""#);
        sqlx::query(AssertSqlSafe(always)).execute(connection).await?;
    }
    Ok(())
}

/// Counts what is there, into the first slot. The statement's snapshot is newer than the lock that [`install`] took: it has all that was committed.
pub(super) async fn count(
    connection: &mut PgConnection,
    name: &str,
    table: &str,
    filtered: bool,
) -> Result<u64, sqlx::Error> {
    let rows = if filtered { format!(r#"tidemark."feed_{name}_rows""#) } else { format!("ONLY {table}") };
    let rows: i64 =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {rows}"))).fetch_one(&mut *connection).await?;
    sqlx::query("UPDATE tidemark.feed_slots SET n = $2, version = version + 1, at = clock_timestamp() WHERE feed = $1 AND slot = 0")
        .bind(name)
        .bind(rows)
        .execute(connection)
        .await?;
    Ok(rows.unsigned_abs())
}

/// Removes the feed with its function, and with that the triggers: dropping a trigger by its name is for the table's owner alone.
pub(super) async fn remove(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    // The function first: with its triggers comes the lock of the table, and nobody counts after that. CASCADE may have taken the view before.
    for drop in [
        format!(r#"DROP FUNCTION IF EXISTS tidemark."feed_{name}"() CASCADE"#),
        format!(r#"DROP VIEW IF EXISTS tidemark."feed_{name}_rows""#),
    ] {
        sqlx::query(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    }
    sqlx::query("SELECT tidemark.remove_feed($1)").bind(name).execute(connection).await?;
    Ok(())
}

/// All own feeds, and whether their counts are still right.
pub(super) async fn list(connection: &mut PgConnection) -> Result<Vec<InstalledFeed>, sqlx::Error> {
    let query = format!(
        "SELECT own.feed AS name, coalesce(quote_ident(space.nspname) || '.' || quote_ident(relation.relname), own.named) AS table, own.filter, own.owner,
           (SELECT sum(n)::bigint FROM tidemark.feed_slots WHERE feed_slots.feed = own.feed) AS count,
           CASE WHEN relation.oid IS NULL THEN 'gone' ELSE coalesce({OBSTACLE}, CASE WHEN (
             SELECT count(*) FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
             WHERE tgrelid = own.relation AND tgenabled IN ('O', 'A') AND pronamespace = 'tidemark'::regnamespace AND proname = 'feed_' || own.feed
           ) < CASE WHEN own.filter IS NULL THEN 3 ELSE 4 END THEN 'switched_off' END) END AS trouble
         FROM tidemark.own_feeds AS own LEFT JOIN (pg_class AS relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace)
           ON relation.oid = own.relation
         ORDER BY own.feed"
    );
    sqlx::query_as(AssertSqlSafe(query)).fetch_all(connection).await
}

/// The feeds on this list.
pub(super) async fn owned_by(connection: &mut PgConnection, owner: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT feed FROM tidemark.own_feeds WHERE owner = $1 ORDER BY feed")
        .bind(owner)
        .fetch_all(connection)
        .await
}
