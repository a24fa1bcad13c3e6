-- name: held_runs
-- How many runs of each pipeline are held, and how many of these by an operator who has paused them.
select p.name, held.runs, held.paused
from pointsman.pipelines p
cross join lateral (
    select count(*) as runs, count(*) filter (where exists (
        select from pointsman.events h where h.run = r.id and h.sequence = r.held and h.kind = $2::smallint
    )) as paused
    from pointsman.runs r where r.pipeline = p.id and r.held > 0
) as held
where p.namespace = $1
