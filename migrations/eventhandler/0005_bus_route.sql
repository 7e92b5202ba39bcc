-- Kafka: how the events of each type are routed. Two topics give no order between them: when a type comes, or may have
-- come, by another, its projections read the event store until it has come by one only for a while.
CREATE TABLE bus_route (
    consumer_group varchar(255) NOT NULL,
    event_type     varchar(255) NOT NULL,
    -- The topic by which an event of the type came last; null before the first.
    topic          varchar(249),
    -- What was registered about its routing when the handler looked last; null where the type is not registered.
    registered     text,
    PRIMARY KEY (consumer_group, event_type)
);
ALTER TABLE projection_progress
    -- A projection that catches up is not handed back to the bus before this time.
    ADD COLUMN hand_over_from timestamptz;
