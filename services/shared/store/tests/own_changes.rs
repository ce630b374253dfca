//! A table, the columns and rights that its feed uses change: every write works, and the feed follows, or is marked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has said what it found")]

mod common;
#[path = "common/filtered.rs"]
mod filtered;

use filtered::{
    Filtered, Shop,
    Then::{Follows, Marked},
    not_run,
};
use sqlx::{
    Connection, Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_table(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let open = Filtered {
        setup: "CREATE FUNCTION pick() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT (random() * 10)::int'",
        value_type: "text",
        counts: "('open')",
        counts_not: "('closed'), ('')",
        filter: "value = 'open'",
    };
    shop.check(&open, &[
        ("ALTER TABLE orders ADD COLUMN more int", Follows),
        ("ALTER TABLE orders ADD COLUMN more int DEFAULT 7, ADD COLUMN picked int DEFAULT shop.pick(), ADD COLUMN token uuid DEFAULT gen_random_uuid()", Follows),
        ("ALTER TABLE orders ADD COLUMN serial bigserial; GRANT USAGE ON SEQUENCE orders_serial_seq TO WRITER", Follows),
        ("ALTER TABLE orders ADD COLUMN twice text GENERATED ALWAYS AS (value || value) STORED", Follows),
        ("ALTER TABLE orders ALTER COLUMN id TYPE int, ALTER COLUMN note TYPE varchar(1000)", Follows),
        ("ALTER TABLE orders ADD COLUMN more int; ALTER TABLE orders DROP COLUMN more, ADD COLUMN more text DEFAULT 'x', ADD COLUMN other int", Follows),
        ("ALTER TABLE orders SET SCHEMA moved", Follows),
        ("CLUSTER orders USING orders_pkey; ANALYZE orders", Follows),
        ("ALTER TABLE orders CLUSTER ON orders_pkey, REPLICA IDENTITY FULL, SET (fillfactor = 50), ADD CHECK (value <> 'never')", Follows),
        ("ALTER TABLE orders ADD CONSTRAINT value_is_text CHECK (value <> 'never') NOT VALID; ALTER TABLE orders ALTER COLUMN value SET STORAGE EXTERNAL, ALTER COLUMN value SET STATISTICS 1000", Follows),
        ("ALTER ROLE WRITER BYPASSRLS; ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY all_rows ON orders USING (true)", Follows),
        ("ALTER TABLE orders OWNER TO WRITER; ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY all_rows ON orders USING (true)", Follows),
        ("CREATE FUNCTION noise() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.note := NEW.note || '!'; RETURN NEW; END$$; CREATE TRIGGER noise BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION noise()", Follows),
        ("CREATE INDEX ON orders (value); REINDEX TABLE orders", Follows),
        ("ALTER TABLE orders DROP COLUMN value CASCADE; ALTER TABLE samples DROP COLUMN value", Marked("filter_gone")),
        ("ALTER TABLE orders RENAME COLUMN value TO was; ALTER TABLE orders RENAME COLUMN note TO value; ALTER TABLE orders RENAME COLUMN was TO note; ALTER TABLE orders DROP COLUMN value; ALTER TABLE orders RENAME COLUMN note TO value; ALTER TABLE orders ADD COLUMN note text DEFAULT 'open'", Follows),
    ])
    .await;
    for change in [
        "ALTER TABLE shop.orders ALTER COLUMN value TYPE varchar(90)",
        "ALTER TABLE shop.orders DROP COLUMN value",
        "DROP TABLE shop.orders",
    ] {
        shop.open(&open).await;
        shop.add(open.filter).await.unwrap();
        let refused = sqlx::query(change).execute(&shop.stage.pool).await.unwrap_err().to_string();
        assert!(refused.contains("cannot"), "{change}: {refused}");
        assert_eq!(shop.write(&mut shop.session().await, change).await, None, "{change}");
        shop.remove().await;
    }
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn generated_columns(pool: PgPoolOptions, options: PgConnectOptions) {
    let shop = Shop::new(pool, options).await;
    let generated = Filtered {
        setup: "SELECT 1",
        value_type: "int, twice int GENERATED ALWAYS AS (value * 2) STORED",
        counts: "(3), (4)",
        counts_not: "(1)",
        filter: "twice > 5",
    };
    shop.check(
        &generated,
        &[
            ("ALTER TABLE orders RENAME COLUMN twice TO double", Follows),
            ("ALTER TABLE orders DROP COLUMN twice CASCADE", Marked("filter_gone")),
        ],
    )
    .await;
    if shop.server_version().await < 170_000 {
        not_run("SET EXPRESSION of a generated column: it needs Postgres 17 (make test-rust runs this file on 18 too)");
    } else {
        // It computes all rows again, without triggers.
        let change = "ALTER TABLE orders ALTER COLUMN twice SET EXPRESSION AS (value * 10)";
        shop.check(&generated, &[(change, Marked("filter_gone"))]).await;
    }
    shop.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn rights(pool: PgPoolOptions, options: PgConnectOptions) {
    let mut shop = Shop::new(pool, options).await;
    let open = Filtered {
        setup: "SELECT 1",
        value_type: "text",
        counts: "('open')",
        counts_not: "('closed'), ('')",
        filter: "value = 'open'",
    };
    let name = shop.admin.name.clone();
    for (change, back, then) in [
        (
            "REVOKE ALL ON orders FROM ADMIN; REVOKE USAGE ON SCHEMA shop FROM PUBLIC; GRANT USAGE ON SCHEMA shop TO WRITER",
            "SELECT 1",
            Follows,
        ),
        (
            "ALTER ROLE ADMIN NOLOGIN NOINHERIT CONNECTION LIMIT 0",
            "ALTER ROLE ADMIN LOGIN INHERIT CONNECTION LIMIT -1",
            Follows,
        ),
        ("REVOKE INSERT ON tidemark.deltas FROM ADMIN", "GRANT INSERT ON tidemark.deltas TO ADMIN", Marked("denied")),
        (
            "REVOKE SELECT, DELETE ON tidemark.deltas, tidemark.bases FROM ADMIN",
            "GRANT SELECT, DELETE ON tidemark.deltas, tidemark.bases TO ADMIN",
            Follows,
        ),
        (
            "REVOKE USAGE, CREATE ON SCHEMA tidemark FROM ADMIN",
            "GRANT USAGE, CREATE ON SCHEMA tidemark TO ADMIN",
            Marked("denied"),
        ),
        (
            "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA tidemark FROM PUBLIC",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tidemark TO PUBLIC",
            Follows,
        ),
        ("REVOKE EXECUTE ON FUNCTION tidemark.feed_shop_matches FROM ADMIN", "SELECT 1", Marked("filter_failed")),
        (
            "CREATE ROLE ADMIN_heir; REASSIGN OWNED BY ADMIN TO ADMIN_heir",
            "DROP OWNED BY ADMIN_heir CASCADE; DROP ROLE ADMIN_heir",
            Marked("denied"),
        ),
        ("REASSIGN OWNED BY ADMIN TO CURRENT_USER", "SELECT 1", Follows),
    ] {
        shop.check(&open, &[(change, then)]).await;
        shop.execute(&back.replace("ADMIN", &name)).await;
    }
    // Where nothing can be marked the writes work too, also of rows on which the filter fails.
    shop.open(&open).await;
    shop.execute("DELETE FROM shop.orders WHERE value = ''").await;
    shop.add("100 / length(value) > 20").await.unwrap();
    let mut session = shop.session().await;
    session.execute("INSERT INTO orders (value, counts) VALUES ('open', true)").await.unwrap();
    for (change, back) in [
        ("ALTER SCHEMA tidemark RENAME TO away", "ALTER SCHEMA away RENAME TO tidemark"),
        ("ALTER TABLE tidemark.deltas RENAME TO away", "ALTER TABLE tidemark.away RENAME TO deltas"),
        (
            "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA tidemark FROM PUBLIC",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tidemark TO PUBLIC",
        ),
    ] {
        shop.execute(change).await;
        for write in [
            "INSERT INTO orders (value) VALUES ('open')",
            "UPDATE orders SET value = 'open'",
            "INSERT INTO orders (value) VALUES ('')",
            "TRUNCATE orders",
        ] {
            session.execute(write).await.unwrap_or_else(|error| panic!("{change}: {write}: {error}"));
        }
        shop.execute(back).await;
    }
    session.close().await.unwrap();
    shop.remove().await;
    shop.check(&open, &[("DROP OWNED BY ADMIN CASCADE", Marked("filter_gone"))]).await;
    let renamed = format!("{name}_renamed");
    shop.execute(&format!("ALTER ROLE {name} RENAME TO {renamed}")).await;
    shop.admin.name = renamed;
    shop.end().await;
}
