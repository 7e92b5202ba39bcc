-- A broker does not say who made a topic. In the handler's database, this does.
ALTER TABLE registration
    -- True for a Topic whose topic the platform made, or took over as spec.adoptionPolicy allows: recorded before anything
    -- is written to the broker. A resource that is removed and made anew begins without.
    ADD COLUMN topic_claimed boolean NOT NULL DEFAULT false;
