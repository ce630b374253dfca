-- Who looks at a board: one row per visit that has an open socket, held by the replica that has it.

-- A replica that counts visitors, for as long as it renews its lease.
CREATE TABLE tidemark.instances (
  id uuid PRIMARY KEY,
  name text NOT NULL,                                    -- what the replica calls itself
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  lease_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- A visit is a page from its load until it is closed. Its id is made by the page, so that a reconnect is the same visit.
CREATE TABLE tidemark.visits (
  id uuid PRIMARY KEY,
  first_seen timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX visits_first_seen ON tidemark.visits USING brin (first_seen);

-- One row per visit, however many sockets it has while it moves from one replica to another: the socket with the greatest n owns it.
-- The reference lets nobody count who was swept: such a replica has to come back under a new id.
CREATE TABLE tidemark.connections (
  visit uuid PRIMARY KEY,
  instance uuid NOT NULL REFERENCES tidemark.instances (id),
  n bigint NOT NULL CHECK (n >= 0),                      -- the visit's own number of this socket; greater is newer
  connected_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE INDEX connections_instance ON tidemark.connections (instance);

-- As before, with a choice: the trigger's second argument says which of the feed's numbers the rows are. Without it they are both.
CREATE OR REPLACE FUNCTION tidemark.count_rows() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  feed_name text := TG_ARGV[0];
  number text := coalesce(TG_ARGV[1], 'both');
  row_count bigint;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    PERFORM tidemark.count_reset(feed_name);
    RETURN NULL;
  END IF;
  SELECT pg_catalog.count(*) INTO row_count FROM changed_rows;
  IF row_count > 0 THEN
    IF TG_OP = 'INSERT' THEN
      PERFORM tidemark.count_change(feed_name, CASE number WHEN 'total' THEN 0 ELSE row_count END, CASE number WHEN 'n' THEN 0 ELSE row_count END);
    ELSE
      PERFORM tidemark.count_change(feed_name, -row_count, 0);
    END IF;
  END IF;
  RETURN NULL;
END $$;

SELECT tidemark.create_feed('visitors', 'online', 'total');

-- Online are the rows of connections; a row that changes its owner changes nothing. Total is every visit that was ever stored: removing an old
-- one has no trigger.
CREATE TRIGGER connections_inserted AFTER INSERT ON tidemark.connections
  REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION tidemark.count_rows('visitors', 'n');
CREATE TRIGGER connections_deleted AFTER DELETE ON tidemark.connections
  REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION tidemark.count_rows('visitors', 'n');
CREATE TRIGGER connections_truncated AFTER TRUNCATE ON tidemark.connections
  FOR EACH STATEMENT EXECUTE FUNCTION tidemark.count_rows('visitors', 'n');
CREATE TRIGGER visits_inserted AFTER INSERT ON tidemark.visits
  REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION tidemark.count_rows('visitors', 'total');
ALTER TABLE tidemark.connections
  ENABLE ALWAYS TRIGGER connections_inserted,
  ENABLE ALWAYS TRIGGER connections_deleted,
  ENABLE ALWAYS TRIGGER connections_truncated;
ALTER TABLE tidemark.visits ENABLE ALWAYS TRIGGER visits_inserted;

-- Removes up to `most` connections of one instance whose lease has ended, and the instance after its last one. Gives how many connections went;
-- NULL if there is no such instance, or somebody else is at it. Rows that are being taken over at this moment are left to the next call.
CREATE FUNCTION tidemark.sweep_instance(most integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  dead uuid;
  gone bigint;
BEGIN
  SELECT id INTO dead FROM tidemark.instances WHERE lease_until < clock_timestamp()
    ORDER BY lease_until LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF dead IS NULL THEN
    RETURN NULL;
  END IF;
  DELETE FROM tidemark.connections WHERE instance = dead AND visit IN (
    SELECT visit FROM tidemark.connections WHERE instance = dead ORDER BY visit LIMIT most FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS gone = ROW_COUNT;
  DELETE FROM tidemark.instances WHERE id = dead AND NOT EXISTS (SELECT FROM tidemark.connections WHERE instance = dead);
  RETURN gone;
END $$;

-- Compares the number of visitors with the rows, in one snapshot, and corrects it by the difference. Gives the difference: 0 when all is well.
-- Whoever calls it holds the lock that two audits must not share, and has taken it in an earlier statement.
CREATE FUNCTION tidemark.audit_visitors() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  difference bigint;
BEGIN
  SELECT (SELECT count(*) FROM tidemark.connections) - (SELECT sum(n) FROM tidemark.feed_slots WHERE feed = 'visitors') INTO difference;
  IF difference <> 0 THEN
    PERFORM tidemark.count_change('visitors', difference, 0);
  END IF;
  RETURN difference;
END $$;
