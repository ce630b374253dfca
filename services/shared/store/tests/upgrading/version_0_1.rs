//! A database as version 0.1 left it. The SQL is that of its sources, with the names filled in.

use sqlx::{AssertSqlSafe, Executor, FromRow, PgConnection, migrate::Migrator};

use crate::common::{Stage, own::Account};

/// The last migration of version 0.1.
const LAST_MIGRATION: i64 = 5;

/// How a reader of version 0.1 reads the feeds. Its query joins `feeds` too, which matters for the
/// order of its locks.
pub const READ: &str = "
WITH sums AS (
  SELECT feed, sum(n)::bigint AS n, sum(total)::bigint AS total, sum(version)::bigint AS version, bool_and(armed) AS armed,
    max(at) AS changed_at, (array_agg(traceparent ORDER BY at DESC NULLS LAST))[1] AS traceparent
  FROM tidemark.feed_slots GROUP BY feed
)
SELECT feeds.name, sums.n, sums.total, sums.version, sums.armed
FROM tidemark.store LEFT JOIN (tidemark.feeds JOIN sums ON sums.feed = feeds.name) ON true
ORDER BY feeds.name";

/// A feed as that query gives it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Value {
    pub name: String,
    pub n: i64,
    pub total: i64,
    pub version: i64,
    pub armed: bool,
}

pub async fn values(session: &mut PgConnection) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_as(READ).fetch_all(session).await
}

/// The rights that its documentation gave to an account that adds feeds, but for those on the
/// table.
const RIGHTS: &str = "
GRANT USAGE, CREATE ON SCHEMA tidemark TO ROLE;
GRANT SELECT ON tidemark.store, tidemark.feeds, tidemark.feed_slots, tidemark.own_feeds TO ROLE;
GRANT INSERT, DELETE ON tidemark.feeds TO ROLE;
GRANT INSERT, UPDATE ON tidemark.feed_slots TO ROLE;
GRANT INSERT ON tidemark.own_feeds TO ROLE;
GRANT UPDATE (removed_version) ON tidemark.store TO ROLE;";

/// A condition as version 0.1 kept it.
pub struct Filter {
    /// As the user wrote it.
    pub text: &'static str,
    /// As Postgres understood it.
    pub by_name: &'static str,
    /// The same with `tidemark_N` for the column at place N.
    pub by_place: &'static str,
    /// The columns from the first to the last one that the condition names.
    pub columns: &'static [&'static str],
}

pub const OPEN: Filter = Filter {
    text: "status = 'open'",
    by_name: "(status = 'open'::public.order_status)",
    by_place: "(tidemark_3 = 'open'::public.order_status)",
    columns: &["id", "writer", "status"],
};

/// Fails on a row whose amount is 0.
pub const LARGE: Filter = Filter {
    text: "100 / amount < 5",
    by_name: "((100 / amount) < 5)",
    by_place: "((100 / tidemark_4) < 5)",
    columns: &["id", "writer", "status", "amount"],
};

/// A feed of a table, and who adds it.
pub struct Feed<'a> {
    pub name: &'a str,
    pub table: &'a str,
    pub filter: Option<&'static Filter>,
    /// The list that it is on.
    pub list: Option<&'a str>,
    /// Whether the account owns the table: only then the triggers fire also for replayed changes.
    pub owned: bool,
}

impl<'a> Feed<'a> {
    pub const fn new(name: &'a str, table: &'a str, filter: Option<&'static Filter>) -> Self {
        Self { name, table, filter, list: None, owned: true }
    }

    pub const fn on_list(self, list: &'a str) -> Self {
        Self { list: Some(list), ..self }
    }

    pub const fn of_another_account(self) -> Self {
        Self { owned: false, ..self }
    }

    /// What `tidemark feed add` did, as one text.
    fn statements(&self) -> String {
        let Self { name, table, filter, list, owned } = self;
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let text = filter.map_or("NULL".into(), |filter| quoted(filter.text));
        let list = list.map_or("NULL".into(), quoted);
        let places = |columns: &[&str]| -> Vec<String> {
            (1..=columns.len()).map(|place| format!("tidemark_{place}")).collect()
        };
        let matching = filter.map_or(String::new(), |filter| {
            format!(" AS changed ({}) WHERE {}", places(filter.columns).join(", "), filter.by_place)
        });
        let view = filter.map_or(String::new(), |filter| {
            let columns = filter.columns.join(", ");
            format!(
                r#"CREATE VIEW tidemark."feed_{name}_rows" AS SELECT {columns} FROM ONLY {table} WHERE {};"#,
                filter.by_name
            )
        });
        let when =
            filter.map_or(String::new(), |_| format!(r#"WHEN ('tidemark."feed_{name}_rows"'::regclass IS NOT NULL) "#));
        let trigger = |event: &str, end: &str, clauses: &str| {
            let always = if *owned {
                format!(r#"ALTER TABLE {table} ENABLE ALWAYS TRIGGER "feed_{name}_{end}";"#)
            } else {
                String::new()
            };
            format!(
                r#"CREATE TRIGGER "feed_{name}_{end}" AFTER {event} ON {table} {clauses}EXECUTE FUNCTION tidemark."feed_{name}"(); {always}"#
            )
        };
        let rows = |tables: &str| format!("REFERENCING {tables} FOR EACH STATEMENT {when}");
        let truncated = trigger("TRUNCATE", "truncated", "");
        let updated = filter.map_or(String::new(), |_| {
            trigger("UPDATE", "updated", &rows("OLD TABLE AS old_rows NEW TABLE AS new_rows"))
        });
        let inserted = trigger("INSERT", "inserted", &rows("NEW TABLE AS new_rows"));
        let deleted = trigger("DELETE", "deleted", &rows("OLD TABLE AS old_rows"));
        let counted =
            if filter.is_some() { format!(r#"tidemark."feed_{name}_rows""#) } else { format!("ONLY {table}") };
        format!(
            r#"
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config('lock_timeout', '2000', true);
SELECT tidemark.create_feed('{name}', 'count', NULL);
INSERT INTO tidemark.own_feeds (feed, relation, named, filter, owner)
  VALUES ('{name}', '{table}'::regclass, '{table}', {text}, {list});
SET LOCAL search_path = pg_catalog, pg_temp;
CREATE FUNCTION tidemark."feed_{name}"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
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
END $body$;
REVOKE ALL ON FUNCTION tidemark."feed_{name}"() FROM PUBLIC;
{truncated}
{view}
{updated}
{inserted}
{deleted}
UPDATE tidemark.feed_slots SET n = (SELECT count(*) FROM {counted}), version = version + 1, at = clock_timestamp()
  WHERE feed = '{name}' AND slot = 0;
COMMIT;"#
        )
    }

    pub async fn add(&self, session: &mut PgConnection) -> Result<(), sqlx::Error> {
        session.execute(AssertSqlSafe(self.statements())).await?;
        Ok(())
    }
}

impl Stage {
    /// A schema of version 0.1, a table of orders with some rows, and texts and visitors.
    pub async fn of_version_0_1(&self) {
        let migrations = store::MIGRATOR.iter().filter(|migration| migration.version <= LAST_MIGRATION);
        let mut migrator = Migrator::with_migrations(migrations.cloned().collect());
        migrator.dangerous_set_table_name("tidemark._sqlx_migrations");
        migrator.create_schema("tidemark");
        migrator.run(&self.pool).await.unwrap();
        let create = "
            CREATE TYPE public.order_status AS ENUM ('open', 'closed');
            CREATE TABLE public.orders (
              old int, id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, writer int, status public.order_status, amount int DEFAULT 50);
            ALTER TABLE public.orders DROP COLUMN old;
            INSERT INTO public.orders (writer, status, amount) VALUES (-1, 'open', 10), (-1, 'closed', 20), (-1, NULL, 30);
            INSERT INTO tidemark.texts (body) VALUES ('one'), ('two');
            INSERT INTO tidemark.instances (id, name, lease_until) VALUES ('00000000-0000-0000-0000-000000000001', 'dashboard', 'infinity');
            INSERT INTO tidemark.visits (id) VALUES (gen_random_uuid());
            INSERT INTO tidemark.connections (visit, instance, n) SELECT id, '00000000-0000-0000-0000-000000000001', 1 FROM tidemark.visits;";
        self.pool.execute(create).await.unwrap();
    }

    /// An account with the rights of version 0.1 on the schema, and these.
    pub async fn account_of_version_0_1(&self, rights: &str) -> Account {
        Account::new(self, &format!("{RIGHTS} {rights}")).await
    }
}
