-- name: held_runs
select p.name, (select count(*) from pointsman.runs r where r.pipeline = p.id and r.held > 0)
from pointsman.pipelines p where p.namespace = $1
