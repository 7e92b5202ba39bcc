-- What retention took before a projection could read it, and indexes on fields of the state.

ALTER TABLE projection_progress
    -- Events accepted before this time were dropped from the event store before they could be read: the rows that are
    -- being built (once caught up: the rows served) are made of what came since. Null: of the whole history.
    ADD COLUMN history_from      timestamptz,
    -- The same of the rows served while others are built beside them.
    ADD COLUMN live_history_from timestamptz;

-- What an index on a field of the state holds: the field's value where it is a scalar, and for what an index cannot hold
-- (objects, arrays, and texts too long for a page of the index) an object, which sorts after every scalar. Rows without
-- the field give null. Filters look the value up by it and then compare the field itself.
CREATE FUNCTION state_index_key(field jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(field) IN ('object', 'array') OR octet_length(field::text) > 1000 THEN '{}'::jsonb
            ELSE field END;

-- The indexes that projections ask for, as far as they are.
CREATE TABLE projection_index (
    projection_type varchar(255) NOT NULL,
    -- Field at the top of the state.
    field           varchar(255) NOT NULL,
    -- Name of the index on `projections`, made of the two above.
    name            varchar(63)  NOT NULL,
    -- building, built, or failed: tried again by itself.
    status          varchar(16)  NOT NULL CHECK (status IN ('building', 'built', 'failed')),
    -- Why it failed.
    message         text,
    updated_at      timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (projection_type, field)
);
