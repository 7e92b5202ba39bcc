-- The write path: accepted events wait in the outbox, relays move them to the event store and the bus.

CREATE TABLE outbox (
    -- Unique identifier; the same UUID v7 as the event's id.
    outbox_id     uuid        NOT NULL PRIMARY KEY,
    -- When the event was accepted.
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- The full event envelope (same format as the event store).
    event_payload jsonb       NOT NULL,
    -- Number of failed processing attempts of this event (not of outages).
    retry_count   integer     NOT NULL DEFAULT 0,
    -- xxh3(aggregate_id) mod 64: the unit of claiming and of order.
    shard         smallint    NOT NULL CHECK (shard BETWEEN 0 AND 63),
    -- Order of acceptance. Relays take a shard's rows by it.
    seq           bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    -- The event's position in the event store once it is there and still to be published; null before.
    position      bigint
);
CREATE INDEX idx_outbox_created_at ON outbox (created_at);
-- How a relay finds a shard's oldest rows.
CREATE INDEX idx_outbox_shard_seq ON outbox (shard, seq);
-- How a relay finds what is to be published next (Kafka).
CREATE INDEX idx_outbox_shard_position ON outbox (shard, position) WHERE position IS NOT NULL;

-- One row a shard: locked by the relay that works on it.
CREATE TABLE outbox_shard (
    shard     smallint NOT NULL PRIMARY KEY CHECK (shard BETWEEN 0 AND 63),
    -- The last position given in this shard: event_store.position is 1, 2, 3, … without a gap.
    position  bigint   NOT NULL DEFAULT 0,
    -- Scans of the outbox start at this seq. It trails, so that late commits are still seen; the watchdog starts from 0.
    low_water bigint   NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO outbox_shard (shard) SELECT generate_series(0, 63);

-- The append-only log. Partitioned by day on the UUID v7 key, whose first 48 bits are the time in milliseconds, so that
-- the key is unique over all partitions and retention is a partition drop. Partitions are made by the platform.
CREATE TABLE event_store (
    -- UUID v7, given at acceptance.
    event_id     uuid         NOT NULL PRIMARY KEY,
    -- Discriminator, for example sensor.reading.
    event_type   varchar(255) NOT NULL,
    -- Groups related events, for example a device id. Events of one aggregate are in order.
    aggregate_id varchar(255) NOT NULL,
    -- When the event occurred (the caller's time, else the time of acceptance).
    timestamp    timestamptz  NOT NULL,
    payload      jsonb        NOT NULL,
    -- Trace ids, source, schema version.
    metadata     jsonb        NOT NULL,
    -- When the platform accepted the event.
    ingested_at  timestamptz  NOT NULL,
    -- As in the outbox.
    shard        smallint     NOT NULL,
    -- Order within the shard: 1, 2, 3, … without a gap. Readers use it as a plain cursor.
    position     bigint       NOT NULL
) PARTITION BY RANGE (event_id);
-- With the position, so that a page of an aggregate's events costs the same however many it has.
CREATE INDEX idx_event_store_aggregate ON event_store (aggregate_id, position);
CREATE INDEX idx_event_store_type ON event_store (event_type);
CREATE INDEX idx_event_store_timestamp ON event_store (timestamp);
CREATE INDEX idx_event_store_shard_position ON event_store (shard, position);

-- How far each reader of the event store has come, told by the readers, so that no partition is dropped that holds
-- positions a registered reader has not read.
CREATE TABLE event_store_reader (
    -- Consumer group, or projection and revision.
    reader     varchar(255) NOT NULL PRIMARY KEY,
    -- 64 positions: the last one read per shard.
    positions  bigint[]     NOT NULL CHECK (cardinality(positions) = 64),
    updated_at timestamptz  NOT NULL DEFAULT now()
);

-- What was already accepted under a caller's key.
CREATE TABLE idempotency (
    -- `key:<Idempotency-Key>` or `ce:<source> <id>`.
    key          varchar(512) NOT NULL PRIMARY KEY,
    -- SHA-256 of what was asked: the same key with another body is refused.
    request_hash bytea        NOT NULL,
    -- The event that the key was accepted as.
    event_id     uuid         NOT NULL,
    -- 24 h after acceptance; swept by the maintenance task.
    expires_at   timestamptz  NOT NULL
);
CREATE INDEX idx_idempotency_expires_at ON idempotency (expires_at);
