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

/// The function that the triggers call. It counts statements, not rows: a COPY of 100,000 rows is one change.
///
/// It belongs to the account that adds the feed, and has that account's rights, whoever writes. Others may not call it: on
/// a table of theirs it would count for this feed. No write fails because of it. An error of the filter becomes part of the
/// feed's state; PL/pgSQL's OTHERS does not include a failed assertion, and a write that is cancelled is cancelled. An
/// account that has lost its rights counts nothing, which readers see too.
pub(super) async fn create_function(
    connection: &mut PgConnection,
    name: &str,
    filtered: bool,
) -> Result<(), sqlx::Error> {
    let (mut settings, mut matching) = (String::new(), String::new());
    if filtered {
        settings = filter_settings(connection, name).await?;
        // With the asterisk it is the row, also where a column has the same name.
        matching = format!(r#" AS changed CROSS JOIN LATERAL tidemark."feed_{name}_matches"(changed.*)"#);
    }
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
    // The functions that are called in rare cases are asked for there: in every write they would cost some microseconds more.
    let may_mark = |function| format!("({} AND {}) IS TRUE", may_call(function), may_call("notify_readers"));
    let caught = if filtered {
        format!(
            "BEGIN
    {count}
  EXCEPTION WHEN OTHERS OR assert_failure THEN
    IF {} THEN
      PERFORM tidemark.count_failure('{name}', SQLSTATE);
    END IF;
    RETURN NULL;
  END;",
            may_mark("count_failure")
        )
    } else {
        count
    };
    // What was renamed or dropped is NULL here; a name of a schema that may not be used would be an error.
    let create = format!(
        r#"CREATE OR REPLACE FUNCTION tidemark."feed_{name}"() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp {settings} AS $tidemark$
DECLARE
  change bigint;
BEGIN
  IF (has_schema_privilege(to_regnamespace('tidemark'), 'USAGE') AND has_table_privilege(to_regclass('tidemark.deltas'), 'INSERT')
    AND {}) IS NOT TRUE THEN
    RETURN NULL;
  ELSIF TG_OP = 'TRUNCATE' THEN
    IF {} THEN
      PERFORM tidemark.count_reset('{name}');
    END IF;
    RETURN NULL;
  END IF;
  {caught}
  IF change <> 0 THEN
    PERFORM tidemark.count_change('{name}', change, 0);
  END IF;
  RETURN NULL;
END $tidemark$"#,
        may_call("count_change"),
        may_mark("count_reset")
    );
    one(connection, create).await?;
    one(connection, format!(r#"REVOKE ALL ON FUNCTION tidemark."feed_{name}"() FROM PUBLIC"#)).await
}

/// Whether the current account may call this function of ours; NULL if there is none.
fn may_call(function: &str) -> String {
    format!("has_function_privilege(to_regproc('tidemark.{function}'), 'EXECUTE')")
}

/// The settings with which the filter has to be evaluated, as clauses of a function: those of this session, if its result may
/// depend on any. That is so if it calls something that is not of Postgres itself, or turns a value into text. Most filters
/// do neither, and setting them costs each write some 10 µs.
async fn filter_settings(connection: &mut PgConnection, name: &str) -> Result<String, sqlx::Error> {
    let query = format!(
        "SELECT coalesce(string_agg(format('SET %I FROM CURRENT', name), ' ' ORDER BY name), '') FROM pg_settings
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
