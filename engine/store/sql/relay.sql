-- name: add_lane
insert into pointsman.lanes (namespace, shard) values ($1, $2)
on conflict (namespace, shard) do nothing

-- name: lane_of
select id from pointsman.lanes where namespace = $1 and shard = $2

-- name: put
-- The lock on the lane's row lasts until the commit: tickets are the order of commits, without gaps.
with taken as (
    update pointsman.lanes set ticket = ticket + 1 where id = $1::int returning ticket
), written as (
    insert into pointsman.outbox (lane, sequence, blob) select $1::int, ticket, $2::bytea from taken
    returning sequence
)
select sequence, pg_notify('pointsman_outbox', $1::int::text) from written

-- name: add_decision
insert into pointsman.relay_decisions (lane, progress, ticket, who, why) values ($1, $2, $3, $4, $5)

-- name: books
-- What the database knows of a lane, and the row of the number that Kafka's progress record has.
select s.id::text as store, l.ticket, l.deleted, o.blob,
    (select min(sequence) from pointsman.outbox where lane = l.id and sequence > $2::bigint) as next
from pointsman.lanes l
cross join pointsman.store s
left join pointsman.outbox o on o.lane = l.id and o.sequence = $2::bigint
where l.id = $1::int

-- name: next_rows
-- Whole rows until their bytes are enough, but at least one. The length of a blob is read without the blob.
select sequence, blob, (select ticket from pointsman.lanes where id = $1::int) as ticket
from (
    select sequence, blob, sum(octet_length(blob)) over (order by sequence) - octet_length(blob) as bytes_before
    from (
        select sequence, blob from pointsman.outbox
        where lane = $1::int and sequence > $2::bigint
        order by sequence
        limit $3::bigint
    ) as following
) as measured
where bytes_before < $4::bigint
order by sequence

-- name: refused
select sequence, index from pointsman.outbox_refusals where lane = $1 and sequence > $2

-- name: add_refusal
insert into pointsman.outbox_refusals (lane, sequence, index, error) values ($1, $2, $3, $4)
on conflict do nothing
returning index

-- name: dead_letter_not_published
update pointsman.dead_letters set publishing = 'refused', publishing_error = $2 where id = $1 returning reason

-- name: dead_letters_published
update pointsman.dead_letters set publishing = 'published'
where id = any ($1::bigint[]) and publishing = 'pending'

-- name: add_dead_letter
insert into pointsman.dead_letters (
    namespace, pipeline, key, event_id, type, disposition, reason, error, details,
    record_time, record_key, record_value, record_headers, publishing, publishing_error, at
) values (
    $1, (select id from pointsman.pipelines where namespace = $1 and name = $2), $3, $4, $5, $6, $7, $8, $9,
    $10, $11, $12, $13, 'refused', $8, clock_timestamp()
)

-- name: delete_rows
delete from pointsman.outbox where lane = $1 and sequence <= $2

-- name: move_deleted
update pointsman.lanes set deleted = $2 where id = $1 and deleted < $2

-- name: try_turn
select pg_try_advisory_lock($1, $2)

-- name: who_has_the_turn
-- Who holds the lock, and for how many seconds it has asked nothing; null where that is not ours to see.
select l.pid,
    extract(epoch from clock_timestamp() - greatest(a.query_start, a.state_change, a.backend_start))::float8
        as silent_seconds
from pg_locks l
left join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.objsubid = 2
    and l.database = (select oid from pg_database where datname = current_database())
    and l.classid::bigint = $1::int and l.objid::bigint = $2::int

-- name: end_turn
select pg_terminate_backend($1)
