-- Steps. Runs as the owner, in the schema pointsman.

-- Executions that runs wait for: how whoever serves their homes finds them, in order, without a look at the runs. What is
-- true of them is in the memory of their runs, and so in the log; verify compares the two. Only who has begun an attempt
-- is nowhere else: holder is the engine that has, or null where the next attempt waits for its turn, from again on.
create table executions (
    id bigint generated always as identity primary key,
    pipeline int not null references pipelines,
    home smallint not null,
    run bigint not null,
    sequence int not null,
    number int not null,
    step text collate "C" not null,
    attempt int not null,
    again timestamptz not null,
    error text not null,
    holder bigint,
    constraint executions_address unique (run, sequence, number)
);
create index executions_waiting on executions (pipeline, step, again, id) where holder is null;
create index executions_begun on executions (home) where holder is not null;

-- Engines that have begun attempts, and when they were heard of last; those of one that is silent are lost.
create table holders (
    id bigint primary key,
    namespace text not null,
    instance text,
    seen timestamptz not null
);

grant select on executions, holders to pointsman_engine, pointsman_reader;
grant insert, update, delete on executions, holders to pointsman_engine;
