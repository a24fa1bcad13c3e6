-- Places in limits. Runs as the owner, in the schema pointsman.

-- Attempts of steps with a limit for all engines that may go on though no row of executions says so any more: their runs were
-- told that they took too long, or wait for them no more. They count until the engine that makes them says that they are
-- over, or is gone itself.
create table step_places (
    holder bigint not null,
    execution bigint not null,
    pipeline int not null,
    step text collate "C" not null,
    limited_by text collate "C" not null,
    primary key (holder, execution)
);

grant select on step_places to pointsman_engine, pointsman_reader;
grant insert, delete on step_places to pointsman_engine;
