-- The read path: state folded from events, and how far the handler has come.

CREATE TABLE projections (
    -- Unique identifier (UUID v7).
    projection_id        uuid         NOT NULL PRIMARY KEY,
    -- Which projection, for example sensor_state.
    projection_type      varchar(255) NOT NULL,
    -- The aggregate (or other key) that the state is of.
    aggregate_id         varchar(255) NOT NULL,
    -- Current state.
    state                jsonb        NOT NULL,
    -- The most recent event applied.
    last_event_id        uuid         NOT NULL,
    -- Time of that event.
    last_event_timestamp timestamptz  NOT NULL,
    -- When the row was last written.
    updated_at           timestamptz  NOT NULL DEFAULT now(),
    -- Shard and position of the last event folded into this row (from that shard).
    shard                smallint     NOT NULL,
    position             bigint       NOT NULL,
    -- Positions by shard, where several shards feed one row (a `key` other than the aggregate id): {"12": 345}.
    positions            jsonb,
    -- The transaction that last wrote the row. With pg_current_snapshot() it tells a stream exactly what is new.
    changed_by           xid8         NOT NULL DEFAULT pg_current_xact_id(),
    UNIQUE (projection_type, aggregate_id)
) WITH (fillfactor = 70);
CREATE INDEX idx_projections_type ON projections (projection_type);
CREATE INDEX idx_projections_aggregate_id ON projections (aggregate_id);
-- Streams read what is new in pages of this order; a transaction may have written many rows.
CREATE INDEX idx_projections_changed ON projections (projection_type, changed_by, aggregate_id);

-- The same rows of a projection that is being rebuilt beside the live one.
CREATE TABLE projections_rebuild (LIKE projections INCLUDING DEFAULTS INCLUDING STORAGE);
ALTER TABLE projections_rebuild ADD PRIMARY KEY (projection_type, aggregate_id);

-- What the handler does with each projection.
CREATE TABLE projection_progress (
    projection_type varchar(255) NOT NULL PRIMARY KEY,
    -- Hash of the definition whose rows are served, and the definition; null while none are.
    live_hash       char(64),
    live_spec       jsonb,
    -- Hash of the definition that is being caught up to; null when what is served is what is wanted.
    target_hash     char(64),
    -- live: fed by the group's batches. catching_up: fed from the event store by the cursors below (with `beside`, the
    -- rows served go on being fed by the group until the new ones replace them). halted: waits for a mend.
    -- removed: no longer registered; its rows stay.
    status          varchar(16)  NOT NULL CHECK (status IN ('live', 'catching_up', 'halted', 'removed')),
    -- Where catch-up writes: false, in the rows served; true, in projections_rebuild.
    beside          boolean      NOT NULL DEFAULT false,
    -- Last position read from the event store per shard while catching up; at hand-over it becomes applied_through.
    cursors         bigint[]     NOT NULL DEFAULT array_fill(0::bigint, ARRAY[64]) CHECK (cardinality(cursors) = 64),
    -- Events of the bus at or below these positions (per shard) are not folded into the rows served.
    applied_through bigint[]     NOT NULL DEFAULT array_fill(0::bigint, ARRAY[64]) CHECK (cardinality(applied_through) = 64),
    -- Positions still to be read when it was last looked at.
    behind          bigint       NOT NULL DEFAULT 0,
    -- Why it is halted.
    message         text,
    updated_at      timestamptz  NOT NULL DEFAULT now()
);

-- Embedded bus: how far a consumer group has come in each shard of the event store.
CREATE TABLE bus_cursor (
    consumer_group varchar(255) NOT NULL,
    shard          smallint     NOT NULL CHECK (shard BETWEEN 0 AND 63),
    position       bigint       NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer_group, shard)
) WITH (fillfactor = 10);

-- Kafka: how far a consumer group has come in each partition, and the last position seen of each shard in it.
CREATE TABLE bus_offset (
    consumer_group  varchar(255) NOT NULL,
    topic           varchar(249) NOT NULL,
    partition       integer      NOT NULL,
    -- How many partitions the topic had when this row was last written.
    partition_count integer      NOT NULL,
    -- The next offset to read.
    next_offset     bigint       NOT NULL,
    -- Per shard, the last position applied from this partition: what is at or below is a duplicate.
    positions       bigint[]     NOT NULL DEFAULT array_fill(0::bigint, ARRAY[64]) CHECK (cardinality(positions) = 64),
    updated_at      timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 10);

-- Which bus a consumer group last read: a change sends every projection through the event store once.
CREATE TABLE consumer_group (
    consumer_group varchar(255) NOT NULL PRIMARY KEY,
    bus            varchar(16)  NOT NULL CHECK (bus IN ('embedded', 'kafka'))
);
