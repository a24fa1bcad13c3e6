-- Retention of the log. Runs as the owner, in the schema pointsman.

-- Months of the log that were dropped: the rows of the runs whose numbers are from "first" on and below "behind". Their runs
-- had all ended, and are in runs as they were then.
create table dropped_months (
    first bigint primary key,
    behind bigint not null,
    month date not null,
    runs bigint not null,
    before timestamptz not null,
    who text not null,
    why text not null,
    at timestamptz not null default now()
);

-- How often what was noted beside the log was dropped, where it was older than "before".
create table dropped_notes (
    id int generated always as identity primary key,
    before timestamptz not null,
    rows bigint not null,
    who text not null,
    why text not null,
    at timestamptz not null default now()
);

grant select on dropped_months, dropped_notes to pointsman_engine, pointsman_reader;
