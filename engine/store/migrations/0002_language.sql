-- Time, deferral and events between runs. Runs as the owner, in the schema pointsman.

-- What a run keeps beside configuration and context: what falls due later, how far ordered events have come. Empty in the
-- log: unchanged.
alter table runs add column memory bytea not null default '';
alter table events add column memory bytea not null default '';

-- Which partition of the topic of homes serves a run: the same number on every server, for ever.
create function home_of(key text) returns smallint
language sql immutable strict parallel safe
as $$ select (('x' || substr(md5(key), 1, 4))::bit(16)::int % 16)::smallint $$;

-- Only runs for which something falls due are in it, so that those for which nothing does cost nothing. Whoever serves a
-- pipeline and a home finds theirs side by side, in the order in which they fall due.
drop index runs_wake_at;
create index runs_due on runs (pipeline, home_of(key), wake_at) where wake_at is not null and held = 0;

-- Until when a deferred event waits; null: it waits behind what holds its run.
alter table waiting add column until timestamptz;

-- Events between runs are taken by whoever holds the home of the run that they are for.
alter table inbox add column home smallint;

-- Kafka's time of the last record that was applied, in milliseconds since 1970.
alter table positions add column record_time bigint not null default 0;

grant execute on function home_of(text) to pointsman_engine, pointsman_reader;

-- What a run takes by itself has no position, and may still keep an engine busy for ever.
alter table strikes drop constraint strikes_position_fkey;
