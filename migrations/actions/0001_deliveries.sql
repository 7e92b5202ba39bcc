-- Webhook deliveries: made of events, carried out, and kept for a while with what was answered.

-- How far the consumer group `actions` has come in each shard of the event store.
CREATE TABLE action_cursor (
    consumer_group varchar(255) NOT NULL,
    shard          smallint     NOT NULL CHECK (shard BETWEEN 0 AND 63),
    -- The last position of which deliveries were made.
    position       bigint       NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer_group, shard)
) WITH (fillfactor = 10);

-- What is known of each action's endpoint.
CREATE TABLE action_config (
    -- metadata.name of the WebhookAction.
    action      varchar(253) NOT NULL PRIMARY KEY,
    -- Where to: what is known below is about this endpoint. Null until the action is loaded.
    url         text,
    -- Events accepted before this are not delivered: when the action was first loaded.
    since       timestamptz  NOT NULL DEFAULT now(),
    -- disabled: nothing is delivered until it is enabled; deliveries wait.
    state       varchar(16)  NOT NULL DEFAULT 'enabled' CHECK (state IN ('enabled', 'disabled')),
    -- Why it is disabled, for people.
    reason      text,
    -- Whether it is disabled because it answered 410.
    gone        boolean      NOT NULL DEFAULT false,
    -- Since when it is in this state.
    changed_at  timestamptz  NOT NULL DEFAULT now(),
    -- Whether the endpoint takes deliveries: false while its breaker is open; null before the first attempt.
    healthy     boolean,
    -- Why it does not, for people.
    message     text,
    -- Since when that is so.
    health_at   timestamptz
);

-- One delivery per action and event.
CREATE TABLE delivery (
    -- UUID v7; the header webhook-id, the same for every attempt.
    delivery_id     uuid         NOT NULL PRIMARY KEY,
    -- metadata.name of the WebhookAction.
    action          varchar(253) NOT NULL,
    -- The event that it is about.
    event_id        uuid         NOT NULL,
    event_type      varchar(255) NOT NULL,
    aggregate_id    varchar(255) NOT NULL,
    -- The event's place in the event store: the order within an aggregate.
    shard           smallint     NOT NULL,
    position        bigint       NOT NULL,
    -- What is sent: the same for every attempt. Null where nothing is to be sent.
    body            text,
    -- W3C trace context of the request that brought the event.
    traceparent     varchar(255),
    -- pending: waits for its (next) attempt, or is under way. delivered: answered with 2xx. failed: given up. suppressed: a
    -- duplicate within the window. expired: waited too long, or behind too many. cancelled: its action was removed.
    status          varchar(16)  NOT NULL CHECK (status IN ('pending', 'delivered', 'failed', 'suppressed', 'expired', 'cancelled')),
    -- Attempts so far.
    attempts        integer      NOT NULL DEFAULT 0,
    -- Attempts after which it is given up; null: as the action says. A retry that was asked for grants it more.
    max_attempts    integer,
    -- When the next attempt may be made.
    next_attempt_at timestamptz  NOT NULL DEFAULT now(),
    -- The process that makes an attempt now, and when others may take it for dead.
    claimed_by      uuid,
    -- Tells this claim from others of the same process.
    claim_id        uuid,
    claimed_until   timestamptz,
    -- Why it is not delivered (yet), for people.
    message         text,
    created_at      timestamptz  NOT NULL DEFAULT now(),
    -- Since when it waits: since it was made, or since a retry was asked for.
    waiting_since   timestamptz  NOT NULL DEFAULT now(),
    -- When it was delivered or given up.
    finished_at     timestamptz,
    CONSTRAINT delivery_once UNIQUE (action, event_id)
);
-- What is due, of each action.
CREATE INDEX idx_delivery_due ON delivery (action, next_attempt_at) WHERE status = 'pending' AND claimed_by IS NULL;
-- What stands before a delivery of the same aggregate; and what waits, oldest first.
CREATE INDEX idx_delivery_aggregate ON delivery (action, aggregate_id, position) WHERE status = 'pending';
CREATE INDEX idx_delivery_waiting ON delivery (action, waiting_since, delivery_id) WHERE status = 'pending';
-- What a process that died had under way.
CREATE INDEX idx_delivery_claimed ON delivery (claimed_by) WHERE claimed_by IS NOT NULL;
-- Lists, newest first.
CREATE INDEX idx_delivery_event ON delivery (event_id);
CREATE INDEX idx_delivery_of_aggregate ON delivery (aggregate_id, delivery_id);
CREATE INDEX idx_delivery_action ON delivery (action, delivery_id);
CREATE INDEX idx_delivery_status ON delivery (action, status, delivery_id);
-- What is old enough to be forgotten.
CREATE INDEX idx_delivery_finished ON delivery (finished_at) WHERE finished_at IS NOT NULL;

-- Each attempt of a delivery.
CREATE TABLE delivery_attempt (
    delivery_id  uuid         NOT NULL REFERENCES delivery (delivery_id) ON DELETE CASCADE,
    -- 1, 2, 3, …
    number       integer      NOT NULL,
    started_at   timestamptz  NOT NULL,
    -- From the start to the end of the answer, or to the failure, in milliseconds.
    duration_ms  integer      NOT NULL,
    -- Status of the answer; null where there was none.
    status       smallint,
    -- Why it failed; null where it did not.
    error        text,
    -- The first bytes of the answer's body, as text.
    answer       text,
    PRIMARY KEY (delivery_id, number)
);
