-- A row can be folded anew from the event store only by who knows where its projection began.
ALTER TABLE projection_progress
    -- Events at or below these positions (by shard) are in no row, since the projection began after them (startFrom:
    -- Latest). Null: it began at the first event. Empty: where it began was not noted.
    ADD COLUMN begins_after bigint[];
UPDATE projection_progress SET begins_after = '{}' WHERE live_spec->>'startFrom' = 'Latest';
