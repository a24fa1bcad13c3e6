-- name: owner
-- Whether this role may empty partitions of the log.
select pg_has_role(current_user, c.relowner, 'usage') as is_owner, current_user::text as role
from pg_class c where c.oid = 'pointsman.events'::regclass

-- name: months
-- The partitions of the log that end before a time, but for the two that an engine would make anew, and those that were
-- emptied; the oldest first.
select part.name, part.first, part.behind, to_timestamp((part.first >> 22) / 1000.0) as begins, part.bytes
from (
    select c.oid::regclass::text as name, bound[1]::bigint as first, bound[2]::bigint as behind,
        pg_total_relation_size(c.oid) as bytes
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    cross join lateral regexp_match(
        pg_get_expr(c.relpartbound, c.oid), 'FROM \(''?(\d+)''?\) TO \(''?(\d+)''?\)'
    ) as bound
    where i.inhparent = 'pointsman.events'::regclass
) part
where to_timestamp((part.behind >> 22) / 1000.0)
    <= least($1, (date_trunc('month', now() at time zone 'utc') - interval '1 month') at time zone 'utc')
    and not exists (select from pointsman.dropped_months d where d.first = part.first)
order by part.first

-- name: runs_of_month
select count(*) as runs,
    count(*) filter (
        where status < $4::smallint or held > 0 or waiting > 0 or wake_at is not null
            or exists (select from pointsman.executions e where e.run = r.id)
    ) as going,
    count(*) filter (where updated >= $3) as late,
    (select count(*) from pointsman.dead_letters where run >= $1 and run < $2 and status = 'open') as letters
from pointsman.runs r where id >= $1 and id < $2

-- name: note_month
insert into pointsman.dropped_months (first, behind, month, runs, before, who, why) values ($1, $2, $3, $4, $5, $6, $7)

-- name: note_notes
insert into pointsman.dropped_notes (before, rows, who, why) values ($1, $2, $3, $4)

-- name: drop_dispositions
with gone as (delete from pointsman.dispositions where at < $1 returning 1) select count(*) from gone

-- name: drop_ranges
with gone as (delete from pointsman.ignored_ranges where at < $1 returning 1) select count(*) from gone

-- name: drop_letters
-- Those that were dealt with; of runs whose rows are there a replay asks for them.
with gone as (
    delete from pointsman.dead_letters d
    where d.status <> 'open' and d.ended < $1 and d.publishing <> 'pending'
        and (d.run is null or exists (
            select from pointsman.dropped_months m where d.run >= m.first and d.run < m.behind
        ))
    returning 1
) select count(*) from gone

-- name: drop_operations
with gone as (
    delete from pointsman.operations o
    where o.at < $1
        and (o.run is null or exists (
            select from pointsman.dropped_months m where o.run >= m.first and o.run < m.behind
        ))
    returning 1
) select count(*) from gone

-- name: drop_ids
-- They are no notes: they go with the rows of their runs, and only not under the lock.
delete from pointsman.taken_ids i using pointsman.dropped_months m where i.run >= m.first and i.run < m.behind
