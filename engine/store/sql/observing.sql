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

-- name: other_definitions
-- Those of these pipelines ($2) that are not these, each by its pipeline, version, hash and code ($3 to $6), but for those
-- of which it is known that no open run follows them.
with loaded as (
    select * from unnest($3::text[], $4::int[], $5::bytea[], $6::bytea[]) as loaded (name, version, hash, code)
)
select d.id, d.loads, p.name, d.version,
    d.version in (select l.version from loaded l where l.name = p.name) as changed
from pointsman.pipelines p join pointsman.definitions d on d.pipeline = p.id
where p.namespace = $1 and p.name = any ($2::text[]) and not d.is_over and not exists (
    select from loaded l where l.name = p.name and l.version = d.version and l.hash = d.hash and l.code = d.code
)
order by p.name, d.version, d.id

-- name: count_open
-- How many open runs follow each of these definitions; so many at most are counted of each. Of one that none follows all runs
-- are looked at.
select o.id, open.runs
from unnest($1::int[]) as o (id) cross join lateral (
    select count(*) as runs from (
        select 1 from pointsman.runs r where r.definition = o.id and r.status = $2 limit $3
    ) as counted
) as open

-- name: note_over
-- That no open run follows these, unless an engine has loaded them since it was asked how often engines had.
update pointsman.definitions d set is_over = true
from unnest($1::int[], $2::int[]) as over (id, loads)
where d.id = over.id and d.loads = over.loads
