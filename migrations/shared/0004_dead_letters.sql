-- Dead letters are worked through: looked at, replayed through the consumer that failed, or discarded.
ALTER TABLE dlq
    -- Of the event. Computed, so that letters written by processes of the release before have it too.
    ADD COLUMN event_type          text        GENERATED ALWAYS AS (left(event_payload->>'event_type', 255)) STORED,
    ADD COLUMN aggregate_id        text        GENERATED ALWAYS AS (left(event_payload->>'aggregate_id', 255)) STORED,
    -- Letters of one lane (of a consumer's part) are replayed in their order: the aggregate, or the topic of a message
    -- that became no event.
    ADD COLUMN lane                text        GENERATED ALWAYS AS
        (left(coalesce(event_payload->>'aggregate_id', event_payload->>'topic', ''), 255)) STORED,
    -- The event's place in the event store, where it was there when it failed and the consumer knew it.
    ADD COLUMN shard               smallint,
    ADD COLUMN position            bigint,
    -- Hash of the definition (of the projection, of the action) that failed.
    ADD COLUMN definition          char(64),
    -- When a replay was asked for. A replay that fails takes it back.
    ADD COLUMN replay_requested_at timestamptz,
    -- Where the event can no longer be put in its place, it may be applied last.
    ADD COLUMN replay_append       boolean     NOT NULL DEFAULT false,
    -- When it was replayed or discarded.
    ADD COLUMN resolved_at         timestamptz,
    -- Why it was discarded; of a pending letter, why a replay that was asked for was not tried; of a replayed one, what
    -- there is to say about how.
    ADD COLUMN reason              text;
-- Pages of letters, by what people ask for.
CREATE INDEX idx_dlq_consumer_status ON dlq (consumer, status, dlq_id);
CREATE INDEX idx_dlq_event_id ON dlq (event_id);
CREATE INDEX idx_dlq_event_type ON dlq (event_type, dlq_id);
CREATE INDEX idx_dlq_aggregate_id ON dlq (aggregate_id, dlq_id);
-- Counting them.
CREATE INDEX idx_dlq_consumer_subject ON dlq (consumer, subject, status);
-- What a consumer is to replay next, and the rest of a lane of which a letter failed.
CREATE INDEX idx_dlq_replay ON dlq (consumer, subject, position NULLS FIRST, dlq_id)
    WHERE status = 'pending' AND replay_requested_at IS NOT NULL;
CREATE INDEX idx_dlq_replay_lane ON dlq (consumer, lane) WHERE status = 'pending' AND replay_requested_at IS NOT NULL;
