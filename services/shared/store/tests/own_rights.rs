//! Who may add and remove feeds, with which rights a filter runs, and that writers need none.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has said what it found")]

mod common;

use common::{
    Stage,
    own::{Account, OPEN, catalog, feed, refused, says},
};
use sqlx::{
    Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store::{DatabaseUrl, OwnFeedError, add_own_feed, remove_own_feed};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_account_with_the_documented_rights_adds_and_removes_and_writers_need_none(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let before = catalog(&stage.pool).await;
    let admin = Account::documented(&stage).await;
    let writer = Account::new(&stage, "GRANT INSERT, SELECT, UPDATE, DELETE, TRUNCATE ON public.orders TO ROLE").await;
    let granted = catalog(&stage.pool).await;

    let database: DatabaseUrl = admin.options.clone().into();
    for (name, filter) in [("orders", None), ("open", Some(OPEN))] {
        let added = add_own_feed(&database, &feed(name, "public.orders", filter)).await.unwrap();
        assert!(!added.counts_replays, "only the owner of a table can have that");
    }
    let mut session = PgConnection::connect_with(&writer.options).await.unwrap();
    for write in [
        "INSERT INTO orders (id, status) VALUES (100, 'open'), (101, 'closed')",
        "UPDATE orders SET status = 'open'",
        "DELETE FROM orders WHERE amount = 1",
        "TRUNCATE orders",
        "INSERT INTO orders (id, status) VALUES (102, 'open')",
    ] {
        session.execute(write).await.unwrap();
        stage.orders_agree(write).await;
    }
    session.close().await.unwrap();

    // Nobody counts in another way, also not with a trigger of the same function on a table of one's own.
    let curious = Account::new(&stage, "GRANT USAGE ON SCHEMA tidemark TO ROLE").await;
    for (account, denied) in [
        (&writer, ["schema tidemark"; 4]),
        (&curious, ["table deltas", "table deltas", "function feed_orders", "function tidemark.feed_orders"]),
    ] {
        let mut session = PgConnection::connect_with(&account.options).await.unwrap();
        for (attempt, denied) in [
            "SELECT tidemark.count_change('orders', 1000, 0)",
            "INSERT INTO tidemark.deltas (source, n) VALUES ('orders', 1000)",
            "SELECT tidemark.feed_orders()",
            "CREATE TEMPORARY TABLE fake (); CREATE TRIGGER forge AFTER TRUNCATE ON fake EXECUTE FUNCTION tidemark.feed_orders()",
        ]
        .into_iter()
        .zip(denied)
        {
            let refused = session.execute(attempt).await.unwrap_err().to_string();
            assert!(refused.contains(&format!("permission denied for {denied}")), "{attempt}: {refused}");
        }
        session.close().await.unwrap();
    }
    curious.drop(&stage).await;

    // Somebody else's is not to be removed.
    let other = Account::documented(&stage).await;
    let error = remove_own_feed(&other.options.clone().into(), "orders").await.unwrap_err();
    assert!(matches!(&error, OwnFeedError::Denied(said) if said.contains("must be owner of function")), "{error}");
    other.drop(&stage).await;

    for name in ["orders", "open"] {
        remove_own_feed(&database, name).await.unwrap();
    }
    assert_eq!(catalog(&stage.pool).await, granted);
    admin.drop(&stage).await;
    writer.drop(&stage).await;
    assert_eq!(catalog(&stage.pool).await.len(), before.len());
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_filter_runs_with_the_rights_of_who_added_it(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let function = "CREATE FUNCTION public.spy(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$BEGIN RETURN current_user LIKE 'account_%'; END$$";
    stage.pool.execute(function).await.unwrap();
    stage.pool.execute("TRUNCATE orders").await.unwrap();
    let admin = Account::documented(&stage).await;
    add_own_feed(&admin.options.clone().into(), &feed("spied", "public.orders", Some("public.spy(status)")))
        .await
        .unwrap();
    // A superuser writes.
    stage.pool.execute("INSERT INTO orders (status) VALUES ('x')").await.unwrap();
    assert_eq!(says(&stage.pool, "spied").await.0, 1);
    remove_own_feed(&stage.database(), "spied").await.unwrap();
    admin.drop(&stage).await;
    stage.end().await;
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_account_that_lacks_a_right_is_told_which(pool: PgPoolOptions, options: PgConnectOptions) {
    let stage = Stage::new(pool, options);
    stage.orders().await;
    let schema = "GRANT USAGE, CREATE ON SCHEMA tidemark TO ROLE; GRANT ALL ON ALL TABLES IN SCHEMA tidemark TO ROLE; ";
    stage.pool.execute("CREATE SCHEMA hidden; CREATE TABLE hidden.orders ()").await.unwrap();
    for (rights, table, words) in [
        (schema.to_owned(), "public.orders", "may not create triggers on it: GRANT SELECT, TRIGGER"),
        (
            format!("{schema} GRANT TRIGGER ON public.orders TO ROLE"),
            "public.orders",
            "may not read it: GRANT SELECT, TRIGGER",
        ),
        (schema.to_owned(), "hidden.orders", "permission denied for schema hidden"),
        (
            "GRANT SELECT, TRIGGER ON public.orders TO ROLE".into(),
            "public.orders",
            "permission denied for schema tidemark",
        ),
        (
            "GRANT SELECT, TRIGGER ON public.orders TO ROLE; GRANT USAGE ON SCHEMA tidemark TO ROLE".into(),
            "public.orders",
            "permission denied for table feeds",
        ),
        (
            format!(
                "{schema} GRANT SELECT, TRIGGER ON public.orders TO ROLE; ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY"
            ),
            "public.orders",
            "row-level security hides rows",
        ),
    ] {
        let account = Account::new(&stage, &rights).await;
        refused(&stage, &account.options.clone().into(), ("orders", table, Some("amount > 1")), words).await;
        account.drop(&stage).await;
    }
    stage.end().await;
}
