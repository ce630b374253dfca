//! What is made for a feed in the database: the function of its filter, the function that its triggers call, and the triggers.

use sqlx::{AssertSqlSafe, PgConnection};

use super::statements::{Table, one};

/// Settings on which the result of a function or cast may depend although it is IMMUTABLE: those of its text, of literals in
/// it, and of numbers, bytes, intervals, names and XML as text. A text search configuration of the user's own is left out:
/// it could be renamed, and then no write could set it.
const SETTINGS: &str = "'DateStyle', 'IntervalStyle', 'TimeZone', 'array_nulls', 'backslash_quote', 'bytea_output', 'default_text_search_config', \
    'extra_float_digits', 'lc_monetary', 'lc_numeric', 'lc_time', 'quote_all_identifiers', 'standard_conforming_strings', \
    'transform_null_equals', 'xmlbinary', 'xmloption'";

/// The function of the table's row that says whether a row counts. It has to see the names that the user's text sees.
///
/// Its comment is a fingerprint of what it calls: `tidemark.feed_problems()` finds by it that something was replaced.
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
    // With its argument: the trigger function of another feed may have the same name.
    let function = format!(r#"tidemark."feed_{name}_matches"({table})"#);
    one(connection, format!("REVOKE ALL ON FUNCTION {function} FROM PUBLIC")).await?;
    let fingerprint: String = sqlx::query_scalar("SELECT tidemark.filter_fingerprint($1::regprocedure)")
        .bind(&function)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    one(connection, format!("COMMENT ON FUNCTION {function} IS '{fingerprint}'")).await
}

/// What a delta carries of the writer's session: its trace context, if it has one.
const TRACEPARENT: &str =
    "CASE WHEN pg_catalog.current_setting('tidemark.traceparent', true) OPERATOR(pg_catalog.<>) ''
        THEN pg_catalog.left(pg_catalog.current_setting('tidemark.traceparent', true), 55) END";

/// Whether a reader may sleep: none of three of the 64 locks that sleeping readers share can be had exclusively (migration 0006).
const READER_SLEEPS: &str =
    "NOT (pg_catalog.pg_try_advisory_xact_lock(1953064037, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.&) 63)
      OR pg_catalog.pg_try_advisory_xact_lock(1953064037, (pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.+) 21) OPERATOR(pg_catalog.&) 63)
      OR pg_catalog.pg_try_advisory_xact_lock(1953064037, (pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.+) 42) OPERATOR(pg_catalog.&) 63))";

/// The function that the triggers call. It counts statements, not rows: a COPY of 100,000 rows is one change.
///
/// It belongs to the account that adds the feed, and has that account's rights, whoever writes. Others may not call it: on
/// a table of theirs it would count for this feed. No write fails because of it. An account that has lost its rights counts
/// nothing, which readers see too.
///
/// Whatever it uses is named with its schema: the writer's session decides where other names are looked for. Setting a
/// search path, or calling functions of ours instead of repeating what they do (`tidemark.count_rows`), would cost each
/// write 5 to 10 of 50 µs.
pub(super) async fn create_function(
    connection: &mut PgConnection,
    name: &str,
    filtered: bool,
) -> Result<(), sqlx::Error> {
    let (settings, count) = if filtered {
        (filter_settings(connection, name).await?, count_matching(name))
    } else {
        // A session keeps the plan of its first statement (`tidemark.count_rows`).
        ("SET jit = off".to_owned(), count_all(name))
    };
    // What was renamed or dropped is NULL here; a name of a schema that may not be used would be an error.
    let create = format!(
        r#"CREATE OR REPLACE FUNCTION tidemark."feed_{name}"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {settings} AS $tidemark$
BEGIN
  IF (pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('tidemark'), 'USAGE')
    AND pg_catalog.has_table_privilege(pg_catalog.to_regclass('tidemark.deltas'), 'INSERT')) IS NOT TRUE THEN
    RETURN NULL;
  ELSIF TG_OP OPERATOR(pg_catalog.=) 'TRUNCATE' THEN
    INSERT INTO tidemark.deltas (source, reset) VALUES ('{name}', true);
  {count}
  END IF;
  IF FOUND AND pg_catalog.current_setting('max_prepared_transactions') OPERATOR(pg_catalog.=) '0'
    AND {READER_SLEEPS}
  THEN
    PERFORM pg_catalog.pg_notify('tidemark', '');
  END IF;
  RETURN NULL;
END $tidemark$"#
    );
    one(connection, create).await?;
    one(connection, format!(r#"REVOKE ALL ON FUNCTION tidemark."feed_{name}"() FROM PUBLIC"#)).await
}

/// Counts all rows of a statement, and inserts the delta in the same one.
fn count_all(name: &str) -> String {
    let insert = |sign: &str, rows: &str| {
        format!(
            "INSERT INTO tidemark.deltas (source, n, traceparent)
      SELECT '{name}', {sign} pg_catalog.count(*), {TRACEPARENT}
      FROM {rows} HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0;"
        )
    };
    format!(
        "ELSIF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
    {}
  ELSE
    {}",
        insert("", "new_rows"),
        insert("OPERATOR(pg_catalog.-)", "old_rows")
    )
}

/// Counts the rows of a statement on which the filter is true. An error of the filter becomes part of the feed's state;
/// PL/pgSQL's OTHERS does not include a failed assertion, and a write that is cancelled is cancelled.
///
/// A block that catches errors costs a subtransaction, but one that writes nothing has no number of its own.
fn count_matching(name: &str) -> String {
    // With the asterisk it is the row, also where a column has the same name.
    let matching = |rows: &str| {
        format!(
            r#"SELECT pg_catalog.count(*) FROM {rows} AS changed CROSS JOIN LATERAL tidemark."feed_{name}_matches"(changed.*)"#
        )
    };
    let (added, removed) = (matching("new_rows"), matching("old_rows"));
    format!(
        "ELSE
    DECLARE
      change bigint;
      failed text;
    BEGIN
      BEGIN
        IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
          change := ({added});
        ELSIF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
          change := OPERATOR(pg_catalog.-) ({removed});
        ELSE
          change := ({added}) OPERATOR(pg_catalog.-) ({removed});
        END IF;
      EXCEPTION WHEN OTHERS OR assert_failure THEN
        change := 0;
        failed := SQLSTATE;
      END;
      INSERT INTO tidemark.deltas (source, n, failure, traceparent)
        SELECT '{name}', change, failed, {TRACEPARENT}
        WHERE failed IS NOT NULL OR change OPERATOR(pg_catalog.<>) 0;
    END;"
    )
}

/// The settings of the function of a filtered feed, as clauses: a search path, because what the filter calls may have none
/// of its own; no JIT, as for all feeds; and those of this session, if the filter's result may depend on any. That is so if
/// it calls something that is not of Postgres itself, or turns a value into text. Most filters do neither, and setting them
/// costs each write some 10 µs.
async fn filter_settings(connection: &mut PgConnection, name: &str) -> Result<String, sqlx::Error> {
    let query = format!(
        "SELECT concat_ws(' ', 'SET search_path = pg_catalog, pg_temp SET jit = off', string_agg(format('SET %I FROM CURRENT', name), ' ' ORDER BY name)) FROM pg_settings
         WHERE name IN ({SETTINGS}) AND (name <> 'default_text_search_config' OR setting LIKE 'pg\\_catalog.%')
           AND EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'tidemark'::regnamespace AND proname = $1 AND pronargs = 1
             AND (prosqlbody::text ~ '{{(COERCEVIAIO|COERCETODOMAIN|XMLEXPR) '
               OR prosqlbody::text ~ format(':(op)?funcid (%s|%s|%s) ', 'quote_ident(text)'::regprocedure::oid,
                 'textanycat(text,anynonarray)'::regprocedure::oid, 'anytextcat(anynonarray,text)'::regprocedure::oid)
               OR EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid
                 AND refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass))))"
    );
    sqlx::query_scalar(AssertSqlSafe(query))
        .bind(format!("feed_{name}_matches"))
        .persistent(false)
        .fetch_one(connection)
        .await
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

#[cfg(test)]
mod tests {
    use super::*;

    /// They stand in the migration too, because each call of a function would cost each write some µs.
    #[test]
    fn triggers_of_users_tables_and_of_our_own_do_the_same() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let ours = words(include_str!("../../migrations/0006_deltas.sql"));
        let times = |part: &str| ours.matches(&words(part)).count();
        assert_eq!(times(TRACEPARENT), 2, "count_change, count_rows");
        assert_eq!(times(READER_SLEEPS), 3, "notify_readers, count_change, count_rows");
    }
}
