-- Where the two flows meet: controllers write what is wanted, data-plane roles load it and acknowledge it.
-- Applied once to every service's database (with one database for all services, once).

-- What the data plane is to run, in compiled form: schemas resolved, routing decided, expressions checked.
CREATE TABLE registration (
    -- One platform instance per namespace; `default` where there is no cluster.
    namespace   varchar(63)  NOT NULL,
    -- EventType, Topic, Projection or WebhookAction.
    kind        varchar(63)  NOT NULL,
    -- metadata.name of the resource.
    name        varchar(253) NOT NULL,
    -- metadata.generation of the resource that this row was compiled from.
    generation  bigint       NOT NULL,
    -- SHA-256 (hex) of `spec`: equal hashes run equally.
    hash        char(64)     NOT NULL,
    -- The compiled form (`crds::registration::Compiled`).
    spec        jsonb        NOT NULL,
    -- A removed registration stays as a tombstone, so that an instance that was away learns of it.
    state       varchar(16)  NOT NULL CHECK (state IN ('active', 'removed')),
    -- When the controllers last changed this row.
    updated_at  timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, kind, name)
);

-- Which live instances exist, of which role. An instance younger than 15 s by this clock counts as live.
CREATE TABLE instance (
    -- Identifies one process for its life (UUID v7).
    instance     uuid         NOT NULL,
    -- ingest, relay, handle, query or act; one process may have several.
    role         varchar(16)  NOT NULL,
    -- Host name and process id, for people.
    host         varchar(255) NOT NULL,
    -- Release of the binary.
    version      varchar(64)  NOT NULL,
    started_at   timestamptz  NOT NULL DEFAULT now(),
    -- Renewed every 5 s.
    heartbeat_at timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (instance, role)
);

-- What each instance runs: the hash it loaded, or why it could not.
CREATE TABLE registration_ack (
    instance   uuid         NOT NULL,
    role       varchar(16)  NOT NULL,
    namespace  varchar(63)  NOT NULL,
    kind       varchar(63)  NOT NULL,
    name       varchar(253) NOT NULL,
    -- Hash of the registration that this acknowledgement is about.
    hash       char(64)     NOT NULL,
    -- Null when it runs; else why it does not.
    error      text,
    acked_at   timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (instance, role, namespace, kind, name),
    FOREIGN KEY (instance, role) REFERENCES instance (instance, role) ON DELETE CASCADE
);

-- The status of each resource where there is no cluster to keep it (`cornjacket get` reads this).
CREATE TABLE resource_status (
    namespace  varchar(63)  NOT NULL,
    kind       varchar(63)  NOT NULL,
    name       varchar(253) NOT NULL,
    -- The status document as it would stand under `.status` in Kubernetes.
    status     jsonb        NOT NULL,
    -- Where the resource was read from: a path within the directory, and the line.
    origin     text         NOT NULL,
    -- Rises whenever the text of the spec changes, as metadata.generation does in a cluster.
    generation bigint       NOT NULL,
    -- SHA-256 (hex) of that text, to notice a change across restarts.
    spec_hash  char(64)     NOT NULL,
    -- When the resource was first seen.
    created_at timestamptz  NOT NULL DEFAULT now(),
    updated_at timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, kind, name)
);

-- Dead letters: events that a consumer gave up on, kept with the cause.
CREATE TABLE dlq (
    -- UUID v7.
    dlq_id        uuid         NOT NULL PRIMARY KEY,
    -- Which consumer failed: event-handler, relay, mqtt-ingress, actions, ai-inference.
    consumer      varchar(63)  NOT NULL,
    -- The event's id; null where what failed had none.
    event_id      uuid,
    -- The full event, for replay.
    event_payload jsonb        NOT NULL,
    -- Why it failed.
    error_message text         NOT NULL,
    failed_at     timestamptz  NOT NULL DEFAULT now(),
    -- How many retries were attempted before it was put here.
    retry_count   integer      NOT NULL DEFAULT 0,
    status        varchar(16)  NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'replayed', 'discarded')),
    -- Which part of the consumer failed (event-handler: the projection type); null where it has one part.
    subject       varchar(255)
);
CREATE INDEX idx_dlq_consumer ON dlq (consumer);
CREATE INDEX idx_dlq_status ON dlq (status);
CREATE INDEX idx_dlq_failed_at ON dlq (failed_at);
-- One letter per consumer, part and event: a batch that is run again does not write it twice.
CREATE UNIQUE INDEX idx_dlq_once ON dlq (consumer, event_id, subject) NULLS NOT DISTINCT WHERE event_id IS NOT NULL;
