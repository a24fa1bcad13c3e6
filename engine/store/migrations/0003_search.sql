-- Search attributes: an index of the contexts of runs, made from them alone, with rows of those runs only that have some.

-- Apart from runs, whose updates stay in their page and touch no index because none of their indexed columns changes. The
-- index keeps hashes of name and value, so that the length of a value is no matter to it.
create table run_attributes (
    run bigint primary key,
    attributes jsonb not null check (attributes <> '{}')
);
create index run_attributes_values on run_attributes using gin (attributes jsonb_path_ops);

grant select on run_attributes to pointsman_engine, pointsman_reader;
grant insert, update, delete on run_attributes to pointsman_engine;
