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
