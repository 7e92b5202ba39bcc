-- An event that the bus refused and takes now comes behind later ones.
ALTER TABLE outbox
    -- True: it is published after events of higher positions, and readers of the bus are told so.
    ADD COLUMN late boolean NOT NULL DEFAULT false;
