-- A topic has at least as many partitions as the group has read: the highest number says it.
ALTER TABLE bus_offset DROP COLUMN partition_count;
