-- Compensation. Runs as the owner, in the schema pointsman.

-- Of a compensation: the execution that it undoes, and the row of the log that has what that returned (0: not known). Of a
-- step whose state was left: that the run waits to hear what became of it.
alter table executions
    add column of text collate "C" not null default '',
    add column made int not null default 0,
    add column stopping boolean not null default false;
