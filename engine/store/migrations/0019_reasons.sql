-- Why the records of a range were ignored. Runs as the owner, in the schema pointsman.

-- Of those before, no pipeline knew the type: they were ignored for nothing else.
alter table ignored_ranges
    add column reason text not null default 'unknown type',
    drop constraint ignored_ranges_pkey,
    add primary key (position, first, reason);
alter table ignored_ranges alter column reason drop default;
