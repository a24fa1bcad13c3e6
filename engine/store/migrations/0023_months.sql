-- Fewer months of the log ahead. Runs as the owner, in the schema pointsman.

-- The partitions of the log from what ended two days ago to a month ahead, at least. The engine may call it and not make tables
-- itself. Each that is there takes room, and time of each question that is for all of them. A partition that is made first and
-- then attached keeps nobody from reading, nor waits for who does, as a dump may for hours.
create or replace function ensure_partitions() returns int
language plpgsql security definer set search_path = pointsman, pg_temp
as $$
declare
    month date;
    part text;
    made int := 0;
begin
    perform pg_advisory_xact_lock(hashtext('pointsman.ensure_partitions'));
    for month in
        select generate_series(
            date_trunc('month', (now() - interval '2 days') at time zone 'utc'),
            (now() + interval '32 days') at time zone 'utc',
            interval '1 month'
        )
    loop
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

select ensure_partitions();
