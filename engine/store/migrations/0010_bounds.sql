-- What bounds steps. Runs as the owner, in the schema pointsman.

-- When the first attempt began: all of them together may have a time. And how far an attempt had come, as it said last, for
-- the one behind it. Neither is in the log, nor does it change what is.
alter table executions
    add column began timestamptz,
    add column progress bytea;

-- Of which there is something to be told without an attempt: their states were left, or their time is over.
create index executions_untried on executions (pipeline, step, began)
    where holder is null and (stopping or began is not null);
-- And of what goes on outside, once it has taken too long: it does not begin.
create index executions_outside on executions (pipeline, step, again) where holder is null and token <> '';
drop index executions_waiting;
create index executions_waiting on executions (pipeline, step, again, id) where holder is null and token = '';

-- How the breakers of an engine are, as JSON, as it said last; empty where it has none.
alter table holders add column breakers bytea not null default '';

-- Of a step with a limit for all engines: which of its limits counts, by the value of a field of the context; null where
-- there was none when it was asked for.
alter table executions add column limited_by text collate "C";
create index executions_limited on executions (pipeline, step, limited_by, again, id)
    where holder is null and token = '' and limited_by is not null;
create index executions_limited_begun on executions (pipeline, step, limited_by)
    where holder is not null and limited_by is not null;

-- How often attempts begin that are limited by rate: when the next of a value would, if each kept its distance.
create table step_rates (
    pipeline int not null references pipelines,
    step text collate "C" not null,
    limited_by text collate "C" not null,
    next timestamptz not null,
    primary key (pipeline, step, limited_by)
);

grant select on step_rates to pointsman_engine, pointsman_reader;
grant insert, update, delete on step_rates to pointsman_engine;
