-- name: of_begun
-- What whoever makes an attempt is given of its execution, in the order of BegunExecution. A step's input is the context
-- after the row that asked for it, whatever the run's is by now.
select b.id, b.pipeline, r.key, r.generation, b.run, r.definition, b.home, b.sequence, b.number, b.step, b.attempt,
    b.error,
    case when r.sequence = b.sequence then r.context else (
        select e.context from pointsman.events e
        where e.run = b.run and e.sequence <= b.sequence and e.context <> ''
        order by e.sequence desc limit 1
    ) end as input,
    b.of, b.stopping,
    case when b.made > 0 then (
        select e.payload from pointsman.events e where e.run = b.run and e.sequence = b.made
    ) end as made,
    b.since, b.token, b.progress, b.began

-- name: next_of_range
-- What others hold is passed over as it is read, so that it takes no place from what is behind it. Whether a run goes on is asked
-- so that Postgres does not begin with all that do, as it may where it knows little of runs.
cross join lateral (
    select e.id, e.again
    from pointsman.executions e
    where e.pipeline = r.pipeline and e.step = r.step and (e.limited_by is null) = r.are_none and e.home = r.home
        and e.again <= $4 and e.holder is null and e.token = '' and e.id not in (select unnest($6::text::bigint[]))
        and (
            select r.id from pointsman.runs r where r.id = e.run and r.definition = any ($7::int[]) and r.held = 0
        ) is not null
    order by e.again, e.id limit r.few for update skip locked
) next

-- name: next_of_value
-- The same of one value.
select e.id, e.again
from pointsman.executions e
where e.pipeline = f.pipeline and e.step = f.step and e.limited_by = f.value and e.home = home.number
    and e.again <= $6 and e.holder is null and e.token = '' and e.id not in (select unnest($8::bigint[]))
    and (
        select r.id from pointsman.runs r where r.id = e.run and r.definition = any ($9::int[]) and r.held = 0
    ) is not null
order by e.again, e.id limit f.many

-- name: waits_for_no_token
-- Those that are known to wait for their tokens are passed over until these are known.
(
    i.id not in (select unnest($6::bigint[]))
    or (select t.token from pointsman.tokens t where t.namespace = i.namespace and t.token = i.token) is not null
)
