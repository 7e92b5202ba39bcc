-- Tables of time series are in a schema of their own: no name that a Projection gives one is that of another table.
CREATE SCHEMA IF NOT EXISTS timeseries;

-- The tables that the controllers made there.
CREATE TABLE series_table (
    -- Its name in the schema timeseries.
    table_name      varchar(63)  NOT NULL PRIMARY KEY,
    -- The projection whose rows it holds.
    projection_type varchar(255) NOT NULL,
    -- partitioned: by range of time, a table a partition; hypertable: TimescaleDB makes its chunks.
    layout          varchar(16)  NOT NULL CHECK (layout IN ('partitioned', 'hypertable')),
    -- The declared columns that were made. Others are somebody else's, and left alone.
    columns         text[]       NOT NULL,
    -- Time that a chunk was last told to span, in seconds.
    chunk_seconds   bigint       NOT NULL,
    -- How often its columns were changed.
    changes         integer      NOT NULL DEFAULT 0,
    made_at         timestamptz  NOT NULL DEFAULT now()
);

-- What the writer does with each time series.
CREATE TABLE series_progress (
    projection_type varchar(255) NOT NULL PRIMARY KEY,
    -- Its table in the schema timeseries.
    table_name      varchar(63)  NOT NULL,
    -- Hash of the registration that it runs by, or halted at.
    hash            char(64)     NOT NULL,
    -- running: rows are written. halted: an event can make no row, and the definition says to stop there.
    -- removed: no longer registered; its rows stay.
    status          varchar(16)  NOT NULL CHECK (status IN ('running', 'halted', 'removed')),
    -- Why it is halted.
    message         text,
    -- Positions of the event store that were read, of all shards together, and those still to be read.
    positions_read  bigint       NOT NULL DEFAULT 0,
    behind          bigint       NOT NULL DEFAULT 0,
    updated_at      timestamptz  NOT NULL DEFAULT now()
);

-- What the controllers did to the tables: a row for each step of a migration plan, committed together with the step.
CREATE TABLE series_ledger (
    id              bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The projection that the step is for.
    projection_type varchar(255) NOT NULL,
    -- SHA-256 (hex) of the plan, of the steps that were outstanding when this one was begun.
    plan_hash       char(64)     NOT NULL,
    -- Names the step: what becomes of which table.
    step            text         NOT NULL,
    -- The statements as they were sent.
    statement       text         NOT NULL,
    -- additive: no data is lost; destructive: some is.
    class           varchar(16)  NOT NULL CHECK (class IN ('additive', 'destructive')),
    state           varchar(16)  NOT NULL CHECK (state IN ('started', 'done', 'failed')),
    started_at      timestamptz  NOT NULL DEFAULT now(),
    -- When it was done, or failed last.
    finished_at     timestamptz,
    -- What the database said when it failed last. It is tried again.
    error           text
);
-- One row a step until it is done: trying again goes on with it.
CREATE UNIQUE INDEX idx_series_ledger_open ON series_ledger (step) WHERE state <> 'done';
CREATE INDEX idx_series_ledger_step ON series_ledger (step, id DESC);
