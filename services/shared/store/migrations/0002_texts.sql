-- Texts that people saved, and their feed.

CREATE TABLE tidemark.texts (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,    -- the order of the list
  id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,      -- made by the client, so that a repeated save stores once
  body text NOT NULL CONSTRAINT texts_body_length CHECK (char_length(body) BETWEEN 1 AND 10000),
  created_at timestamptz NOT NULL DEFAULT now()
);

SELECT tidemark.create_feed('texts', 'count', NULL);

CREATE TRIGGER texts_inserted AFTER INSERT ON tidemark.texts
  REFERENCING NEW TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION tidemark.count_rows('texts');
CREATE TRIGGER texts_deleted AFTER DELETE ON tidemark.texts
  REFERENCING OLD TABLE AS changed_rows FOR EACH STATEMENT EXECUTE FUNCTION tidemark.count_rows('texts');
CREATE TRIGGER texts_truncated AFTER TRUNCATE ON tidemark.texts
  FOR EACH STATEMENT EXECUTE FUNCTION tidemark.count_rows('texts');

-- Also in sessions that replay changes (session_replication_role = replica), or the count would be wrong after a restore.
ALTER TABLE tidemark.texts
  ENABLE ALWAYS TRIGGER texts_inserted,
  ENABLE ALWAYS TRIGGER texts_deleted,
  ENABLE ALWAYS TRIGGER texts_truncated;
