//! No setting of a writer's session changes what is counted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;
#[path = "common/filtered.rs"]
mod filtered;

use filtered::{Filtered, Shop, not_run};
use sqlx::{
    Connection, Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// Bends everything on which reading a text, or a result, depends.
const BENT: &str = "SET standard_conforming_strings = off; SET backslash_quote = off; SET escape_string_warning = off; SET transform_null_equals = on;
    SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'Pacific/Kiritimati'; SET extra_float_digits = -15; SET bytea_output = 'escape';
    SET xmlbinary = 'hex'; SET xmloption = 'document'; SET array_nulls = off; SET quote_all_identifiers = on; SET default_text_search_config = 'pg_catalog.german';
    SET lc_monetary = 'C'; SET lc_numeric = 'C'; SET lc_time = 'C'; SET row_security = off; SET check_function_bodies = off;
    SET client_min_messages = error; SET plan_cache_mode = force_generic_plan; SET plpgsql.extra_errors = 'all'; SET plpgsql.extra_warnings = 'all';
    SET work_mem = '64kB'; SET enable_nestloop = off; SET enable_seqscan = off; SET statement_timeout = '1h'; SET lock_timeout = '1h';
    SET default_transaction_isolation = 'serializable'; SET client_encoding = 'LATIN1'; SET tidemark.traceparent = 'x';
    SET search_path = evil, shop, moved, pg_catalog, pg_temp";

/// Operators and functions that are found before those of Postgres.
const EVIL: &str = "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
    CREATE FUNCTION evil.wrong(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
    CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.wrong);
    CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.wrong);
    CREATE FUNCTION evil.wrong(bigint, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
    CREATE OPERATOR evil.<> (LEFTARG = bigint, RIGHTARG = int, FUNCTION = evil.wrong);
    CREATE OPERATOR evil.> (LEFTARG = bigint, RIGHTARG = int, FUNCTION = evil.wrong);
    CREATE FUNCTION evil.wrong(bigint, bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 0::bigint';
    CREATE OPERATOR evil.- (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.wrong);
    CREATE FUNCTION evil.wrong(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 0::bigint';
    CREATE OPERATOR evil.- (RIGHTARG = bigint, FUNCTION = evil.wrong);
    CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'x'$$;
    CREATE AGGREGATE evil.count(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '1000');
    CREATE FUNCTION evil.has_schema_privilege(regnamespace, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION evil.has_table_privilege(regclass, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION evil.to_regclass(text) RETURNS regclass LANGUAGE sql AS 'SELECT NULL::regclass';
    CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$SELECT repeat('x', 1000)$$";

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn no_setting_of_a_writer_changes_what_is_counted(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    shop.execute(EVIL).await;
    let sql = |body: &str| format!("CREATE FUNCTION f(TYPE) RETURNS boolean LANGUAGE sql IMMUTABLE AS $_${body}$_$");
    let plpgsql = |body: &str| {
        format!("CREATE FUNCTION f(TYPE) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $_$BEGIN RETURN {body}; END$_$")
    };
    for (value_type, counts, counts_not, filter, function) in [
        ("text", "('open')", "('closed'), ('')", "value = 'open' AND lower(value) <> 'x'", String::new()),
        ("text", r"(E'a\\b')", "('ab')", r"value = 'a\b'", String::new()),
        ("text", r"(E'a\\b')", "('ab')", r"value LIKE 'a\\b' AND value ~ 'a\\b'", String::new()),
        ("text", r"(E'a\\b')", "('ab')", "shop.f(value)", sql(r"SELECT $1 = 'a\b'")),
        ("text", r"(E'a\\b')", "('ab')", "shop.f(value)", plpgsql(r"$1 = 'a\b'")),
        ("text", "('it''s')", "('its')", "shop.f(value)", plpgsql(r"$1 = E'it\'s'")),
        ("text", "('open')", "('closed')", "shop.f(value)", sql("SELECT ($1 = NULL) IS NULL AND $1 = 'open'")),
        ("text", "('open')", "('Open')", "quote_ident(value) = value", String::new()),
        (
            "text",
            "('open')",
            "('closed')",
            "shop.f(value)",
            sql("SELECT ('{NULL}'::text[])[1] IS NULL AND $1 = 'open'"),
        ),
        ("float8", "(0.1::float8 + 0.2::float8)", "(0.3)", "value::text = '0.30000000000000004'", String::new()),
        ("float8", "(0.1::float8 + 0.2::float8)", "(0.3)", "value || '' = '0.30000000000000004'", String::new()),
        ("float4", "(0.1::float4)", "(0.3::float4)", "ARRAY[value]::text[] = '{0.1}'", String::new()),
        (
            "point",
            "('(0.30000000000000004,1)'::point)",
            "('(1,1)'::point)",
            "value::text = '(0.30000000000000004,1)'",
            String::new(),
        ),
        ("bytea", r"('\x0102'::bytea)", r"('\x03'::bytea)", r"value::text = '\x0102'", String::new()),
        (
            "bytea",
            r"('\x0102'::bytea)",
            r"('\x03'::bytea)",
            "xmlelement(name a, value)::text = '<a>AQI=</a>'",
            String::new(),
        ),
        (
            "timestamptz",
            "('2024-01-01 23:00Z'::timestamptz)",
            "('2024-01-02 01:00Z'::timestamptz)",
            "xmlelement(name a, value)::text LIKE '%T23:00:00%'",
            String::new(),
        ),
        (
            "timestamptz",
            "('2024-01-01 23:00Z'::timestamptz)",
            "('2024-01-02 01:00Z'::timestamptz)",
            "value < '2024-01-02'",
            String::new(),
        ),
        (
            "timestamptz",
            "('2024-01-01 22:00Z'::timestamptz)",
            "('2024-01-01 23:30Z'::timestamptz)",
            "value AT TIME ZONE 'Europe/Berlin' < '2024-01-02'",
            String::new(),
        ),
        (
            "timestamptz",
            "('2024-01-01 23:00Z'::timestamptz)",
            "('2024-01-02 01:00Z'::timestamptz)",
            "shop.f(value)",
            sql("SELECT $1::date = '2024-01-01'"),
        ),
        ("date", "('2024-02-01'::date)", "('2024-01-02'::date)", "value = '02/01/2024'", String::new()),
        ("date", "('2024-02-01'::date)", "('2024-01-02'::date)", "shop.f(value)", plpgsql("$1 = '02/01/2024'")),
        (
            "date",
            "('2024-02-01'::date)",
            "('2024-01-02'::date)",
            "shop.f(value)",
            sql("SELECT $1::text = '2024-02-01'"),
        ),
        ("interval", "('1 day'::interval)", "('2 days'::interval)", "shop.f(value)", sql("SELECT $1::text = '1 day'")),
        (
            "text",
            "('die Häuser')",
            "('x')",
            "shop.f(value)",
            sql("SELECT NOT to_tsvector($1) @@ to_tsquery('Haus') AND $1 <> 'x'"),
        ),
        ("xml", "('<a/>'::xml)", "('<x/>'::xml)", "value::text <> '<x/>'", String::new()),
        ("money", "('1'::money)", "('2'::money)", "value < '2'::money", String::new()),
        (
            "jsonb",
            r#"('{"a": 0.30000000000000004}'::jsonb)"#,
            r#"('{"a": 0.3}'::jsonb)"#,
            "value ->> 'a' = '0.30000000000000004'",
            String::new(),
        ),
    ] {
        let setup = if function.is_empty() { "SELECT 1".to_owned() } else { function.replace("TYPE", value_type) };
        let what = format!("{filter} on {value_type}, {setup}");
        let filtered = Filtered { setup: &setup, value_type, counts, counts_not, filter };
        shop.open(&filtered).await;
        shop.add(filter).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(shop.agrees().await, "{what}: at first");
        let (mut plain, mut bent) = (shop.session().await, shop.session().await);
        bent.execute(BENT).await.unwrap_or_else(|error| panic!("{error}"));
        for session in [&mut plain, &mut bent] {
            assert_eq!((shop.write(session, &what).await, shop.problem().await), (None, None), "{what}");
        }
        plain.close().await.unwrap();
        bent.close().await.unwrap();
        shop.remove().await;
    }
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn constants_are_read_in_one_way_whoever_adds_the_feed(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let admin = &shop.admin.name;
    shop.execute(&format!(
        "ALTER ROLE {admin} SET standard_conforming_strings = off; ALTER ROLE {admin} SET transform_null_equals = on;
         ALTER ROLE {admin} SET TimeZone = 'Pacific/Kiritimati'; ALTER ROLE {admin} SET DateStyle = 'SQL, DMY';
         ALTER ROLE {admin} SET default_transaction_isolation = 'serializable'; ALTER ROLE {admin} SET default_transaction_read_only = off;
         ALTER ROLE {admin} SET check_function_bodies = off; ALTER ROLE {admin} SET statement_timeout = '10ms'"
    ))
    .await;
    // Adding a feed takes several times as long.
    if shop.server_version().await < 170_000 {
        not_run("a default of transaction_timeout: it needs Postgres 17 (make test-rust runs this file on 18 too)");
    } else {
        shop.execute(&format!("ALTER ROLE {admin} SET transaction_timeout = '10ms'")).await;
    }
    for (value_type, counts, counts_not, filter) in [
        ("text", r"(E'a\\b')", "('ab')", r"value = 'a\b'"),
        ("text", "('open')", "('closed')", "(value = NULL) IS NULL AND value = 'open'"),
        (
            "timestamptz",
            "('2024-01-01 23:59Z'::timestamptz)",
            "('2024-01-02 00:00Z'::timestamptz)",
            "value < '2024-01-02'",
        ),
        ("date", "('2024-02-01'::date)", "('2024-01-02'::date)", "value = '02/01/2024'"),
    ] {
        let filtered = Filtered { setup: "SELECT 1", value_type, counts, counts_not, filter };
        shop.open(&filtered).await;
        shop.add(filter).await.unwrap_or_else(|error| panic!("{filter}: {error}"));
        let mut session = shop.session().await;
        assert_eq!((shop.agrees().await, shop.write(&mut session, filter).await), (true, None), "{filter}");
        session.close().await.unwrap();
        shop.remove().await;
    }
    shop.end().await;
}
