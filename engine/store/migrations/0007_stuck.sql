-- Steps that begin anew, and dead letters that are resolved. Runs as the owner, in the schema pointsman.

-- How many attempts were made before an operator had an execution begin anew; those after them count against its limit.
alter table executions add column since int not null default 0;

-- Of a step that has failed: an operator has said what it would have returned.
alter table dead_letters drop constraint dead_letters_status_check;
alter table dead_letters add constraint dead_letters_status_check
    check (status in ('open', 'redriven', 'dropped', 'resolved'));
