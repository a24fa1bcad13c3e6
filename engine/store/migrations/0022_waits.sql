-- What waits is passed over. Runs as the owner, in the schema pointsman.

-- What may be taken out of the inbox is read from the beginnings of ranges, however much waits for something in front of it.
create index inbox_next on inbox (pipeline, coalesce(home, -1), id) where token is null;
create index inbox_with_token on inbox (pipeline, id) where token is not null;
create index inbox_pausing on inbox (pipeline, id) where command in ('pause_pipeline', 'resume_pipeline');
create index inbox_of_all on inbox (namespace, id) where pipeline is null;
