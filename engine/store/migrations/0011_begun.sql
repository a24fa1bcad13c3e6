-- Attempts that begin with the commit that asks for them. Runs as the owner, in the schema pointsman.

-- Rows of executions come and go by the thousand, and pipelines are never deleted: to look for each whether its pipeline is
-- there took a third of the work with it. Their runs refer to the pipeline, too.
alter table executions drop constraint executions_pipeline_fkey;

-- What an engine has begun is found by who that is, which is how what is lost with one is found, too.
drop index executions_begun;
create index executions_begun on executions (holder, id) where holder is not null;
