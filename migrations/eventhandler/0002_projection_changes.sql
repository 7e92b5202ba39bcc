-- Streams learn what changed from a log of their own instead of an index on the rows: an update of a row whose indexed
-- columns stay as they are costs a third of one that has to enter every index anew.
DROP INDEX idx_projections_changed;

-- Which rows each transaction wrote: the writer adds to it in the same transaction.
CREATE TABLE projection_changes (
    projection_type varchar(255) NOT NULL,
    changed_by      xid8         NOT NULL DEFAULT pg_current_xact_id(),
    -- The aggregate ids written. Null: too many to name, or forgotten; of this transaction and of those before it only
    -- the rows themselves tell.
    keys            text[],
    changed_at      timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (projection_type, changed_by)
);
-- Ids hardly repeat within a row: compressing them would cost more than it saves.
ALTER TABLE projection_changes ALTER COLUMN keys SET STORAGE EXTERNAL;
-- The end of what was forgotten.
CREATE UNIQUE INDEX idx_projection_changes_forgotten ON projection_changes (projection_type, changed_by) WHERE keys IS NULL;

-- Rows written before there was a log.
INSERT INTO projection_changes (projection_type, keys) SELECT DISTINCT projection_type, NULL::text[] FROM projections;

-- Names the time since PostgreSQL last recovered from a crash, which empties an unlogged table. Numbers of transactions
-- are comparable within one such time only: the last of those before a crash may be given out again.
CREATE UNLOGGED TABLE projection_epoch (
    only_one boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_one),
    epoch    uuid    NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO projection_epoch DEFAULT VALUES;
