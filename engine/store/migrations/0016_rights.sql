-- What engines may where the owner of the database has taken from everybody what everybody may elsewhere; and partitions of the
-- log that are made beside those who read it. Runs as the owner, in the schema pointsman.

-- The changes of a commit are in a temporary table first.
do $$
begin
    execute format('grant temporary on database %I to pointsman_engine', current_database());
exception when insufficient_privilege then
    -- It is somebody else's database. An engine that may make none says so, and what to do.
    null;
end;
$$;

grant execute on function expect(bigint, bigint, text), home_of(text) to pointsman_engine, pointsman_reader;

-- The partitions of the log for this month, the one before and the two that follow. The engine may call it and not make tables
-- itself. A partition that is made first and then attached keeps nobody from reading, nor waits for who does, as a dump may for hours.
create or replace function ensure_partitions() returns int
language plpgsql security definer set search_path = pointsman, pg_temp
as $$
declare
    month date;
    part text;
    made int := 0;
begin
    perform pg_advisory_xact_lock(hashtext('pointsman.ensure_partitions'));
    for step in -1..2 loop
        month := (date_trunc('month', now() at time zone 'utc') + make_interval(months => step))::date;
        part := format('pointsman.events_%s', to_char(month, 'YYYYMM'));
        if to_regclass(part) is null then
            execute format('create table %s (like pointsman.events including all)', part);
            execute format(
                'alter table pointsman.events attach partition %s for values from (%s) to (%s)',
                part,
                (extract(epoch from month::timestamp at time zone 'utc') * 1000)::bigint << 22,
                (extract(epoch from (month + interval '1 month') at time zone 'utc') * 1000)::bigint << 22
            );
            made := made + 1;
        end if;
    end loop;
    return made;
end;
$$;
