//! Whatever a filter names is renamed, moved, replaced or dropped: every write to the table works, and the feed follows, or is marked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;
#[path = "common/filtered.rs"]
mod filtered;

use filtered::{
    Filtered, Shop,
    Then::{Follows, Marked},
};
use sqlx::{
    Connection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn enums(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let mood = Filtered {
        setup: "CREATE TYPE mood AS ENUM ('open', 'closed', 'lost')",
        value_type: "shop.mood",
        counts: "('open'::shop.mood)",
        counts_not: "('closed'::shop.mood), ('lost'::shop.mood)",
        filter: "value = 'open'",
    };
    shop.check(&mood, &[
        ("ALTER TYPE mood RENAME VALUE 'open' TO 'offen'", Follows),
        ("ALTER TYPE mood RENAME VALUE 'open' TO 'x'; ALTER TYPE mood RENAME VALUE 'closed' TO 'open'", Follows),
        ("ALTER TYPE mood ADD VALUE 'new' BEFORE 'open'", Follows),
        ("ALTER TYPE mood RENAME TO humour", Follows),
        ("ALTER TYPE mood SET SCHEMA moved", Follows),
        ("DROP SCHEMA moved; ALTER SCHEMA shop RENAME TO moved", Follows),
        ("REVOKE USAGE ON TYPE mood FROM PUBLIC; REVOKE USAGE ON SCHEMA shop FROM PUBLIC; GRANT USAGE ON SCHEMA shop TO WRITER", Follows),
        ("DROP TYPE mood CASCADE", Marked("filter_gone")),
    ])
    .await;
    let rename = [(
        "ALTER TYPE mood RENAME VALUE 'open' TO 'offen'; ALTER TYPE mood RENAME TO humour; ALTER TYPE humour SET SCHEMA moved",
        Follows,
    )];
    for filter in [
        "value IN ('open')",
        "value = ANY ('{open}')",
        "value < 'closed'",
        "CASE value WHEN 'open' THEN true END",
        "nullif(value, 'open') IS NULL AND value IS NOT NULL",
        "NOT value IS DISTINCT FROM 'open'",
        "value BETWEEN SYMMETRIC 'open' AND 'open'",
        "value IS NOT NULL AND greatest(value, 'open') = 'open'",
        "coalesce(value, 'closed') = 'open'",
        "(value, note) < ('closed', 'x') AND value IS NOT NULL",
        "ARRAY[value] <@ '{open,open}'::shop.mood[]",
    ] {
        shop.check(&Filtered { filter, ..mood }, &rename).await;
    }
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn types(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let domain = Filtered {
        setup: "CREATE DOMAIN small AS int CHECK (VALUE < 100)",
        value_type: "int",
        counts: "(3), (4)",
        counts_not: "(5), (6)",
        filter: "value::shop.small < 5",
    };
    shop.check(
        &domain,
        &[
            ("ALTER DOMAIN small RENAME TO little; ALTER DOMAIN little SET SCHEMA moved", Follows),
            ("ALTER DOMAIN small RENAME CONSTRAINT small_check TO other", Follows),
            ("ALTER DOMAIN small ADD CONSTRAINT even CHECK (VALUE % 2 = 0) NOT VALID", Marked("filter_failed")),
            ("ALTER DOMAIN small SET NOT NULL", Marked("filter_failed")),
            ("ALTER DOMAIN small DROP CONSTRAINT small_check", Follows),
            ("DROP DOMAIN small CASCADE", Marked("filter_gone")),
        ],
    )
    .await;
    shop.check(
        &Filtered { value_type: "shop.small", filter: "value < 5", ..domain },
        &[
            ("ALTER DOMAIN small RENAME TO little; ALTER DOMAIN little SET SCHEMA moved", Follows),
            ("ALTER DOMAIN small DROP CONSTRAINT small_check", Follows),
            ("DROP DOMAIN small CASCADE", Marked("filter_gone")),
        ],
    )
    .await;
    let address = Filtered {
        setup: "CREATE TYPE address AS (street text, city text)",
        value_type: "shop.address",
        counts: "(('a', 'Bonn')::shop.address)",
        counts_not: "(('a', 'Ulm')::shop.address), (('Bonn', NULL)::shop.address)",
        filter: "(value).city = 'Bonn'",
    };
    shop.check(
        &address,
        &[
            ("ALTER TYPE address RENAME ATTRIBUTE city TO town", Follows),
            (
                "ALTER TYPE address RENAME ATTRIBUTE street TO x; ALTER TYPE address RENAME ATTRIBUTE city TO street",
                Follows,
            ),
            ("ALTER TYPE address RENAME TO place; ALTER TYPE place SET SCHEMA moved", Follows),
            ("ALTER TYPE address ADD ATTRIBUTE zip text", Follows),
            ("ALTER TYPE address DROP ATTRIBUTE street", Follows),
            ("ALTER TYPE address DROP ATTRIBUTE city CASCADE", Marked("filter_gone")),
        ],
    )
    .await;
    shop.check(&Filtered { filter: "value = ('a', 'Bonn')::shop.address", ..address }, &[
        ("ALTER TYPE address RENAME ATTRIBUTE city TO town; ALTER TYPE address RENAME TO place; ALTER TYPE place SET SCHEMA moved", Follows),
        ("ALTER TYPE address ADD ATTRIBUTE zip text", Follows),
    ])
    .await;
    let span = Filtered {
        setup: "CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = float8mi)",
        value_type: "shop.span",
        counts: "('[1,3)'::shop.span), ('[2,9)'::shop.span)",
        counts_not: "('[5,9)'::shop.span), ('empty'::shop.span)",
        filter: "value && shop.span(1, 4)",
    };
    shop.check(&span, &[
        ("ALTER TYPE span RENAME TO stretch; ALTER TYPE stretch SET SCHEMA moved", Follows),
        ("ALTER FUNCTION span(float8, float8) RENAME TO made; ALTER FUNCTION made(float8, float8) SET SCHEMA moved", Follows),
        ("DROP TYPE span CASCADE", Marked("filter_gone")),
    ])
    .await;
    shop.check(&Filtered { value_type: "shop.span_multirange", counts: "('{[1,3)}'::shop.span_multirange)", counts_not: "('{[7,8)}'::shop.span_multirange)", filter: "value && '[1,4)'::shop.span", ..span }, &[
        ("ALTER TYPE span RENAME TO stretch; ALTER TYPE stretch SET SCHEMA moved; ALTER TYPE span_multirange RENAME TO stretches", Follows),
    ])
    .await;
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn functions(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    const fn is_open(setup: &str) -> Filtered<'_> {
        Filtered {
            setup,
            value_type: "text",
            counts: "('open')",
            counts_not: "('closed'), ('')",
            filter: "shop.is_open(value)",
        }
    }
    let atomic = "CREATE FUNCTION is_open(text) RETURNS boolean IMMUTABLE RETURN $1 = 'open'";
    let sql = "CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 = 'open'$$";
    let plpgsql =
        "CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN $1 = 'open'; END$$";
    let renamed = ("ALTER FUNCTION is_open RENAME TO opened; ALTER FUNCTION opened SET SCHEMA moved", Follows);
    let raises = (
        "CREATE OR REPLACE FUNCTION is_open(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RAISE 'no'; END$$",
        Marked("filter_gone"),
    );
    for setup in [atomic, sql, plpgsql] {
        let same = setup.replace("CREATE", "CREATE OR REPLACE");
        shop.check(&is_open(setup), &[renamed, (&same, Follows), raises]).await;
    }
    shop.check(&is_open(sql), &[
        ("ALTER FUNCTION is_open RENAME TO opened; CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false'", Follows),
        ("CREATE OR REPLACE FUNCTION is_open(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 <> 'open'$$", Marked("filter_gone")),
        ("CREATE OR REPLACE FUNCTION is_open(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN ASSERT false; END$$", Marked("filter_gone")),
        ("CREATE OR REPLACE FUNCTION is_open(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN shop.is_open($1); END$$", Marked("filter_gone")),
        ("ALTER FUNCTION is_open SECURITY DEFINER PARALLEL SAFE COST 1000", Follows),
        ("ALTER FUNCTION is_open VOLATILE", Follows),
        ("ALTER FUNCTION is_open STRICT", Marked("filter_gone")),
        ("ALTER FUNCTION is_open SET search_path = moved", Marked("filter_gone")),
        ("REVOKE EXECUTE ON FUNCTION is_open FROM PUBLIC", Marked("filter_failed")),
        ("REVOKE USAGE ON SCHEMA shop FROM PUBLIC; GRANT USAGE ON SCHEMA shop TO WRITER", Follows),
        ("DROP FUNCTION is_open CASCADE", Marked("filter_gone")),
    ])
    .await;
    // What the text of a function names is not known before it is called.
    for (setup, change) in [
        (
            "CREATE TYPE mood AS ENUM ('open', 'closed'); CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 <> '' AND $1::shop.mood = 'open'::shop.mood$$",
            "ALTER TYPE mood RENAME VALUE 'open' TO 'offen'",
        ),
        (
            "CREATE TYPE mood AS ENUM ('open', 'closed'); CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN $1 <> '' AND $1::shop.mood = 'open'::shop.mood; END$$",
            "ALTER TYPE mood RENAME TO humour",
        ),
        (
            "CREATE FUNCTION helper(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 = 'open'$$; CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT shop.helper($1)$$",
            "ALTER FUNCTION helper RENAME TO other",
        ),
        (
            "CREATE FUNCTION helper(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 = 'open'$$; CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = shop AS $$SELECT helper($1)$$",
            "ALTER FUNCTION helper SET SCHEMA moved",
        ),
    ] {
        shop.check(&is_open(setup), &[(change, Marked("filter_failed"))]).await;
    }
    // What a parsed body names is.
    let nested = "CREATE FUNCTION helper(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 = 'open'$$; CREATE FUNCTION is_open(text) RETURNS boolean IMMUTABLE RETURN shop.helper($1)";
    shop.check(&is_open(nested), &[
        ("ALTER FUNCTION helper OWNER TO CURRENT_USER", Follows),
        ("CREATE OR REPLACE FUNCTION helper(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 <> 'open'$$", Marked("filter_gone")),
        ("DROP FUNCTION helper CASCADE", Marked("filter_gone")),
    ])
    .await;
    // Arguments by name, by default, and as an array.
    let many = "CREATE FUNCTION is_open(value text, VARIADIC others text[] DEFAULT '{open}') RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT value = ANY (others)$$";
    for filter in [
        "shop.is_open(value)",
        "shop.is_open(value, 'open', 'x')",
        "shop.is_open(value => value, VARIADIC others => '{open,x}')",
    ] {
        shop.check(&Filtered { filter, ..is_open(many) }, &[renamed]).await;
    }
    let default = many.replace("CREATE", "CREATE OR REPLACE").replace("'{open}'", "'{closed}'");
    shop.check(&Filtered { filter: "shop.is_open(value)", ..is_open(many) }, &[(&default, Marked("filter_gone"))])
        .await;
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn operators_casts_and_collations(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let operator = Filtered {
        setup: "CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT lower($1) = lower($2)$$;
            CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = same)",
        value_type: "text",
        counts: "('open'), ('OPEN')",
        counts_not: "('closed')",
        filter: "value OPERATOR(shop.===) 'open'",
    };
    shop.check(
        &operator,
        &[
            ("ALTER OPERATOR === (text, text) SET SCHEMA moved", Follows),
            ("ALTER FUNCTION same RENAME TO alike; ALTER FUNCTION alike SET SCHEMA moved", Follows),
            ("REVOKE EXECUTE ON FUNCTION same FROM PUBLIC", Marked("filter_failed")),
            (
                "CREATE OR REPLACE FUNCTION same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'",
                Marked("filter_gone"),
            ),
            ("DROP OPERATOR === (text, text) CASCADE", Marked("filter_gone")),
            ("DROP FUNCTION same CASCADE", Marked("filter_gone")),
        ],
    )
    .await;
    let cast = Filtered {
        setup: "CREATE TYPE mood AS ENUM ('open', 'closed'); CREATE FUNCTION rank(mood) RETURNS int LANGUAGE sql IMMUTABLE AS $$SELECT CASE $1::text WHEN 'open' THEN 1 ELSE 2 END$$;
            CREATE CAST (mood AS int) WITH FUNCTION rank(mood)",
        value_type: "shop.mood",
        counts: "('open'::shop.mood)",
        counts_not: "('closed'::shop.mood)",
        filter: "value::int = 1",
    };
    shop.check(
        &cast,
        &[
            ("DROP CAST (mood AS int)", Follows),
            ("ALTER FUNCTION rank(mood) RENAME TO grade; ALTER FUNCTION grade(mood) SET SCHEMA moved", Follows),
            ("DROP FUNCTION rank(mood) CASCADE", Marked("filter_gone")),
        ],
    )
    .await;
    let blind = Filtered {
        setup: "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        value_type: "text",
        counts: "('open'), ('OPEN')",
        counts_not: "('closed')",
        filter: "value COLLATE shop.blind = 'open'",
    };
    for (filter, value_type) in [
        (blind.filter, "text"),
        ("value = 'open'", "text COLLATE shop.blind"),
        ("value IN ('oPen', 'x')", "text COLLATE shop.blind"),
    ] {
        shop.check(
            &Filtered { filter, value_type, ..blind },
            &[
                ("ALTER COLLATION blind RENAME TO deaf; ALTER COLLATION deaf SET SCHEMA moved", Follows),
                ("ALTER COLLATION blind REFRESH VERSION", Follows),
            ],
        )
        .await;
    }
    shop.check(&blind, &[("DROP COLLATION blind CASCADE", Marked("filter_gone"))]).await;
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn text_search(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let words = Filtered {
        setup: "CREATE TEXT SEARCH DICTIONARY stems (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
            CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.simple);
            ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH stems",
        value_type: "text",
        counts: "('it is open')",
        counts_not: "('closed'), ('')",
        filter: "to_tsvector('shop.words', value) @@ to_tsquery('shop.words', 'open')",
    };
    shop.check(&words, &[
        ("ALTER TEXT SEARCH CONFIGURATION words RENAME TO terms; ALTER TEXT SEARCH CONFIGURATION terms SET SCHEMA moved", Follows),
        ("ALTER TEXT SEARCH DICTIONARY stems RENAME TO roots; ALTER TEXT SEARCH DICTIONARY roots SET SCHEMA moved", Follows),
        ("DROP TEXT SEARCH DICTIONARY stems CASCADE", Marked("filter_gone")),
        ("DROP TEXT SEARCH CONFIGURATION words CASCADE", Marked("filter_gone")),
    ])
    .await;
    shop.check(&Filtered { filter: "ts_lexize('shop.stems', value) = '{open}'", counts: "('open')", ..words }, &[
        ("ALTER TEXT SEARCH DICTIONARY stems RENAME TO roots; ALTER TEXT SEARCH DICTIONARY roots SET SCHEMA moved", Follows),
        ("DROP TEXT SEARCH DICTIONARY stems CASCADE", Marked("filter_gone")),
    ])
    .await;
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn names_as_constants(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    for (setup, constant, rename, drop) in [
        (
            "CREATE TABLE other ()",
            "'shop.other'::regclass",
            "ALTER TABLE other RENAME TO another; ALTER TABLE another SET SCHEMA moved",
            "DROP TABLE other CASCADE",
        ),
        (
            "CREATE SEQUENCE other",
            "'shop.other'::regclass",
            "ALTER SEQUENCE other RENAME TO another; ALTER SEQUENCE another SET SCHEMA moved",
            "DROP SEQUENCE other CASCADE",
        ),
        (
            "CREATE VIEW other AS SELECT 1",
            "'shop.other'::regclass",
            "ALTER VIEW other RENAME TO another",
            "DROP VIEW other CASCADE",
        ),
        (
            "CREATE TYPE other AS ENUM ()",
            "'shop.other'::regtype",
            "ALTER TYPE other RENAME TO another; ALTER TYPE another SET SCHEMA moved",
            "DROP TYPE other CASCADE",
        ),
        (
            "CREATE FUNCTION other(int) RETURNS int RETURN $1",
            "'shop.other'::regproc",
            "ALTER FUNCTION other RENAME TO another",
            "DROP FUNCTION other CASCADE",
        ),
        (
            "CREATE FUNCTION other(int) RETURNS int RETURN $1",
            "'shop.other(int)'::regprocedure",
            "ALTER FUNCTION other SET SCHEMA moved",
            "DROP FUNCTION other CASCADE",
        ),
        (
            "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
            "'shop.==='::regoper",
            "ALTER OPERATOR === (int, int) SET SCHEMA moved",
            "DROP OPERATOR === (int, int) CASCADE",
        ),
        (
            "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
            "'shop.===(int,int)'::regoperator",
            "ALTER OPERATOR === (int, int) SET SCHEMA moved",
            "DROP OPERATOR === (int, int) CASCADE",
        ),
        (
            "DROP SCHEMA IF EXISTS other; CREATE SCHEMA other",
            "'other'::regnamespace",
            "ALTER SCHEMA other RENAME TO another; DROP SCHEMA another CASCADE",
            "DROP SCHEMA other CASCADE",
        ),
        (
            "CREATE TEXT SEARCH CONFIGURATION other (COPY = pg_catalog.simple)",
            "'shop.other'::regconfig",
            "ALTER TEXT SEARCH CONFIGURATION other RENAME TO another",
            "DROP TEXT SEARCH CONFIGURATION other CASCADE",
        ),
        (
            "CREATE TEXT SEARCH DICTIONARY other (TEMPLATE = pg_catalog.simple)",
            "'shop.other'::regdictionary",
            "ALTER TEXT SEARCH DICTIONARY other RENAME TO another",
            "DROP TEXT SEARCH DICTIONARY other CASCADE",
        ),
    ] {
        let filter = &format!("value = {constant}");
        let counts = &format!("({constant}::oid)");
        let gone = if rename.contains("DROP") { Marked("filter_gone") } else { Follows };
        shop.check(
            &Filtered { setup, value_type: "oid", counts, counts_not: "(1::oid)", filter },
            &[(rename, gone), (drop, Marked("filter_gone"))],
        )
        .await;
    }
    shop.open(&Filtered {
        setup: "SELECT 1",
        value_type: "oid",
        counts: "(0::oid)",
        counts_not: "(1::oid)",
        filter: "",
    })
    .await;
    let refused = shop.add("value = 'postgres'::regrole").await.unwrap_err().to_string();
    assert!(refused.contains("regrole"), "{refused}");
    shop.end().await;
}

/// What the documentation says of definitions that Postgres does not tell of: the writes work.
#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_is_not_noticed(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let nested = Filtered {
        setup: "CREATE FUNCTION helper(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 = 'open'$$;
            CREATE FUNCTION is_open(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT shop.helper($1)$$",
        value_type: "text",
        counts: "('open')",
        counts_not: "('closed')",
        filter: "shop.is_open(value)",
    };
    let words = Filtered {
        setup: "CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.simple)",
        filter: "to_tsvector('shop.words', value) @@ to_tsquery('shop.words', 'open')",
        ..nested
    };
    for (filtered, change) in [
        (
            nested,
            "CREATE OR REPLACE FUNCTION shop.helper(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 <> 'open'$$",
        ),
        (words, "ALTER TEXT SEARCH CONFIGURATION shop.words DROP MAPPING FOR asciiword"),
    ] {
        shop.open(&filtered).await;
        shop.add(filtered.filter).await.unwrap();
        shop.execute(change).await;
        let mut session = shop.session().await;
        let wrong = shop.write(&mut session, change).await;
        assert_eq!((wrong.is_some(), shop.problem().await), (true, None), "{change}");
        session.close().await.unwrap();
        shop.remove().await;
    }
    shop.end().await;
}
