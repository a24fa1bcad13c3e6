-- What waits is passed over. Runs as the owner, in the schema pointsman.

-- What may be taken out of the inbox is read from the beginnings of ranges, however much waits for something in front of it.
create index inbox_next on inbox (pipeline, coalesce(home, -1), id) where token is null;
create index inbox_with_token on inbox (pipeline, id) where token is not null;
create index inbox_pausing on inbox (pipeline, id) where command in ('pause_pipeline', 'resume_pipeline');
create index inbox_of_all on inbox (namespace, id) where pipeline is null;

-- Dead letters of a run's key, of a pipeline, or for a reason, however many others there are.
create index dead_letters_key on dead_letters (key, id) where key is not null;
create index dead_letters_pipeline on dead_letters (pipeline, id);
create index dead_letters_reason on dead_letters (reason, id);

-- Runs that are held in the order in which they are listed, however many others there are. Whether they are held is what an
-- index tells already, so that this costs nothing where it does not change.
create index runs_held_started on runs (started, id) where held > 0;

-- Whether it is known that no open run follows a definition, as no engine has loaded it since that was seen: who asks which
-- versions open runs follow looks at all runs for each of the others. And how often engines have loaded it, which ends that.
alter table definitions
    add column loads int not null default 0,
    add column is_over boolean not null default false;
grant update (loads, is_over) on definitions to pointsman_engine;
