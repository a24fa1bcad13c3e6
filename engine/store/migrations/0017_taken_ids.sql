-- Source and id of what is known by a business key. Runs as the owner, in the schema pointsman.

-- Events whose rows have the digest of a business key, by that of their source and id: they are duplicates by either. Events
-- that are known by source and id alone have it in the log.
create table taken_ids (
    run bigint not null,
    digest bigint not null,
    primary key (run, digest)
);

-- The same of events that wait; null: "digest" is that.
alter table waiting add column id_digest bigint;

grant select on taken_ids to pointsman_engine, pointsman_reader;
grant insert on taken_ids to pointsman_engine;
