-- Steps that end later. Runs as the owner, in the schema pointsman.

-- What an attempt is completed by that goes on outside; empty where it does not. The time "again" is then until when it is
-- waited for, which is far away where nothing limits it: so who looks for what may begin passes over those that wait.
alter table executions add column token text collate "C" not null default '';

-- Tokens, and what they complete: how an execution is found by its token, and why one is not waited for any more. "waits"
-- says that its run still does; then no other one can have the token.
create table tokens (
    namespace text not null,
    token text collate "C" not null,
    pipeline int not null references pipelines,
    key text collate "C" not null,
    run bigint not null,
    sequence int not null,
    number int not null,
    step text collate "C" not null,
    attempt int not null,
    waits boolean not null,
    primary key (namespace, token)
);

grant select on tokens to pointsman_engine, pointsman_reader;
grant insert, update on tokens to pointsman_engine;
