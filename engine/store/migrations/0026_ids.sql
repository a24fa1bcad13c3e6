-- A finer index of the log by the ids of events. Runs as the owner, in the schema pointsman.

-- What Postgres keeps of 128 pages fills more than half of one, so that each takes one for itself; of 64 pages, three share
-- one. It is smaller by a third, and who looks for an event reads half as much of the log. What a partitioned index is made
-- with cannot be changed, so that of each month is made anew while the month is empty. One that has rows keeps its own: to
-- make that anew would read the whole month.
create or replace function ensure_partitions() returns int
language plpgsql security definer set search_path = pointsman, pg_temp
as $$
declare
    month date;
    part text;
    ids regclass;
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
            select i.indexrelid::regclass into strict ids
            from pg_index i
            join pg_class c on c.oid = i.indexrelid
            join pg_am m on m.oid = c.relam
            join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
            where i.indrelid = part::regclass and m.amname = 'brin' and a.attname = 'event_id';
            execute format('alter index %s set (pages_per_range = 64)', ids);
            execute format('reindex index %s', ids);
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

do $$
declare
    ids regclass;
    part regclass;
    has_rows boolean;
begin
    for ids, part in
        select h.inhrelid::regclass, i.indrelid::regclass
        from pg_inherits h join pg_index i on i.indexrelid = h.inhrelid
        where h.inhparent = 'pointsman.events_event_id'::regclass
    loop
        execute format('select exists (select from %s)', part) into has_rows;
        if not has_rows then
            execute format('alter index %s set (pages_per_range = 64)', ids);
            execute format('reindex index %s', ids);
        end if;
    end loop;
end;
$$;
