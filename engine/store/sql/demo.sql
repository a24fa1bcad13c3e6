-- name: rows_so_far
-- Of a few hundred rows; a log of any size is not read like this.
select e.run, e.sequence, e.kind, e.at, coalesce(e.position, 0) > 0 as consumed, e.type, e.event_id, e.configuration,
    r.key
from pointsman.events e join pointsman.runs r on r.id = e.run join pointsman.pipelines p on p.id = r.pipeline
where p.namespace = $1 order by e.at, e.run, e.sequence

-- name: letters_so_far
select id, key, reason, error, at from pointsman.dead_letters where namespace = $1 order by id

-- name: noted_so_far
select d.id, d.key, d.event_id, d.type, d.reason, d.disposition, d.position is not null as consumed, d.at
from pointsman.dispositions d join pointsman.pipelines p on p.id = d.pipeline where p.namespace = $1 order by d.id

-- name: progress
-- How many partitions somebody reads, how many records of them are done with, and how many attempts are to come.
select (select count(*) from pointsman.positions where namespace = $1 and topic = $2 and epoch > 0) as taken,
    (select coalesce(sum(position), 0) from pointsman.positions where namespace = $1 and topic = $2)::bigint as applied,
    (select count(*) from pointsman.executions) as going
