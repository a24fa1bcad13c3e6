-- What looks find. Runs as the owner, in the schema pointsman.

-- The token of a command that completes a step, for who asks what has taken too long. It is not looked for in the body, which
-- has data of users there: JSON may have a NUL that no text of Postgres can have. So it is cut out here, too.
alter table inbox add column token text collate "C";
update inbox
set token = substring(
    convert_from(body, 'UTF8') from '^\{"key":"(?:[^"\\]|\\.)*","token":("(?:[^"\\]|\\.)*"),"execution":'
)::json #>> '{}'
where command in ('complete', 'fail');
drop index inbox_completions;
create index inbox_completions on inbox (pipeline, token) where token is not null;

-- Of executions that wait, engines look for those of their homes: of each home they are a range, so that nobody reads what waits
-- for others. So are those without a value that a limit counts, which a limit is to be given.
drop index executions_waiting;
create index executions_waiting on executions (pipeline, step, (limited_by is null), home, again, id)
    where holder is null and token = '';
drop index executions_limited;
create index executions_limited on executions (pipeline, step, limited_by, home, again, id)
    where holder is null and token = '' and limited_by is not null;
drop index executions_outside;
create index executions_outside on executions (pipeline, step, home, again) where holder is null and token <> '';
-- Those whose states were left, and those that were tried before, by when their time began.
drop index executions_untried;
create index executions_untried on executions (pipeline, step, stopping, home, began)
    where holder is null and (stopping or began is not null);
