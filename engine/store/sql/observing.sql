-- name: held_runs
-- How many runs of each pipeline are held, and how many of these by an operator who has paused them; and whether it is
-- paused itself.
select p.name, held.runs, held.paused, exists (select from pointsman.pauses s where s.pipeline = p.id)
from pointsman.pipelines p
cross join lateral (
    select count(*) as runs, count(*) filter (where exists (
        select from pointsman.events h where h.run = r.id and h.sequence = r.held and h.kind = $2::smallint
    )) as paused
    from pointsman.runs r where r.pipeline = p.id and r.held > 0
) as held
where p.namespace = $1

-- name: runs_of_other_versions
-- How many open runs of these pipelines ($2) follow other definitions than these, each by its pipeline, version, hash and
-- code ($3 to $6); so many at most are counted of each ($7). Runs are looked at only where there are other definitions.
with loaded as (
    select * from unnest($3::text[], $4::int[], $5::bytea[], $6::bytea[]) as loaded (name, version, hash, code)
), other as materialized (
    select d.id, p.name, d.version
    from pointsman.pipelines p join pointsman.definitions d on d.pipeline = p.id
    where p.namespace = $1 and p.name = any ($2::text[]) and not exists (
        select from loaded l where l.name = p.name and l.version = d.version and l.hash = d.hash and l.code = d.code
    )
)
select o.name, o.version, o.version in (select l.version from loaded l where l.name = o.name) as changed, open.runs
from other o cross join lateral (
    select count(*) as runs from (
        select 1 from pointsman.runs r where r.definition = o.id and r.status = $8 limit $7
    ) as counted
) as open
where open.runs > 0
order by o.name, o.version, o.id
