-- Counting without ever changing a row in place. A writer only inserts; a base says what the deltas before it came to. Slots, which were updated in the
-- writer's transaction, made SERIALIZABLE writers fail, made many statements in one transaction quadratic, and made all writers slow while an old snapshot
-- was open (docs/decisions/0016-deltas-and-bases.md).
--
-- This migration expands: programs of 0.1 keep working during a rollout, and after a rollback. A later one removes the view `feed_slots`, the table
-- `feed_slots_before_0006` and `arm_feeds`.

-- One row per statement that changed rows. A feed's value is its base and all of its deltas.
-- Rows live for seconds. The table is vacuumed by their number, not by a share of it, and without pauses; it is nearly always empty when it is analysed,
-- so that whatever reads it does not rely on the planner's statistics (feed_values).
CREATE TABLE tidemark.deltas (
  source text COLLATE "C" NOT NULL,                 -- the name of a feed
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),   -- of the whole transaction, also inside a savepoint
  seq bigint GENERATED ALWAYS AS IDENTITY,          -- orders a TRUNCATE, which holds its table alone, among the other changes of that table
  n bigint NOT NULL DEFAULT 0,                      -- rows more or fewer
  total bigint NOT NULL DEFAULT 0,                  -- rows that were added: never below zero
  reset boolean NOT NULL DEFAULT false,             -- TRUNCATE: what came before does not count
  failure text,                                     -- why the count is not known from here on: the SQLSTATE by which a filter failed, or a word of feed_problems
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  traceparent text                                  -- W3C trace context of the change, if its writer had one
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0,
  autovacuum_vacuum_insert_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX deltas_source_xid_seq ON tidemark.deltas (source, xid, seq);
CREATE INDEX deltas_resets ON tidemark.deltas (source, seq) WHERE reset;

-- What the deltas that were folded so far came to. A fold deletes the deltas, appends a base and deletes the one before it in one transaction, so every
-- snapshot sees one base of each source and exactly the deltas that are not in it. Nothing is updated: under an old snapshot each look-up would walk over
-- all versions of the row.
--
-- `from_xid` and `open_xids` only bound the look-up, so that it does not walk over deltas that are deleted but not vacuumed yet: a delta that is not in
-- this base has an xid of from_xid or later, or one of open_xids, which are the transactions that were in progress.
CREATE TABLE tidemark.bases (
  source text COLLATE "C" NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  n bigint NOT NULL DEFAULT 0,
  total bigint NOT NULL DEFAULT 0,
  version bigint NOT NULL DEFAULT 0,                -- deltas that were folded
  reset_seq bigint NOT NULL DEFAULT 0,              -- seq of the last TRUNCATE that was folded: earlier deltas do not count
  from_xid xid8 NOT NULL DEFAULT '0',
  open_xids xid8[] NOT NULL DEFAULT '{}',
  failure text,                                     -- of the first failed delta after the last TRUNCATE, as is failed_at
  failed_at timestamptz,
  changed_at timestamptz,                           -- of the newest delta, as is traceparent
  traceparent text,
  PRIMARY KEY (source, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

-- The deltas that are not in this base, at most so many, the oldest transactions first.
--
-- A base whose from_xid is in the future was written by another server: this database was restored from a dump. Then the xids say nothing, and all deltas
-- are looked at. This function and the next one are inlined into their callers, which fix the search path.
--
-- Each open xid is looked up by itself: the planner, which takes the table for an empty one after each vacuum, reads the index in order for `xid = ANY (…)`,
-- and with that all deltas of the source that an old snapshot keeps from being removed.
CREATE FUNCTION tidemark.deltas_after(base tidemark.bases, most bigint)
RETURNS TABLE (place tid, xid xid8, seq bigint, n bigint, total bigint, reset boolean, failure text, at timestamptz, traceparent text)
LANGUAGE sql STABLE AS $$
  SELECT delta.*
  FROM (SELECT base.from_xid > pg_snapshot_xmax(pg_current_snapshot()) AS restored) AS server
  CROSS JOIN LATERAL (
    (SELECT found.* FROM unnest(CASE WHEN restored THEN '{}' ELSE base.open_xids END) AS open (open_xid)
      CROSS JOIN LATERAL (
        SELECT ctid, xid, seq, n, total, reset, failure, at, traceparent FROM tidemark.deltas
        WHERE source = base.source AND xid = open_xid ORDER BY seq LIMIT most) AS found
      ORDER BY xid, seq LIMIT most)
    UNION ALL
    (SELECT ctid, xid, seq, n, total, reset, failure, at, traceparent FROM tidemark.deltas
      WHERE source = base.source AND xid >= CASE WHEN restored THEN '0' ELSE base.from_xid END ORDER BY xid, seq LIMIT most)
  ) AS delta
  LIMIT most
$$;

-- What a base and the deltas after it come to, at most so many of them. `last_xid` is the greatest xid among them, `pending` their number.
CREATE FUNCTION tidemark.add_deltas(base tidemark.bases, most bigint)
RETURNS TABLE (n bigint, total bigint, version bigint, reset_seq bigint, failure text, failed_at timestamptz, changed_at timestamptz, traceparent text,
  pending bigint, last_xid xid8)
LANGUAGE sql STABLE AS $$
  WITH fresh AS MATERIALIZED (SELECT * FROM tidemark.deltas_after(base, most)),
  -- A fold that leaves deltas behind needs to know of a TRUNCATE among those: what it adds may have come after it. It asks an index, which costs each write 4
  -- of 28 us: if it looked at all deltas, none of millions that are left would ever be folded within its time limit.
  last AS (
    SELECT greatest(base.reset_seq, CASE WHEN most IS NULL THEN (SELECT max(seq) FROM fresh WHERE reset)
      ELSE (SELECT max(seq) FROM tidemark.deltas WHERE source = base.source AND reset) END) AS reset_seq),
  sums AS (
    SELECT coalesce(sum(n) FILTER (WHERE seq > last.reset_seq), 0)::bigint AS n, coalesce(sum(total), 0)::bigint AS total, count(*) AS pending,
      min(seq) FILTER (WHERE failure IS NOT NULL AND seq > last.reset_seq) AS failed_seq
    FROM fresh CROSS JOIN last),
  newest AS (SELECT at, traceparent FROM fresh ORDER BY seq DESC LIMIT 1),
  failed AS (SELECT failure, at FROM fresh WHERE seq = (SELECT failed_seq FROM sums))
  SELECT
    CASE WHEN last.reset_seq = base.reset_seq THEN base.n ELSE 0 END + sums.n,
    base.total + sums.total,
    base.version + sums.pending,
    last.reset_seq,
    CASE WHEN last.reset_seq = base.reset_seq AND base.failure IS NOT NULL THEN base.failure ELSE failed.failure END,
    CASE WHEN last.reset_seq = base.reset_seq AND base.failure IS NOT NULL THEN base.failed_at ELSE failed.at END,
    greatest(base.changed_at, newest.at),
    CASE WHEN base.changed_at > newest.at OR newest.at IS NULL THEN base.traceparent ELSE newest.traceparent END,
    sums.pending,
    (SELECT xid FROM fresh ORDER BY xid DESC LIMIT 1)
  FROM last CROSS JOIN sums LEFT JOIN newest ON true LEFT JOIN failed ON true
$$;

-- The value of every feed that is counted here, in the caller's snapshot. `pending` is the number of deltas that had to be added.
-- The settings hold for this call: the planner takes the table of deltas for an empty one, and would walk over everything that is not vacuumed yet; and by its
-- inflated costs it would compile a query that takes 0.1 ms.
CREATE FUNCTION tidemark.feed_values()
RETURNS TABLE (feed text, n bigint, total bigint, version bigint, failure text, failed_at timestamptz, changed_at timestamptz, traceparent text, pending bigint)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT base.source, value.n, value.total, value.version, value.failure, value.failed_at, value.changed_at, value.traceparent, value.pending
  FROM tidemark.feeds
  CROSS JOIN LATERAL (SELECT * FROM tidemark.bases WHERE source = feeds.name COLLATE "C" ORDER BY id DESC LIMIT 1) AS base
  CROSS JOIN LATERAL tidemark.add_deltas(base::tidemark.bases, NULL) AS value;
END $$;

-- Postgres 14 and later would also keep the value of each base while the statement runs, with all columns of the base as the key, which takes 0.1 of 0.3 ms.
DO $$
BEGIN
  IF pg_catalog.current_setting('server_version_num')::integer >= 140000 THEN
    ALTER FUNCTION tidemark.feed_values() SET enable_memoize = off;
  END IF;
END $$;

-- Adds what is visible now to the bases, up to `most` deltas of each feed, so that reading stays cheap. Gives the greatest number of deltas of one feed; if it
-- is `most`, there are more. NULL: another reader is at it.
--
-- One at a time, by a lock that only roles with rights on our tables can hold, and that stops neither readers nor writers. It is taken in an earlier statement
-- than the fold: at READ COMMITTED the fold's snapshot then sees every fold before it.
CREATE FUNCTION tidemark.fold_feeds(most bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
  base tidemark.bases;
  folded bigint;
  greatest_number bigint := 0;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'fold_feeds needs READ COMMITTED: an older snapshot does not see the last fold';
  END IF;
  BEGIN
    LOCK TABLE tidemark.bases IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
  EXCEPTION WHEN lock_not_available THEN
    RETURN NULL;
  END;
  FOR base IN
    SELECT newest.* FROM tidemark.feeds
    CROSS JOIN LATERAL (SELECT * FROM tidemark.bases WHERE source = feeds.name COLLATE "C" ORDER BY id DESC LIMIT 1) AS newest
  LOOP
    -- One statement, so the deltas that are added are those that are deleted. If there are more, the next look-up begins where this one ended.
    WITH value AS MATERIALIZED (
      SELECT *, pending < most AS complete, last_xid >= base.from_xid AS passed FROM tidemark.add_deltas(base, most) WHERE pending > 0),
    deleted AS (DELETE FROM tidemark.deltas WHERE ctid IN (SELECT place FROM tidemark.deltas_after(base, most))),
    added AS (
      INSERT INTO tidemark.bases (source, n, total, version, reset_seq, from_xid, open_xids, failure, failed_at, changed_at, traceparent)
      SELECT base.source, n, total, version, reset_seq,
        CASE WHEN complete THEN pg_snapshot_xmax(pg_current_snapshot()) WHEN passed THEN last_xid ELSE base.from_xid END,
        CASE WHEN complete OR passed
          THEN ARRAY(SELECT xid FROM pg_snapshot_xip(pg_current_snapshot()) AS open (xid) WHERE complete OR xid < last_xid)
          ELSE base.open_xids END,
        failure, failed_at, changed_at, traceparent
      FROM value)
    SELECT pending INTO folded FROM value;
    CONTINUE WHEN folded IS NULL;
    DELETE FROM tidemark.bases WHERE source = base.source AND id = base.id;
    greatest_number := greatest(greatest_number, folded);
  END LOOP;
  RETURN greatest_number;
END $$;

-- Readers that wait for a notification share 64 advisory locks; a transaction that writes takes one of three exclusively until it ends. If it gets none, a
-- reader waits, and it notifies. A reader that cannot share all of them knows that a writer is at work, and goes on reading. So a burst of writes costs one
-- notification: a transaction that notifies holds a lock of the whole server until its commit is on disk. Locks depend on no snapshot, leave nothing behind,
-- and end with the reader's connection. The first number of the key is `tide` as four bytes.
--
-- count_rows, count_change and the trigger functions of users' tables, which run in every counted write, take the lock in an expression of their own: a
-- call of this function costs 2 of their 50 us. Instead of a SET search_path, which would cost a tenth of the insert throughput, all of them name the schema
-- of whatever they use, and spell out NULLIF, which has an operator without a name.
CREATE FUNCTION tidemark.notify_readers() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF NOT (pg_catalog.pg_try_advisory_xact_lock(1953064037, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.&) 63)
    OR pg_catalog.pg_try_advisory_xact_lock(1953064037, (pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.+) 21) OPERATOR(pg_catalog.&) 63)
    OR pg_catalog.pg_try_advisory_xact_lock(1953064037, (pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.+) 42) OPERATOR(pg_catalog.&) 63))
  THEN
    PERFORM pg_catalog.pg_notify('tidemark', '');
  END IF;
END $$;

-- For a reader, on the connection that listens: asks the next writer to notify. False: a writer is at work, and nothing was asked.
CREATE FUNCTION tidemark.request_notification() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  FOR lock IN 0..63 LOOP
    IF NOT pg_try_advisory_lock_shared(1953064037, lock) THEN
      FOR held IN 0..lock - 1 LOOP
        PERFORM pg_advisory_unlock_shared(1953064037, held);
      END LOOP;
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END $$;

-- The same connection, when it has requested one and reads again: writers need not notify.
CREATE FUNCTION tidemark.cancel_notification() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  FOR lock IN 0..63 LOOP
    PERFORM pg_advisory_unlock_shared(1953064037, lock);
  END LOOP;
END $$;

-- A change of a table of the user's, by a trigger function of 0.1 that could not be replaced. Where transactions can be prepared neither this one nor the
-- trigger functions that are made now notify, because a transaction that has notified cannot be; readers then read often while there are such feeds.
CREATE OR REPLACE FUNCTION tidemark.count_change(feed_name text, n_change bigint, total_change bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO tidemark.deltas (source, n, total, traceparent) VALUES (feed_name, n_change, total_change,
    CASE WHEN pg_catalog.current_setting('tidemark.traceparent', true) OPERATOR(pg_catalog.<>) ''
      THEN pg_catalog.left(pg_catalog.current_setting('tidemark.traceparent', true), 55) END);
  IF pg_catalog.current_setting('max_prepared_transactions') OPERATOR(pg_catalog.=) '0'
    AND NOT (pg_catalog.pg_try_advisory_xact_lock(1953064037, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.&) 63)
      OR pg_catalog.pg_try_advisory_xact_lock(1953064037, (pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.+) 21) OPERATOR(pg_catalog.&) 63)
      OR pg_catalog.pg_try_advisory_xact_lock(1953064037, (pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.+) 42) OPERATOR(pg_catalog.&) 63))
  THEN
    PERFORM pg_catalog.pg_notify('tidemark', '');
  END IF;
END $$;

-- TRUNCATE of a table of the user's, by such a function.
CREATE OR REPLACE FUNCTION tidemark.count_reset(feed_name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO tidemark.deltas (source, reset) VALUES (feed_name, true);
  IF pg_catalog.current_setting('max_prepared_transactions') OPERATOR(pg_catalog.=) '0' THEN
    PERFORM tidemark.notify_readers();
  END IF;
END $$;

-- Trigger function of our own tables: their rows are a feed's n, its total, or both. The first argument is the feed, the second one says which (default: both);
-- the transition table is called changed_rows. Once per statement, because a COPY of 100,000 rows is one change. One statement counts the rows and inserts the
-- delta, unless there are none: two cost 9 us more of 50.
--
-- A session keeps the plan of its first statement. If that one changed ten million rows, the plan is compiled for each later one, which then takes 10 ms.
CREATE OR REPLACE FUNCTION tidemark.count_rows() RETURNS trigger
LANGUAGE plpgsql SET jit = off AS $$
BEGIN
  IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
    INSERT INTO tidemark.deltas (source, n, total, traceparent)
      SELECT TG_ARGV[0],
        CASE WHEN TG_ARGV[1] OPERATOR(pg_catalog.=) 'total' THEN 0 ELSE pg_catalog.count(*) END,
        CASE WHEN TG_ARGV[1] OPERATOR(pg_catalog.=) 'n' THEN 0 ELSE pg_catalog.count(*) END,
        CASE WHEN pg_catalog.current_setting('tidemark.traceparent', true) OPERATOR(pg_catalog.<>) ''
          THEN pg_catalog.left(pg_catalog.current_setting('tidemark.traceparent', true), 55) END
      FROM changed_rows HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0;
  ELSIF TG_OP OPERATOR(pg_catalog.=) 'TRUNCATE' THEN
    INSERT INTO tidemark.deltas (source, reset) VALUES (TG_ARGV[0], true);
  ELSE
    INSERT INTO tidemark.deltas (source, n)
      SELECT TG_ARGV[0], OPERATOR(pg_catalog.-) pg_catalog.count(*)
      FROM changed_rows HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0;
  END IF;
  IF FOUND
    AND NOT (pg_catalog.pg_try_advisory_xact_lock(1953064037, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.&) 63)
      OR pg_catalog.pg_try_advisory_xact_lock(1953064037, (pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.+) 21) OPERATOR(pg_catalog.&) 63)
      OR pg_catalog.pg_try_advisory_xact_lock(1953064037, (pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.+) 42) OPERATOR(pg_catalog.&) 63))
  THEN
    PERFORM pg_catalog.pg_notify('tidemark', '');
  END IF;
  RETURN NULL;
END $$;

-- What keeps the rows of a table from being counted by its triggers: one word, or NULL.
CREATE FUNCTION tidemark.table_obstacle(table_id oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT CASE
    WHEN relation.relkind = 'p' THEN 'partitioned'
    WHEN relation.relkind <> 'r' THEN 'not_a_table'
    WHEN space.nspname = 'tidemark' THEN 'ours'
    WHEN space.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') THEN 'system'
    WHEN relation.relispartition THEN 'partition'
    WHEN EXISTS (SELECT FROM pg_inherits WHERE inhparent = relation.oid) OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = relation.oid) THEN 'inheritance'
    WHEN relation.relpersistence = 't' THEN 'temporary'
    WHEN relation.relpersistence = 'u' THEN 'unlogged'
    WHEN EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = relation.oid) THEN 'subscribed'
  END
  FROM pg_class AS relation JOIN pg_namespace AS space ON space.oid = relation.relnamespace WHERE relation.oid = table_id);
END $$;

-- A fingerprint of what a filter (a function) relies on and can be replaced without Postgres asking: the functions that it calls, also by operators, and the
-- expressions of generated columns. A function whose body is a string does not say what it calls in turn. Renaming what is in these texts changes the
-- fingerprint too.
CREATE FUNCTION tidemark.filter_fingerprint(filter oid) RETURNS text
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
  RETURN (
    WITH RECURSIVE used (id) AS (
      SELECT filter
      UNION
      SELECT coalesce(oprcode::oid, refobjid) FROM used
      JOIN pg_depend ON classid = 'pg_proc'::regclass AND objid = id AND refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
      LEFT JOIN pg_operator ON refclassid = 'pg_operator'::regclass AND pg_operator.oid = refobjid),
    definitions (text) AS (
      SELECT concat_ws(' ', coalesce(pg_get_function_sqlbody(oid), prosrc), probin, pg_get_expr(proargdefaults, 0), proisstrict, proconfig)
      FROM used JOIN pg_proc ON oid = id WHERE id <> filter
      UNION ALL
      SELECT pg_get_expr(adbin, adrelid) FROM pg_depend
      JOIN pg_attribute ON refclassid = 'pg_class'::regclass AND attrelid = refobjid AND attnum = refobjsubid AND attgenerated <> ''
      JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
      WHERE classid = 'pg_proc'::regclass AND objid = filter)
    SELECT encode(sha256(convert_to(coalesce(string_agg(text, ' ' ORDER BY text COLLATE "C"), ''), getdatabaseencoding())), 'hex') FROM definitions);
END $$;

-- Feeds of users' tables whose counts are not right any more, and why: one word each. It asks the catalogs alone, so it needs no right on any table.
CREATE FUNCTION tidemark.feed_problems() RETURNS TABLE (feed text, problem text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT * FROM (
    SELECT own.feed, coalesce(
      CASE WHEN own.follow = 'table' AND relation.oid IS NULL OR own.follow = 'name' AND named.oid IS NULL THEN 'gone'
        WHEN own.follow = 'name' AND named.oid <> own.relation THEN 'swapped' END,
      tidemark.table_obstacle(own.relation),
      CASE WHEN own.filter IS NOT NULL AND matching.oid IS NULL
          AND NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'tidemark'::regnamespace AND relname = 'feed_' || own.feed || '_rows')
        OR obj_description(matching.oid, 'pg_proc') <> tidemark.filter_fingerprint(matching.oid) THEN 'filter_gone' END,
      CASE WHEN (SELECT count(*) FROM pg_trigger WHERE tgrelid = own.relation AND tgfoid = counter.oid AND tgenabled IN ('O', 'A'))
        < CASE WHEN own.filter IS NULL THEN 3 ELSE 4 END THEN 'switched_off' END,
      CASE WHEN NOT (has_schema_privilege(counter.proowner, 'tidemark', 'USAGE') AND has_table_privilege(counter.proowner, 'tidemark.deltas', 'INSERT'))
        THEN 'denied' END) AS problem
    FROM tidemark.own_feeds AS own
    LEFT JOIN pg_class AS relation ON relation.oid = own.relation
    LEFT JOIN (pg_class AS named JOIN pg_namespace AS space ON space.oid = named.relnamespace)
      ON space.nspname = (parse_ident(own.named))[1] AND named.relname = (parse_ident(own.named))[2]
    LEFT JOIN pg_proc AS counter
      ON counter.pronamespace = 'tidemark'::regnamespace AND counter.proname = 'feed_' || own.feed AND counter.pronargs = 0
    LEFT JOIN pg_proc AS matching
      ON matching.pronamespace = 'tidemark'::regnamespace AND matching.proname = 'feed_' || own.feed || '_matches' AND matching.pronargs = 1) AS problems
  WHERE problem IS NOT NULL;
END $$;

-- Keeps the problems that readers have seen: while a trigger is disabled, or a table is a partition, changes are missed, and the count is not right when that ends. What is
-- said of a table that is gone needs no memory: a feed of another one is another feed.
CREATE FUNCTION tidemark.keep_problems() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
  INSERT INTO tidemark.deltas (source, failure)
    SELECT feed, problem FROM tidemark.feed_problems() JOIN tidemark.feed_values() USING (feed)
    WHERE failure IS NULL AND problem NOT IN ('gone', 'swapped');
END $$;

-- What a reader reads, in one statement: the server, and a row for each feed; one without a name if there is none. The timeline comes from the name of the current
-- WAL file, because the control file learns of a promotion only at the next checkpoint. Asking for the queue's usage also frees a queue that a dead listener left
-- full. `unannounced`: there are writers that never notify. `problem` is the reason why the value is not right, known to have been so at `problem_at`, if that is known;
-- without `check_problems` the catalogs are not asked.
CREATE FUNCTION tidemark.read_feeds(check_problems boolean)
RETURNS TABLE (store text, standby boolean, timeline text, queue_usage float8, database_time timestamptz, unannounced boolean,
  name text, n_as text, total_as text, n bigint, total bigint, version bigint, pending bigint, changed_at timestamptz, traceparent text, problem text, problem_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT store.id, pg_is_in_recovery(), CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
    pg_notification_queue_usage(), clock_timestamp(),
    current_setting('max_prepared_transactions') <> '0' AND EXISTS (SELECT FROM tidemark.own_feeds),
    feeds.name, feeds.n_as, feeds.total_as, value.n, value.total, value.version, value.pending, value.changed_at,
    -- In a database without an encoding a writer may have left bytes here that a reader cannot take.
    CASE WHEN value.traceparent ~ '^[0-9a-f-]{55}$' THEN value.traceparent END,
    coalesce(problems.problem, CASE WHEN value.failure ~ '^[0-9A-Z]{5}$' THEN 'filter_failed' ELSE value.failure END), value.failed_at
  FROM tidemark.store
  LEFT JOIN (tidemark.feeds JOIN tidemark.feed_values() AS value ON value.feed = feeds.name) ON true
  LEFT JOIN (SELECT * FROM tidemark.feed_problems() WHERE check_problems) AS problems ON problems.feed = feeds.name
  ORDER BY feeds.name;
END $$;

-- Adds a feed, after all versions of feeds that were removed. It notifies always: waiting readers must learn of the new name.
CREATE OR REPLACE FUNCTION tidemark.create_feed(feed_name text, n_as text, total_as text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO tidemark.feeds (name, n_as, total_as) VALUES (feed_name, n_as, total_as);
  INSERT INTO tidemark.bases (source, version) SELECT feed_name, removed_version FROM tidemark.store;
  PERFORM pg_notify('tidemark', '');
END $$;

-- Removes a feed whose triggers were removed in the same transaction.
CREATE OR REPLACE FUNCTION tidemark.remove_feed(feed_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  filter regprocedure;
BEGIN
  UPDATE tidemark.store SET removed_version = greatest(removed_version, (SELECT version + 1 FROM tidemark.feed_values() WHERE feed = feed_name));
  DELETE FROM tidemark.feeds WHERE name = feed_name;
  DELETE FROM tidemark.deltas WHERE source = feed_name;
  DELETE FROM tidemark.bases WHERE source = feed_name;
  -- `feed remove` of 0.1 does not know this function. The trigger function of another feed may have the same name, but it has no argument.
  FOR filter IN
    SELECT oid FROM pg_proc WHERE pronamespace = 'tidemark'::regnamespace AND proname = 'feed_' || feed_name || '_matches' AND pronargs = 1
  LOOP
    EXECUTE format('DROP FUNCTION %s', filter);
  END LOOP;
  PERFORM pg_notify('tidemark', '');
END $$;

-- As before. The lock keeps a TRUNCATE from coming between the comparison and the correction.
CREATE OR REPLACE FUNCTION tidemark.audit_visitors() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  difference bigint;
BEGIN
  LOCK TABLE tidemark.connections IN ROW EXCLUSIVE MODE;
  SELECT (SELECT count(*) FROM tidemark.connections) - (SELECT n FROM tidemark.feed_values() WHERE feed = 'visitors') INTO difference;
  IF difference <> 0 THEN
    INSERT INTO tidemark.deltas (source, n) VALUES ('visitors', difference);
    PERFORM tidemark.notify_readers();
  END IF;
  -- While values move all the time, readers of 0.1 do not call this themselves.
  PERFORM tidemark.arm_feeds();
  RETURN difference;
END $$;

-- Readers of 0.1 call this when no value moves. Nothing is armed any more, so they read every 200 ms. They do
-- not fold, and after a rollback no other reader does.
CREATE OR REPLACE FUNCTION tidemark.arm_feeds() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
  IF current_setting('transaction_isolation') = 'read committed' AND (SELECT max(pending) FROM tidemark.feed_values()) >= 1000 THEN
    PERFORM tidemark.fold_feeds(50000);
  END IF;
END $$;

-- The slots become bases. This needs a moment without open transactions that have counted: it tries for that long only, because writers wait behind it, and
-- tries again. From here to the end of the migration it takes some milliseconds.
DO $$
BEGIN
  PERFORM pg_catalog.set_config('lock_timeout', '100ms', true);
  FOR attempt IN 1..600 LOOP
    BEGIN
      LOCK TABLE tidemark.own_feeds, tidemark.feed_slots IN ACCESS EXCLUSIVE MODE;
      EXIT;
    EXCEPTION WHEN lock_not_available THEN
      IF attempt = 600 THEN
        RAISE lock_not_available USING MESSAGE = 'could not lock tidemark.feed_slots within two minutes: a transaction that wrote to a counted table is open',
          HINT = 'pg_stat_activity shows it; migrate again when it has ended.';
      END IF;
      PERFORM pg_catalog.pg_sleep(0.1);
    END;
  END LOOP;
END $$;

INSERT INTO tidemark.bases (source, n, total, version, changed_at, traceparent)
  SELECT feed, sum(n), sum(total), sum(version), max(at), (array_agg(traceparent ORDER BY at DESC NULLS LAST))[1] FROM tidemark.feed_slots GROUP BY feed;

-- Which table a feed follows when a table is renamed: the one that was counted (`table`), or whichever has its name (`name`).
ALTER TABLE tidemark.own_feeds ADD COLUMN follow text NOT NULL DEFAULT 'table' CHECK (follow IN ('table', 'name'));
UPDATE tidemark.own_feeds SET follow = 'name'
  WHERE owner IS NOT NULL AND EXISTS (
    SELECT FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = relation AND pg_catalog.parse_ident(named) = ARRAY[nspname::text, relname::text]);

-- Programs of 0.1 read and write the slots under their name. A statement that waits for the lock above
-- continues with the view. Its snapshot may be older than the bases; the values are then those of the
-- old table. An update counts the difference between the new and the old value.
--
-- The view is a function because count_change of 0.1 locks the rows that it reads. Rows of a table behind
-- the view would be locked too: writers that continue at the same time would skip each other's row (SKIP
-- LOCKED) and count nothing. The planner expects few rows at little cost: at a higher one it would compile
-- the queries of 0.1, which takes seconds.
ALTER TABLE tidemark.feed_slots RENAME TO feed_slots_before_0006;
CREATE FUNCTION tidemark.slots()
RETURNS TABLE (feed text, slot smallint, n bigint, total bigint, version bigint, armed boolean, at timestamptz, traceparent text)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT feeds.name, 0::smallint, coalesce(value.n, before.n, 0), coalesce(value.total, before.total, 0), coalesce(value.version, before.version, 0),
    false, coalesce(value.changed_at, before.at), coalesce(value.traceparent, before.traceparent)
  FROM tidemark.feeds
  LEFT JOIN tidemark.feed_values() AS value ON value.feed = feeds.name
  LEFT JOIN LATERAL (
    SELECT sum(n)::bigint AS n, sum(total)::bigint AS total, sum(version)::bigint AS version, max(at) AS at,
      (array_agg(traceparent ORDER BY at DESC NULLS LAST))[1] AS traceparent
    FROM tidemark.feed_slots_before_0006 WHERE feed = feeds.name AND value.feed IS NULL) AS before ON true
  WHERE feeds.n_as IS NOT NULL OR feeds.total_as IS NOT NULL;
END $$;
CREATE VIEW tidemark.feed_slots AS SELECT slots.*, '0'::xid AS xmax FROM tidemark.slots();

-- create_feed of 0.1 inserts slots. count_reset of 0.1 sets n to 0: a difference would be wrong, because its
-- snapshot may be older than the changes that it resets.
CREATE FUNCTION tidemark.write_slot() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  context text;
BEGIN
  IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
    INSERT INTO tidemark.bases (source, version) SELECT NEW.feed, NEW.version WHERE NEW.slot OPERATOR(pg_catalog.=) 0;
    RETURN NEW;
  END IF;
  GET DIAGNOSTICS context = PG_CONTEXT;
  IF pg_catalog.strpos(context, 'count_reset(text)') OPERATOR(pg_catalog.>) 0 THEN
    INSERT INTO tidemark.deltas (source, reset) VALUES (NEW.feed, true);
  ELSE
    INSERT INTO tidemark.deltas (source, n, total, traceparent)
      VALUES (NEW.feed, NEW.n OPERATOR(pg_catalog.-) OLD.n, NEW.total OPERATOR(pg_catalog.-) OLD.total, NEW.traceparent);
  END IF;
  PERFORM tidemark.notify_readers();
  RETURN NEW;
END $$;
CREATE TRIGGER write_slot INSTEAD OF INSERT OR UPDATE ON tidemark.feed_slots FOR EACH ROW EXECUTE FUNCTION tidemark.write_slot();

-- A role that could change the slots can count as before, and nobody else can: feeds of users' tables belong
-- to such roles. So does the role that made the slots, if another one migrates.
DO $$
DECLARE
  held record;
  holder text;
BEGIN
  FOR held IN
    SELECT grantee, privilege_type FROM pg_catalog.pg_class
    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(relacl, pg_catalog.acldefault('r', relowner)))
    WHERE oid = 'tidemark.feed_slots_before_0006'::pg_catalog.regclass AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE')
      AND grantee <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
  LOOP
    holder := CASE held.grantee WHEN 0 THEN 'PUBLIC' ELSE held.grantee::pg_catalog.regrole::text END;
    EXECUTE pg_catalog.format('GRANT %s ON tidemark.feed_slots TO %s', held.privilege_type, holder);
    IF held.privilege_type = 'SELECT' THEN
      EXECUTE pg_catalog.format('GRANT SELECT ON tidemark.feeds, tidemark.bases, tidemark.deltas TO %s', holder);
    ELSE
      EXECUTE pg_catalog.format('GRANT INSERT, DELETE ON tidemark.bases, tidemark.deltas TO %s', holder);
    END IF;
  END LOOP;
END $$;

-- Where new functions are not for everybody (ALTER DEFAULT PRIVILEGES), they are for the roles that could call
-- what they replace.
DO $$
DECLARE
  holder text;
BEGIN
  IF (SELECT proacl FROM pg_catalog.pg_proc WHERE oid = 'tidemark.notify_readers()'::pg_catalog.regprocedure) IS NULL THEN
    RETURN;
  END IF;
  FOR holder IN
    SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::pg_catalog.regrole::text END FROM pg_catalog.pg_proc
    CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(proacl, pg_catalog.acldefault('f', proowner)))
    WHERE oid = 'tidemark.count_change(text, bigint, bigint)'::pg_catalog.regprocedure AND privilege_type = 'EXECUTE'
  LOOP
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION tidemark.notify_readers, tidemark.request_notification, tidemark.cancel_notification,
      tidemark.deltas_after, tidemark.add_deltas, tidemark.feed_values, tidemark.fold_feeds, tidemark.table_obstacle,
      tidemark.filter_fingerprint, tidemark.feed_problems, tidemark.keep_problems, tidemark.read_feeds, tidemark.slots TO %s', holder);
  END LOOP;
END $$;

-- Wakes readers of 0.1. They find that nothing is armed, and poll from then on; without this, a reader that
-- waits for a notification would miss the first change.
SELECT pg_catalog.pg_notify('tidemark', '');
