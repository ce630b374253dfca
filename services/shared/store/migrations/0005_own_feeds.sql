-- Feeds of the user's own: the rows of any table, or those that match a filter, are a feed's n.

-- A name may belong to a feed that has no slots, because dashboards get its values from elsewhere: its row keeps the name from being taken.
ALTER TABLE tidemark.feeds DROP CONSTRAINT feeds_check;
INSERT INTO tidemark.feeds (name) VALUES ('servers');

-- Clients take only greater versions. So a feed that gets the name of one that was removed must start after it.
ALTER TABLE tidemark.store ADD COLUMN removed_version bigint NOT NULL DEFAULT 0;   -- the greatest version of any removed feed

-- What `list` shows, and what `remove` and `sync` need to know. The feed `orders` has the function tidemark.feed_orders(), which its triggers call, and with
-- a filter the view tidemark.feed_orders_rows of the rows that it counts. Such names must fit into 63 bytes: 48 are left for the feed's.
CREATE TABLE tidemark.own_feeds (
  feed text PRIMARY KEY REFERENCES tidemark.feeds (name) ON DELETE CASCADE CHECK (char_length(feed) <= 48),
  relation regclass NOT NULL,              -- follows when the table is renamed; shows a bare number when it is gone
  named text NOT NULL,                     -- what the table was called when the feed was added
  filter text CHECK (filter <> ''),        -- as the user wrote it
  owner text CHECK (owner <> ''),          -- whose list the feed is on, if it was added by `sync`
  added_at timestamptz NOT NULL DEFAULT now()
);

-- As before, and after all feeds that were removed.
CREATE OR REPLACE FUNCTION tidemark.create_feed(feed_name text, n_as text, total_as text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO tidemark.feeds (name, n_as, total_as) VALUES (feed_name, n_as, total_as);
  INSERT INTO tidemark.feed_slots (feed, slot, version)
    SELECT feed_name, slot, CASE slot WHEN 0 THEN (SELECT removed_version FROM tidemark.store) ELSE 0 END FROM generate_series(0, 63) AS slot;
  PERFORM pg_notify('tidemark', feed_name);
END $$;

-- Removes a feed. It rings, as create_feed does. Whoever calls it has removed the feed's triggers in the same transaction.
CREATE FUNCTION tidemark.remove_feed(feed_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE tidemark.store SET removed_version =
    greatest(removed_version, (SELECT sum(version) FROM tidemark.feed_slots WHERE feed = feed_name) + 1);
  DELETE FROM tidemark.feeds WHERE name = feed_name;
  PERFORM pg_notify('tidemark', feed_name);
END $$;

-- As before, but no writer waits for another as long as a slot is free. In a transaction of the user's the slot stays locked until a commit that may
-- wait for locks of the user's own: two such transactions on one slot would block, or even kill, each other for a reason that their authors cannot see.
CREATE OR REPLACE FUNCTION tidemark.count_change(feed_name text, n_change bigint, total_change bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  own_slot smallint := pg_catalog.pg_backend_pid() & 63;
  free_slot smallint;
  was_armed boolean;
  -- With a snapshot for the whole transaction, a row that changed since cannot be locked: the transaction would have to begin anew.
  one_snapshot boolean := pg_catalog.current_setting('transaction_isolation') <> 'read committed';
BEGIN
  -- The lock first: the flag must be read and cleared as one step, against the reader that arms it.
  IF NOT one_snapshot THEN
    SELECT slot, armed INTO free_slot, was_armed FROM tidemark.feed_slots
      WHERE feed = feed_name AND slot = own_slot FOR NO KEY UPDATE SKIP LOCKED;
  END IF;
  IF free_slot IS NULL THEN
    SELECT slot, armed INTO free_slot, was_armed FROM tidemark.feed_slots
      WHERE feed = feed_name AND (xmax = 0 OR NOT one_snapshot) ORDER BY (slot - own_slot) & 63 LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
  END IF;
  IF free_slot IS NULL THEN
    SELECT slot, armed INTO free_slot, was_armed FROM tidemark.feed_slots
      WHERE feed = feed_name AND slot = own_slot FOR NO KEY UPDATE;
  END IF;
  UPDATE tidemark.feed_slots
    SET n = n + n_change, total = total + total_change, version = version + 1, armed = false, at = pg_catalog.clock_timestamp(),
        traceparent = nullif(pg_catalog.left(pg_catalog.current_setting('tidemark.traceparent', true), 55), '')
    WHERE feed = feed_name AND slot = free_slot;
  IF was_armed THEN
    PERFORM pg_catalog.pg_notify('tidemark', feed_name);
  END IF;
END $$;
