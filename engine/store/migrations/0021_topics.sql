-- Which topic positions are of. Runs as the owner, in the schema pointsman.

-- Kafka's id of it; empty as long as nobody has heard that. Another topic of the same name has other records at the same offsets.
alter table positions add column topic_id text not null default '';
