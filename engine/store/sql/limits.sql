-- name: waiting_values
-- The values that a step is limited by and of which something waits, behind one of them: a loose look through the index,
-- which takes one step for each value, however much waits of it. What goes on outside waits for no limit.
with recursive found (value, number) as (
    select min(e.limited_by), 1 from pointsman.executions e
    where e.pipeline = $1 and e.step = $2 and e.holder is null and e.token = '' and e.limited_by is not null
        and ($3::text is null or e.limited_by > $3::text)
    union all
    select (
        select min(e.limited_by) from pointsman.executions e
        where e.pipeline = $1 and e.step = $2 and e.holder is null and e.token = '' and e.limited_by > f.value
    ), f.number + 1
    from found f where f.value is not null and f.number < $4
)
select value from found where value is not null order by value

-- name: take_limits
select bool_and(pg_try_advisory_xact_lock(hashtext('pointsman.limits'), pipeline)) from unnest($1::int[]) as pipeline

-- name: values_going
-- How many attempts go on of each value; there are never more than engines make at once. Of held runs, and of those that no
-- row tells of, only those of engines that were heard of lately: none is taken for lost there, and it would count for as long
-- as the hold lasts, or for ever.
with there as (
    select id from pointsman.holders where seen >= clock_timestamp() - make_interval(secs => $3)
)
select limited_by, count(*) from (
    select e.limited_by from pointsman.executions e join pointsman.runs r on r.id = e.run
    where e.pipeline = $1 and e.step = $2 and e.holder is not null and e.limited_by is not null
        and (r.held = 0 or e.holder in (select id from there))
    union all
    select p.limited_by from pointsman.step_places p
    where p.pipeline = $1 and p.step = $2 and p.holder in (select id from there)
) going
group by limited_by

-- name: rates_of
select limited_by, next from pointsman.step_rates where pipeline = $1 and step = $2 and limited_by = any ($3::text[])

-- name: note_rates
insert into pointsman.step_rates (pipeline, step, limited_by, next)
select * from unnest($1::int[], $2::text[], $3::text[], $4::timestamptz[])
on conflict (pipeline, step, limited_by) do update set next = excluded.next

-- name: begin_limited
-- Of each value the next in order, so many as its limit leaves; and of all of them of a step, so many as there is room for.
-- They are chosen before any is locked: where many values wait for little room, all others are only read. Of a value of which
-- somebody else holds one that was chosen, they are chosen once more as they are locked: what others hold is passed over, so
-- that it takes no place from what is behind it.
with free as (
    select * from unnest($1::int[], $2::text[], $3::int[], $4::text[], $5::int[])
        as free (pipeline, step, room, value, many)
), found as (
    select f.pipeline, f.step, f.room, f.value, next.id, next.again
    from free f cross join lateral (
        select waits.id, waits.again
        from unnest($7::smallint[]) as home (number) cross join lateral (
            -- shared: next_of_value
        ) waits
        order by waits.again, waits.id limit f.many
    ) next
), chosen as (
    select pipeline, step, value, id from (
        select f.*, row_number() over (partition by f.pipeline, f.step order by f.again, f.id) as place from found f
    ) f
    where f.place <= f.room
), locked as (
    -- By their numbers: no index of what waits has what is said of the token like this.
    select e.id from pointsman.executions e
    where e.id in (select id from chosen) and e.again <= $6 and e.holder is null and octet_length(e.token) = 0
    for update skip locked
), tried as (
    select c.*, count(*) over of_value as many, bool_and(c.id in (select id from locked)) over of_value as are_locked
    from chosen c window of_value as (partition by c.pipeline, c.step, c.value)
), behind as (
    select next.id
    from (select distinct pipeline, step, value, many from tried where not are_locked) f cross join lateral (
        select waits.id, waits.again
        from unnest($7::smallint[]) as home (number) cross join lateral (
            -- shared: next_of_value
            for update skip locked
        ) waits
        order by waits.again, waits.id limit f.many
    ) next
), next as (
    select id from tried where are_locked union all select id from behind
), begun as (
    update pointsman.executions e set holder = $10, began = coalesce(e.began, $6)
    from next where e.id = next.id returning e.*
)
-- shared: of_begun
    , b.limited_by
from begun b join pointsman.runs r on r.id = b.run
order by b.again, b.id

-- name: limit_waiting
-- What was asked for by who knew of no limit: a range of the index. What a commit works on has its turn the next time.
update pointsman.executions set limited_by = ''
where id in (
    select e.id from unnest($1::int[], $2::text[]) as wanted (pipeline, step) cross join lateral (
        select e.id from pointsman.executions e
        where e.pipeline = wanted.pipeline and e.step = wanted.step and (e.limited_by is null) = true
            and e.holder is null and e.token = ''
        for update skip locked
    ) e
)

-- name: give_up_places
-- Of attempts that no row tells of, those that go on here no more. Others may wait for their places.
with gone as (
    delete from pointsman.step_places
    where holder = $1 and execution not in (select unnest($2::bigint[])) returning execution
)
select pg_notify('pointsman_steps', '') where exists (select from gone)

-- name: forget_rates
-- Whoever has begun nothing for so long may begin as if nothing were known. What is noted just now is passed over: whoever
-- notes several has locked them in another order.
with gone as materialized (
    select pipeline, step, limited_by from pointsman.step_rates where next < clock_timestamp() - interval '1 hour'
    for update skip locked
)
delete from pointsman.step_rates r using gone
where (r.pipeline, r.step, r.limited_by) = (gone.pipeline, gone.step, gone.limited_by)
