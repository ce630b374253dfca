-- Samples of servers: one for each server and second, kept for a retention, and the newest one of each server. They have no feed and no slots: the
-- dashboard asks the generator.

-- The type of the time makes it a whole second; it is as large as a number, and people and retentions read it as it is. A partition holds an hour: with a
-- retention of a day that is 4 % more than asked for, where a day would be twice as much. There is no default partition: a new one would have to
-- look through it under a lock.
CREATE TABLE tidemark.metrics (
  server_id text NOT NULL,
  second timestamptz(0) NOT NULL,
  cpu_usage real NOT NULL CHECK (cpu_usage BETWEEN 0 AND 100),        -- percent, as the other two
  memory_usage real NOT NULL CHECK (memory_usage BETWEEN 0 AND 100),
  disk_usage real NOT NULL CHECK (disk_usage BETWEEN 0 AND 100),
  PRIMARY KEY (server_id, second)
) PARTITION BY RANGE (second);
-- For the newest of all servers.
CREATE INDEX metrics_second ON tidemark.metrics (second);

-- Every row changes every second: the fill factor keeps that on its page (no index writes), the vacuum settings keep the pages few.
CREATE TABLE tidemark.metrics_latest (
  server_id text PRIMARY KEY,
  second timestamptz(0) NOT NULL,
  cpu_usage real NOT NULL,
  memory_usage real NOT NULL,
  disk_usage real NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);

-- Makes the partitions from the last hour, for samples that come late, to the third from now, and drops the oldest one if all of it is older than the
-- retention: one per call, so that writers wait for one at most. Gives how many it has made and dropped. It runs with the rights of its owner, because
-- whoever stores samples may not make tables. What it does depends on the clock of the database and not on what a caller says.
CREATE FUNCTION tidemark.roll_metrics(retention interval, OUT made integer, OUT dropped integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO'
SET lock_timeout = '1s' AS $$
DECLARE
  this_hour timestamptz := date_trunc('hour', clock_timestamp());
  hour timestamptz;
  partition text;
BEGIN
  IF coalesce(retention, '0') < interval '1 hour' THEN
    RAISE invalid_parameter_value USING MESSAGE = 'the retention must be an hour or longer';
  END IF;
  made := 0;
  dropped := 0;
  -- Replicas that call at once take turns: every statement from here on sees what the one before has done. The number is `metrics` in a hash.
  PERFORM pg_advisory_xact_lock(x'6d657472696373'::bigint);
  FOR hour IN SELECT generate_series(this_hour - interval '1 hour', this_hour + interval '3 hours', interval '1 hour') LOOP
    partition := 'metrics_' || to_char(hour, 'YYYYMMDDHH24');
    CONTINUE WHEN EXISTS (
      SELECT FROM pg_inherits WHERE inhparent = 'tidemark.metrics'::regclass AND inhrelid = to_regclass('tidemark.' || partition));
    -- Attaching lets others write meanwhile; PARTITION OF would not. A table that somebody has detached is attached again.
    EXECUTE format('CREATE TABLE IF NOT EXISTS tidemark.%I (LIKE tidemark.metrics INCLUDING ALL)', partition);
    EXECUTE format('ALTER TABLE tidemark.metrics ATTACH PARTITION tidemark.%I FOR VALUES FROM (%L) TO (%L)',
      partition, hour, hour + interval '1 hour');
    made := made + 1;
  END LOOP;

  -- Names sort as their hours do.
  SELECT relname INTO partition FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'tidemark.metrics'::regclass AND relname ~ '^metrics_\d{10}$'
      AND relname < 'metrics_' || to_char(clock_timestamp() - retention, 'YYYYMMDDHH24')
    ORDER BY relname LIMIT 1;
  IF FOUND THEN
    BEGIN
      -- Whoever writes waits behind this one: not for long. If somebody reads for longer, the next call tries again.
      PERFORM set_config('lock_timeout', '100ms', true);
      EXECUTE format('DROP TABLE tidemark.%I', partition);
      dropped := 1;
    EXCEPTION WHEN lock_not_available THEN
      NULL;
    END;
  END IF;

  -- Servers that have been silent for so long are gone.
  DELETE FROM tidemark.metrics_latest WHERE server_id IN (
    SELECT server_id FROM tidemark.metrics_latest WHERE second < clock_timestamp() - retention FOR UPDATE SKIP LOCKED);
END $$;
REVOKE EXECUTE ON FUNCTION tidemark.roll_metrics FROM PUBLIC;
