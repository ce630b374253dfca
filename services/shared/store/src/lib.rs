//! Postgres: migrations, feeds, doorbell, batched writers. The only crate that knows SQL.
