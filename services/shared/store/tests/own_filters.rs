//! A filter counts what its text says, or is refused with the reason.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;
#[path = "common/filtered.rs"]
mod filtered;

use common::own::{feed, number, says};
use filtered::{Filtered, Shop, not_run};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{DatabaseUrl, add_own_feed, own_feeds};

/// Adds feeds by these filters of `shop.things`, in a session with this search path, and writes; each says what the filter's text says.
async fn agree_with_their_texts(shop: &Shop, search_path: &str, filters: &[&str], must_be_taken: bool) {
    let path = [("search_path", search_path)];
    let database: DatabaseUrl = shop.admin.options.clone().options(path).into();
    let mut reader = PgConnection::connect_with(&shop.stage.options.clone().options(path)).await.unwrap();
    let mut taken = Vec::new();
    for (number, filter) in filters.iter().enumerate() {
        let name = format!("text-{number}");
        match add_own_feed(&database, &feed(&name, "shop.things", Some(filter))).await {
            Ok(_) => taken.push((name, filter)),
            Err(error) => {
                let error = error.to_string();
                assert!(!must_be_taken, "{search_path}: {filter}: {error}");
                let reason = error.contains("does not exist") || error.contains("operator is not unique");
                assert!(reason && error.contains("search_path"), "{filter}: {error}");
            }
        }
    }
    let mut writer = shop.session().await;
    for write in [
        "SELECT 1",
        "INSERT INTO shop.things SELECT * FROM shop.things",
        "UPDATE shop.things SET id = id + 1",
        "DELETE FROM shop.things WHERE id % 3 = 0",
    ] {
        writer.execute(write).await.unwrap();
        for (name, filter) in &taken {
            let counts = format!(
                "SELECT (SELECT n FROM tidemark.feed_values() WHERE feed = '{name}'), (SELECT count(*) FROM shop.things WHERE ({filter}\n)), (SELECT count(*) FROM shop.things)"
            );
            let (says, rows, all): (i64, i64, i64) =
                sqlx::query_as(AssertSqlSafe(counts)).persistent(false).fetch_one(&mut reader).await.unwrap();
            assert_eq!(says, rows, "{search_path}: {filter} after {write}, of {all}");
        }
    }
    writer.close().await.unwrap();
    reader.close().await.unwrap();
    for feed in own_feeds(&shop.stage.database()).await.unwrap().feeds {
        assert_eq!(feed.problem, None, "{:?}", feed.filter);
        store::remove_own_feed(&shop.stage.database(), &feed.name).await.unwrap();
    }
}

/// A table `shop.things` of these columns and rows.
async fn things(shop: &Shop, create: &str) {
    let (admin, writer) = (&shop.admin.name, &shop.writer.name);
    shop.execute(&format!(
        "CREATE SCHEMA IF NOT EXISTS shop; GRANT USAGE ON SCHEMA shop TO PUBLIC; {create};
         GRANT SELECT, TRIGGER ON shop.things TO {admin}; GRANT SELECT, INSERT, UPDATE, DELETE ON shop.things TO {writer}"
    ))
    .await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn each_form_of_condition_counts_what_it_says(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    things(
        &shop,
        r#"CREATE TABLE shop.things (id int, role text, at timestamp, until timestamp, tags text[], doc jsonb, span int4range, ratio numeric, flag boolean, bits bit(4));
           INSERT INTO shop.things SELECT i, (ARRAY['admin', 'Admin', 'user', NULL])[i % 4 + 1], timestamp '2024-01-01' + i * interval '7 hours',
             timestamp '2024-01-02' + i * interval '5 hours', CASE WHEN i % 3 = 0 THEN ARRAY['a', role_of(i)] WHEN i % 3 = 1 THEN '{}' END,
             jsonb_build_object('n', i, 'list', ARRAY[i, i + 1]), int4range(i, i + 3), CASE i % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN NULL ELSE i / 3.0 END,
             CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END, (i % 16)::bit(4) FROM generate_series(1, 30) AS i"#
            .replace("role_of(i)", "'x' || i")
            .as_str(),
    )
    .await;
    agree_with_their_texts(
        &shop,
        "public",
        &[
            "role IS DISTINCT FROM 'admin'",
            "role IS NOT DISTINCT FROM 'admin'",
            "(role, id) IS DISTINCT FROM ('admin', 4)",
            "nullif(role, 'admin') IS NULL",
            "CASE role WHEN 'admin' THEN true WHEN 'user' THEN id > 5 END",
            "CASE WHEN role = 'admin' THEN id > 5 ELSE flag END",
            "role IN ('admin', 'user', NULL)",
            "role NOT IN ('admin', 'user')",
            "id IN (1, 2, 3, id - 1, 7)",
            "role = ANY ('{admin,user}')",
            "role <> ALL (tags)",
            "'a' = ANY (tags)",
            "id = SOME (ARRAY[1, 2, 3])",
            "(role, id) = ('admin', 4)",
            "(role, id) < ('b', 3)",
            "(id, role) >= (4, 'admin')",
            "(role, flag) IS NULL",
            "(role, flag) IS NOT NULL",
            "id BETWEEN 3 AND 9",
            "id BETWEEN SYMMETRIC 9 AND 3",
            "id NOT BETWEEN SYMMETRIC 9 AND 3",
            "greatest(id, 10) = 10",
            "least(role, 'b') = 'admin'",
            "coalesce(role, 'admin') = 'admin'",
            "role LIKE 'ad%'",
            "role ILIKE 'AD%' ESCAPE '!'",
            "role NOT SIMILAR TO '(a|u)%'",
            "role ~* '^ad'",
            "role !~ 'min$'",
            "role LIKE ANY (ARRAY['a%', 'u%'])",
            "regexp_match(role, 'd(m)') IS NOT NULL",
            "(at, until) OVERLAPS (timestamp '2024-01-03', interval '1 day')",
            "at + interval '1 day' > until",
            "extract(hour FROM at) = 7 OR extract(dow FROM until) = 1",
            "date_trunc('day', at) = '2024-01-02'",
            "at::date = '2024-01-02' AND at::time > '06:00'",
            "tags @> '{a}' OR tags && ARRAY['x3']",
            "tags[1] = 'a' AND tags[2:3] = '{x3}'",
            "cardinality(tags) = 0 OR array_position(tags, 'x6') = 2",
            "doc ->> 'n' = '7' OR (doc -> 'list' -> 0)::int = 9",
            "doc @> '{\"n\": 5}' OR doc ? 'x' OR doc @? '$.list[*] ? (@ > 28)'",
            "doc['n'] = '5'",
            "span @> 5 OR isempty(span) OR upper(span) = 20",
            "ratio = 'NaN' OR ratio > 5",
            "ratio IS NULL OR round(ratio) = 2",
            "flag",
            "NOT flag",
            "flag IS NOT TRUE",
            "flag IS UNKNOWN",
            "flag IS DISTINCT FROM true AND id > 3",
            "flag = NULL",
            "bits & B'0001' = B'0001'",
            "position('d' IN role) = 2 AND substring(role FROM 1 FOR 2) = 'ad' AND overlay(role PLACING 'x' FROM 1 FOR 1) <> 'x'",
            "trim(BOTH 'a' FROM role) = 'dmin'",
            "role || id::text = 'admin4'",
            "role COLLATE \"C\" < 'a'",
            "role = U&'\\0061dmin' OR role = E'\\x75ser' OR role = $q$user$q$",
            "role::char(7) = 'admin' AND role::varchar(2) = 'ad' AND role::name < 'b'",
            "inet '10.0.0.1' << (host('10.0.0.0'::inet) || '/' || id)::inet OR id::oid = 3 OR id::bit(4) = B'0011'",
            "to_tsvector('english', role) @@ 'admin'::tsquery",
            "md5(role) = '21232f297a57a5a743894a0e4a801fc3'",
            "id % 2 = 0 AND id ^ 2 > 50 OR @ id = 3 OR id <> 4 AND id != 5",
        ],
        true,
    )
    .await;
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn types_of_extensions_compare_as_the_search_path_says(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    for (extension, rows, filters) in [
        (
            "citext",
            "VALUES ('admin'), ('Admin'), ('ADMIN'), ('user'), ('b'), ('B'), (NULL)",
            &[
                "role = 'admin'",
                "role IS DISTINCT FROM 'admin'",
                "role IS NOT DISTINCT FROM 'ADMIN'",
                "(role, id) IS DISTINCT FROM ('admin', 4)",
                "nullif(role, 'admin') IS NULL",
                "CASE role WHEN 'admin' THEN true ELSE false END",
                "role IN ('admin', 'x')",
                "role NOT IN ('admin', 'x')",
                "role = ANY ('{admin,X}')",
                "role = ANY (ARRAY['admin', 'X']::citext[])",
                "role <> ALL ('{admin}')",
                "(role, id) = ('admin', 1)",
                "(role, id) < ('b', 3)",
                "role BETWEEN 'a' AND 'c'",
                "role BETWEEN SYMMETRIC 'C' AND 'A'",
                "greatest(role, 'b') = 'B'",
                "least(role, 'b') = 'ADMIN'",
                "coalesce(role, 'admin') = 'Admin'",
                "role LIKE 'ad%'",
                "role ILIKE 'aD%'",
                "role ~ '^ad'",
                "role SIMILAR TO 'ad%'",
                "role LIKE ANY (ARRAY['ad%', 'x'])",
                "role || 'x' = 'ADMINx'",
                "strpos(role, 'D') > 0",
                "regexp_match(role, 'ADMIN') IS NOT NULL",
                "split_part(role, 'D', 1) = 'a'",
                "replace(role, 'D', 'x') = 'axmin'",
                "role::text = 'admin'",
                "lower(role) = 'admin'",
                "ARRAY[role] && '{ADMIN}'",
            ][..],
        ),
        (
            "ltree",
            "VALUES ('top.a'), ('top.a.b'), ('top'), ('other.a'), (''), (NULL)",
            &[
                "role = 'top.a'",
                "role IS DISTINCT FROM 'top.a'",
                "role <@ 'top'",
                "role @> 'top.a.b'",
                "role ~ 'top.*'",
                "nullif(role, 'top') IS NULL",
                "CASE role WHEN 'top' THEN true END",
                "role IN ('top', 'top.a')",
                "(role, id) < ('top.a', 3)",
                "greatest(role, 'top') = 'top'",
                "role BETWEEN SYMMETRIC 'top.z' AND 'top'",
                "nlevel(role) = 2",
                "subpath(role || 'x', 0, 1) = 'top'",
            ],
        ),
        (
            "hstore",
            r#"VALUES ('a=>1'), ('a=>1, b=>NULL'), ('b=>2'), (''), (NULL)"#,
            &[
                "role = 'a=>1'",
                "role IS DISTINCT FROM 'a=>1'",
                "role IS NOT DISTINCT FROM 'a=>1'",
                "nullif(role, 'a=>1') IS NULL",
                "CASE role WHEN 'a=>1' THEN true END",
                "role IN ('a=>1', 'b=>2')",
                "role -> 'a' = '1'",
                "role @> 'a=>1'",
                "role ? 'b' AND NOT defined(role, 'b')",
                "role ?& ARRAY['a', 'b']",
                "(role, id) = ('a=>1', 1)",
                "'a' = ANY (akeys(role))",
            ],
        ),
    ] {
        let there = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)";
        if !sqlx::query_scalar::<_, bool>(there).bind(extension).fetch_one(&shop.stage.pool).await.unwrap() {
            not_run(&format!(
                "filters on {extension}: this Postgres server does not have the extension (Debian: apt-get install postgresql-contrib)"
            ));
            continue;
        }
        for (schema, search_path, visible) in [
            ("public", "public", true),
            ("extensions", "public, extensions", true),
            ("extensions", "public", false),
            ("\"Ext\"", "\"Ext\", pg_catalog", true),
        ] {
            shop.execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC; CREATE EXTENSION {extension} SCHEMA {schema}")).await;
            let create = format!(
                "CREATE TABLE shop.things (id int, role {schema}.{extension}); INSERT INTO shop.things SELECT row_number() OVER (), role::{schema}.{extension} FROM ({rows}) AS of (role)"
            );
            things(&shop, &create).await;
            agree_with_their_texts(&shop, search_path, filters, visible).await;

            // It moves, and goes.
            if visible {
                let database: DatabaseUrl = shop.admin.options.clone().options([("search_path", search_path)]).into();
                add_own_feed(&database, &feed("shop", "shop.things", Some("role IS NOT DISTINCT FROM role")))
                    .await
                    .unwrap();
                let mut session = shop.session().await;
                for change in [
                    "SELECT 1",
                    "CREATE SCHEMA moved; ALTER EXTENSION EXTENSION_ SET SCHEMA moved",
                    "ALTER SCHEMA moved RENAME TO gone",
                    "DROP EXTENSION EXTENSION_ CASCADE",
                ] {
                    shop.execute(&change.replace("EXTENSION_", extension)).await;
                    session
                        .execute("INSERT INTO shop.things (id) VALUES (1)")
                        .await
                        .unwrap_or_else(|error| panic!("{extension}: {change}: {error}"));
                    session.execute("INSERT INTO shop.things SELECT * FROM shop.things; DELETE FROM shop.things WHERE id % 2 = 0").await.unwrap_or_else(|error| panic!("{extension}: {change}: {error}"));
                    let gone = change.starts_with("DROP");
                    assert_eq!(shop.problem().await, gone.then_some("filter_gone"), "{extension}: {change}");
                    let rows = number(&shop.stage.pool, "SELECT count(*) FROM shop.things").await;
                    assert!(gone || says(&shop.stage.pool, "shop").await.0 == rows, "{extension}: {change}");
                }
                session.close().await.unwrap();
                shop.remove().await;
            }
            shop.execute(&format!("DROP EXTENSION IF EXISTS {extension} CASCADE; DROP SCHEMA IF EXISTS gone, extensions, \"Ext\" CASCADE; DROP TABLE shop.things")).await;
        }
    }
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn names_of_columns_do_not_matter(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let names = [
        "holds",
        "counted",
        "meant",
        "change",
        "changed",
        "tidemark_row",
        "tidemark_rows",
        "tidemark_matches",
        "new_rows",
        "old_rows",
        "tg_op",
        "new",
        "old",
        "row_count",
        "xmin_",
        "things",
        "true_",
        "count",
        "value",
        "select",
        "Case",
        "a \"b\" $$ 'c",
        "ä",
        "feed_text-0_matches",
    ];
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    let columns = quoted.iter().map(|name| format!("{name} boolean DEFAULT true")).collect::<Vec<_>>().join(", ");
    things(
        &shop,
        &format!("CREATE TABLE shop.things (id int, {columns}); INSERT INTO shop.things SELECT generate_series(1, 20)"),
    )
    .await;
    for name in &quoted {
        shop.execute(&format!("UPDATE shop.things SET {name} = id % 3 = 0")).await;
    }
    let filters: Vec<String> = quoted.iter().map(|name| format!("{name} AND id > 5")).collect();
    let mut filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let all = quoted.join(" AND ");
    filters.push(&all);
    agree_with_their_texts(&shop, "public", &filters, true).await;
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_function_that_relies_on_a_search_path_is_refused_with_what_to_do(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let shop = Shop::new(pool, options).await;
    for (setup, name) in [
        (
            "CREATE FUNCTION helper(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 = 'open'$$; CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT helper($1)$$",
            "function helper(text) does not exist",
        ),
        (
            "CREATE TYPE mood AS ENUM ('open', 'closed', ''); CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN $1::mood = 'open'; END$$",
            "type \"mood\" does not exist",
        ),
    ] {
        let relies = Filtered {
            setup,
            value_type: "text",
            counts: "('open')",
            counts_not: "('closed')",
            filter: "is_open(value)",
        };
        shop.open(&relies).await;
        let database: DatabaseUrl = shop.admin.options.clone().options([("search_path", "shop")]).into();
        let shop_feed = feed("shop", "shop.orders", Some(relies.filter));
        let refused = add_own_feed(&database, &shop_feed).await.unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains("ALTER FUNCTION … SET search_path"), "{refused}");
        shop.execute("ALTER FUNCTION shop.is_open SET search_path = shop").await;
        add_own_feed(&database, &shop_feed).await.unwrap();
        assert_eq!((shop.write(&mut shop.session().await, name).await, shop.problem().await), (None, None), "{name}");
        shop.remove().await;
    }
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_virtual_column_is_refused_with_what_to_write_instead(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    if shop.server_version().await < 180_000 {
        not_run(
            "filters on virtual generated columns: they need Postgres 18 (make test-rust runs this file on it too)",
        );
        return shop.end().await;
    }
    let price =
        Filtered { setup: "SELECT 1", value_type: "int", counts: "(3), (4)", counts_not: "(1)", filter: "value > 2" };
    shop.open(&price).await;
    shop.execute("ALTER TABLE shop.orders ADD COLUMN \"Total\" int GENERATED ALWAYS AS (value * 2) VIRTUAL, ADD COLUMN half int GENERATED ALWAYS AS (value / 2)").await;
    let refused = shop.add("note = 'x' AND \"Total\" > 5").await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "the filter cannot be used: \"Total\" is a virtual generated column, which Postgres does not compute in triggers: write its expression in place of it, (value * 2)"
    );
    // The others are nobody's business, and the expression does as well.
    for filter in ["value > 2", "(value * 2) > 5"] {
        shop.add(filter).await.unwrap();
        let mut session = shop.session().await;
        assert_eq!((shop.write(&mut session, filter).await, shop.problem().await), (None, None), "{filter}");
        session
            .execute("ALTER TABLE shop.orders DROP COLUMN half, ADD COLUMN half int GENERATED ALWAYS AS (value / 3)")
            .await
            .unwrap_err();
        shop.execute("ALTER TABLE shop.orders DROP COLUMN half, ADD COLUMN half int GENERATED ALWAYS AS (value / 3); ALTER TABLE shop.orders ALTER COLUMN half SET EXPRESSION AS (value / 4)").await;
        assert_eq!((shop.write(&mut session, filter).await, shop.problem().await), (None, None), "{filter}");
        session.close().await.unwrap();
        shop.remove().await;
    }
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn names_of_feeds_do_not_meet_those_of_filters(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    things(&shop, "CREATE TABLE shop.things (id int, flag boolean); INSERT INTO shop.things SELECT i, i % 3 = 0 FROM generate_series(1, 9) i")
        .await;
    let names = ["a_matches_matches", "a_matches", "a", "a_counted", "a_judged", "a_rows"];
    let database: DatabaseUrl = shop.admin.options.clone().into();
    for filters in [
        [Some("flag"); 6],
        [Some("flag"), None, Some("NOT flag"), None, None, Some("flag")],
        [None, Some("flag"), None, None, Some("flag"), None],
    ] {
        for (name, filter) in names.iter().zip(filters) {
            add_own_feed(&database, &feed(name, "shop.things", filter))
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        shop.execute("INSERT INTO shop.things VALUES (1, true), (2, false), (3, NULL); UPDATE shop.things SET flag = NOT flag WHERE id = 3").await;
        for (name, filter) in names.iter().zip(filters) {
            let rows = number(
                &shop.stage.pool,
                &format!("SELECT count(*) FROM shop.things WHERE {}", filter.unwrap_or("true")),
            )
            .await;
            assert_eq!(says(&shop.stage.pool, name).await.0, rows, "{name}");
        }
        assert!(own_feeds(&shop.stage.database()).await.unwrap().feeds.iter().all(|feed| feed.problem.is_none()));
        // The shorter names first.
        for name in names.iter().rev() {
            store::remove_own_feed(&database, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let left = number(&shop.stage.pool, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'feed_a%'").await;
    assert_eq!(left, 0);
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_count_can_be_compared_by_hand(pool: PgPoolOptions, options: PgConnectOptions) {
    let documentation = include_str!("../../../../docs/operations.md");
    let query = documentation.split("`SELECT count(*) FROM ").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
    let shop = Shop::new(pool, options).await;
    let database: DatabaseUrl = shop.admin.options.clone().into();
    add_own_feed(&database, &feed("open-orders", "public.orders", Some("status = 'open'"))).await.unwrap();
    shop.execute("INSERT INTO public.orders (status) VALUES ('open'), ('closed')").await;
    let mut session = PgConnection::connect_with(&shop.admin.options).await.unwrap();
    let counted: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {query}")))
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!((counted, says(&shop.stage.pool, "open-orders").await.0), (2, 2), "{query}");
    session.close().await.unwrap();
    store::remove_own_feed(&database, "open-orders").await.unwrap();
    shop.end().await;
}
