-- Time series: typed tables, made for each projection of the kind `timeSeries` by the controllers.

-- How far their writer has come in each shard of the event store.
CREATE TABLE series_cursor (
    -- The consumer group, with the series that it stands for.
    consumer_group varchar(255) NOT NULL,
    shard          smallint     NOT NULL CHECK (shard BETWEEN 0 AND 63),
    -- The last position written.
    position       bigint       NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer_group, shard)
) WITH (fillfactor = 10);
