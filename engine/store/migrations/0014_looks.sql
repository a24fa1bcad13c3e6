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
