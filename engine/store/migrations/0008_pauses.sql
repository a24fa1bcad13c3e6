-- Pipelines that are paused. Runs as the owner, in the schema pointsman.

-- Each was paused by a command, of this number in the inbox. What comes for its runs is kept behind a hold of each, in a
-- transaction that holds the row here: so once the row is gone, no other run is held for it.
create table pauses (
    pipeline int primary key references pipelines,
    command bigint not null,
    who text not null,
    why text not null,
    at timestamptz not null
);

grant select on pauses to pointsman_engine, pointsman_reader;
grant insert, update, delete on pauses to pointsman_engine;
