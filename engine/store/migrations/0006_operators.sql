-- What operators ask of runs. Runs as the owner, in the schema pointsman.

-- What became of each of their commands, written in the transaction of what it caused. What it did to a run is in the run's
-- log as well, with who asked for it and why; here is also what was not done, and why not. "command" is the number that it
-- had in the inbox, "at" when it was taken up.
create table operations (
    command bigint primary key,
    pipeline int not null references pipelines,
    key text collate "C" not null,
    what text not null,
    event_id text collate "C",
    run bigint,
    done boolean not null,
    answer text not null,
    who text not null,
    why text not null,
    asked timestamptz not null,
    at timestamptz not null
);
create index operations_event on operations (event_id) where event_id is not null;
create index operations_run on operations (run) where run is not null;

-- What was offered instead of a dead letter's record, where an operator changed its data; the record stays what it was.
alter table dead_letters add column edited bytea;

grant select on operations to pointsman_engine, pointsman_reader;
grant insert on operations to pointsman_engine;
