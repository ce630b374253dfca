-- Feeds: live values that a reader gets in O(64), however many rows they count.
-- The runner has made the schema tidemark already: its own table of applied migrations lives there too.

-- Which past of which database this is. Versions compare only within one store. The server's system identifier would not
-- do: all databases of a server share it.
CREATE TABLE tidemark.store (
  id text NOT NULL,
  single boolean PRIMARY KEY DEFAULT true CHECK (single)
);
INSERT INTO tidemark.store (id) VALUES (left(md5(gen_random_uuid()::text), 16));

-- A feed is data: its two numbers appear to clients under the names given here; NULL means that clients do not see it.
CREATE TABLE tidemark.feeds (
  name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
  n_as text CHECK (n_as <> ''),
  total_as text CHECK (total_as <> ''),
  CHECK (n_as IS NOT NULL OR total_as IS NOT NULL)
);

-- One row per feed would make every writer wait for the commit of the one before it. A writer uses the slot of its backend,
-- so one transaction always uses one slot and two transactions cannot wait for each other in a circle.
-- The fill factor keeps every update on its page (no index writes); the vacuum settings keep the pages small under load.
CREATE TABLE tidemark.feed_slots (
  feed text NOT NULL REFERENCES tidemark.feeds (name) ON DELETE CASCADE,
  slot smallint NOT NULL CHECK (slot BETWEEN 0 AND 63),
  n bigint NOT NULL DEFAULT 0,             -- now: rows stored, visitors online
  total bigint NOT NULL DEFAULT 0,         -- ever: never falls
  version bigint NOT NULL DEFAULT 0,       -- +1 per change; the feed's version is the sum
  armed boolean NOT NULL DEFAULT true,     -- a reader may sleep: the next writer of this slot must ring
  at timestamptz,                          -- the clock of the database at the last change
  traceparent text,                        -- W3C trace context of the last change, if its writer had one
  PRIMARY KEY (feed, slot)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- Adds a feed. It rings, because readers asleep must learn of the new name.
CREATE FUNCTION tidemark.create_feed(feed_name text, n_as text, total_as text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO tidemark.feeds (name, n_as, total_as) VALUES (feed_name, n_as, total_as);
  INSERT INTO tidemark.feed_slots (feed, slot) SELECT feed_name, slot FROM generate_series(0, 63) AS slot;
  PERFORM pg_notify('tidemark', feed_name);
END $$;

-- Counts one change of a feed in the writer's own transaction, and rings only if a reader may be asleep: a transaction with
-- NOTIFY holds a lock of the whole server until its commit is on disk, so a bell per write would make all writers queue.
-- This function and count_rows run in every write: instead of a SET search_path, which would cost a tenth of the insert
-- throughput, they name the schema of whatever they use.
CREATE FUNCTION tidemark.count_change(feed_name text, n_change bigint, total_change bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  own_slot smallint := pg_catalog.pg_backend_pid() & 63;
  was_armed boolean;
BEGIN
  -- The lock first: the flag must be read and cleared as one step, against the reader that arms it.
  SELECT armed INTO was_armed FROM tidemark.feed_slots
    WHERE feed = feed_name AND slot = own_slot FOR NO KEY UPDATE;
  UPDATE tidemark.feed_slots
    SET n = n + n_change, total = total + total_change, version = version + 1, armed = false, at = pg_catalog.clock_timestamp(),
        traceparent = nullif(pg_catalog.left(pg_catalog.current_setting('tidemark.traceparent', true), 55), '')
    WHERE feed = feed_name AND slot = own_slot;
  IF was_armed THEN
    PERFORM pg_catalog.pg_notify('tidemark', feed_name);
  END IF;
END $$;

-- After TRUNCATE nothing is left to count. The truncating transaction holds the table alone, so no writer is in between.
CREATE FUNCTION tidemark.count_reset(feed_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE tidemark.feed_slots SET n = 0, version = version + 1, armed = false, at = clock_timestamp(), traceparent = NULL
    WHERE feed = feed_name;
  PERFORM pg_notify('tidemark', feed_name);
END $$;

-- Trigger function: the rows of a table are a feed's n. The trigger's argument is the feed's name, and its transition table
-- is called changed_rows. Once per statement, because a COPY of 100,000 rows must not update a slot 100,000 times.
CREATE FUNCTION tidemark.count_rows() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  feed_name text := TG_ARGV[0];
  row_count bigint;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    PERFORM tidemark.count_reset(feed_name);
    RETURN NULL;
  END IF;
  SELECT pg_catalog.count(*) INTO row_count FROM changed_rows;
  IF row_count > 0 THEN
    IF TG_OP = 'INSERT' THEN
      PERFORM tidemark.count_change(feed_name, row_count, row_count);
    ELSE
      PERFORM tidemark.count_change(feed_name, -row_count, 0);
    END IF;
  END IF;
  RETURN NULL;
END $$;

-- A reader about to sleep asks every writer to ring. It skips slots that a writer holds: it must not wait for a slow commit.
-- Such a slot stays unarmed, and the reader, who looks again afterwards, stays awake.
CREATE FUNCTION tidemark.arm_feeds() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Until the end of this transaction only: writers must not wait for the disk because of a flag. A crash that loses the
  -- flag also ends every reader's connection, and readers arm again when they come back.
  PERFORM set_config('synchronous_commit', 'off', true);
  UPDATE tidemark.feed_slots AS slots SET armed = true
    FROM (SELECT feed, slot FROM tidemark.feed_slots WHERE NOT armed ORDER BY feed, slot FOR NO KEY UPDATE SKIP LOCKED) AS free
    WHERE slots.feed = free.feed AND slots.slot = free.slot;
END $$;
