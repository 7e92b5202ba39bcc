-- What the controllers did to the tables of projections: a row for each step of a migration plan. A transactional step
-- commits together with its row. One that cannot run in a transaction (CREATE INDEX CONCURRENTLY) has a row `started`
-- before; who comes after a crash looks at what is there, and goes on.
CREATE TABLE migration_ledger (
    id              bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The projection that the step is for; empty where an index was nobody's.
    projection_type varchar(255) NOT NULL,
    -- SHA-256 (hex) of the plan, of the steps that were outstanding when this one was begun.
    plan_hash       char(64)     NOT NULL,
    -- Names the step: what becomes of which thing.
    step            text         NOT NULL,
    -- The statement as it was sent; of a step that the handler takes, the statement that it runs.
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
CREATE UNIQUE INDEX idx_migration_ledger_open ON migration_ledger (step) WHERE state <> 'done';
CREATE INDEX idx_migration_ledger_step ON migration_ledger (step, id DESC);

-- The table projection_index is written no more. It stays for processes of the release before, which run beside those of
-- this one while an installation is upgraded.
