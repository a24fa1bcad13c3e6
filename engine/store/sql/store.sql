-- name: register_pipeline
with made as (
    insert into pointsman.pipelines (namespace, name) values ($1, $2) on conflict do nothing returning id
)
select id from made union all select id from pointsman.pipelines where namespace = $1 and name = $2 limit 1

-- name: definitions_of
select id, version, hash, code from pointsman.definitions where pipeline = $1 order by id

-- name: keyed_structures_of
-- Others, of which there may be many, tell nothing of them.
select structure from pointsman.definitions where pipeline = $1 and position('"duplicate_by"'::bytea in structure) > 0

-- name: register_definition
with made as (
    insert into pointsman.definitions (pipeline, version, hash, code, structure)
    values ($1, $2, $3, $4, $5) on conflict do nothing returning id
)
select id from made
union all
select id from pointsman.definitions where pipeline = $1 and version = $2 and hash = $3 and code = $4
limit 1

-- name: known_positions
select topic, partition, position from pointsman.positions
where namespace = $1 and consumer_group = $2 and cluster = $3 and topic = any ($4::text[])

-- name: add_positions
insert into pointsman.positions (namespace, consumer_group, cluster, topic, partition, position)
select $1, $2, $3, new.topic, new.partition, new.position
from unnest($4::text[], $5::int[], $6::bigint[]) as new (topic, partition, position)
order by new.topic, new.partition
on conflict do nothing

-- name: take_positions
with locked as (
    select id from pointsman.positions p
    join unnest($4::text[], $5::int[]) as wanted (topic, partition)
        on p.topic = wanted.topic and p.partition = wanted.partition
    where p.namespace = $1 and p.consumer_group = $2 and p.cluster = $3
    order by p.id
    for update of p
)
update pointsman.positions p
set epoch = p.epoch + 1, updated = now()
from locked where p.id = locked.id
returning p.id, p.topic, p.partition, p.position, p.epoch, p.topic_id

-- name: note_topic_ids
-- What somebody else works on by now, who takes it over notes.
with free as (
    select p.id, noted.topic_id
    from pointsman.positions p
    join unnest($1::int[], $2::bigint[], $3::text[]) as noted (id, epoch, topic_id)
        on p.id = noted.id and p.epoch = noted.epoch
    order by p.id for update of p skip locked
)
update pointsman.positions p set topic_id = free.topic_id from free where p.id = free.id returning p.id

-- name: move_positions
with moved as (
    update pointsman.positions p
    set position = move.new, updated = now(), record_time = coalesce(move.record_time, p.record_time)
    from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
        as move (id, epoch, old, new, record_time)
    where p.id = move.id and p.epoch = move.epoch and p.position = move.old
    returning 1
)
select pointsman.expect(count(*), cardinality($1), 'PM001') from moved

-- name: load_runs
select distinct on (key) id, key, generation, sequence, status, configuration, context, recent, hash, definition,
    held, waiting, started, updated, memory
from pointsman.runs
where pipeline = $1 and key = any ($2::text[])
order by key, generation desc

-- name: lock_runs
select id from pointsman.runs where id = any ($1::bigint[]) order by id for update

-- name: make_run_changes
create temporary table if not exists run_changes (
    id bigint, updated timestamptz, old int, sequence int, definition int, held int, waiting int,
    status smallint, configuration text collate "C", recent bytea, hash bytea, context bytea, memory bytea,
    wake_at timestamptz
) on commit delete rows

-- name: change_runs
with changed as (
    update pointsman.runs r
    set updated = new.updated, sequence = new.sequence, definition = new.definition, held = new.held,
        waiting = new.waiting, status = new.status, configuration = new.configuration, recent = new.recent,
        hash = new.hash, context = new.context, memory = new.memory, wake_at = new.wake_at
    from pg_temp.run_changes new
    where r.id = new.id and r.sequence = new.old
    returning 1
)
select pointsman.expect(count(*), $1::bigint, 'PM002') from changed

-- name: add_taken_ids
insert into pointsman.taken_ids (run, digest)
select * from unnest($1::bigint[], $2::bigint[])
on conflict do nothing

-- name: write_attributes
insert into pointsman.run_attributes (run, attributes)
select * from unnest($1::bigint[], $2::jsonb[])
on conflict (run) do update set attributes = excluded.attributes

-- name: remove_attributes
delete from pointsman.run_attributes where run = any ($1::bigint[])

-- name: count_unmoved
select count(*) from unnest($1::bigint[], $2::int[]) as judged (id, sequence)
join pointsman.runs r on r.id = judged.id and r.sequence = judged.sequence

-- name: lock_unmoved
-- Locked, since what they remember goes on in their successors: whoever changes one finds its successor then.
select count(*) from (
    select r.id from unnest($1::bigint[], $2::int[]) as retired (id, sequence)
    join pointsman.runs r on r.id = retired.id and r.sequence = retired.sequence
    for share of r
) as unmoved

-- name: count_succeeded
-- Behind the changes of runs: who has waited for a lock of one sees what began meanwhile.
select count(*) from unnest($1::int[], $2::text[], $3::int[]) as ended (pipeline, key, generation)
join pointsman.runs r on r.pipeline = ended.pipeline and r.key = ended.key and r.generation = ended.generation + 1

-- name: end_silent_blockers
-- Whoever keeps this backend waiting, or whoever that one waits for. Ended are engines that have not been heard of: one that
-- was stopped in its tracks, say. One that copies asks for nothing all that time: it is silent where no more has come of it
-- since the last look. No statement of an engine lasts as long as $5, after which it has given it up itself. What another
-- role does is hidden from us, unless we may see it; ended is only what we may end. Nobody's session has the number 0: that
-- is a prepared transaction.
with recursive blocking (pid) as (
    select unnest(pg_blocking_pids($1))
    union
    select unnest(pg_blocking_pids(blocking.pid)) from blocking
)
select blocking.pid, format('%s %s', c.relid, c.bytes_processed) as come,
    case
        when (a.application_name like 'pointsman engine%' or a.application_name = 'pointsman relay')
            and a.pid <> $1 and a.xact_start is not null
            and (pg_has_role(a.usesysid, 'USAGE') or pg_has_role('pg_signal_backend', 'USAGE'))
            and (role.rolsuper is not true or current_setting('is_superuser') = 'on')
            and (
                a.wait_event = 'ClientRead'
                and clock_timestamp() - greatest(a.query_start, a.state_change) > make_interval(secs => $2)
                and (c.pid is null or looked.come = format('%s %s', c.relid, c.bytes_processed))
                or a.state = 'active' and clock_timestamp() - a.query_start > make_interval(secs => $5)
            )
        then pg_terminate_backend(a.pid)
    end as ended,
    a.application_name as name, a.usename as role, host(a.client_addr) as address, a.state, a.wait_event,
    extract(epoch from clock_timestamp() - a.xact_start)::float8 as seconds,
    cardinality(pg_blocking_pids(blocking.pid)) > 0 as waits
from blocking
left join pg_stat_activity a on a.pid = blocking.pid
left join pg_roles role on role.oid = a.usesysid
left join pg_stat_progress_copy c on c.pid = a.pid
left join unnest($3::int[], $4::text[]) as looked (pid, come) on looked.pid = a.pid

-- name: seen_digests
select e.run, e.digest
from unnest($1::bigint[], $2::bigint[]) as asked (run, digest)
join pointsman.events e on e.run = asked.run and e.digest = asked.digest
union all
select i.run, i.digest
from unnest($3::bigint[], $4::bigint[]) as asked (run, digest)
join pointsman.taken_ids i on i.run = asked.run and i.digest = asked.digest

-- name: seen_by_generations
-- The same by any run of a key. Each is looked up by itself: as a join, all rows of a run would be compared with each.
select asked.pipeline, asked.key, asked.digest
from unnest($1::int[], $2::text[], $3::bigint[]) as asked (pipeline, key, digest)
join pointsman.runs r on r.pipeline = asked.pipeline and r.key = asked.key
cross join lateral (select from pointsman.events e where e.run = r.id and e.digest = asked.digest limit 1) seen
union all
select asked.pipeline, asked.key, asked.digest
from unnest($4::int[], $5::text[], $6::bigint[]) as asked (pipeline, key, digest)
join pointsman.runs r on r.pipeline = asked.pipeline and r.key = asked.key
cross join lateral (select from pointsman.taken_ids i where i.run = r.id and i.digest = asked.digest limit 1) seen

-- name: waiting_digests
select w.run, known.digest
from pointsman.waiting w cross join lateral (values (w.digest), (w.id_digest)) as known (digest)
where w.run = any ($1::bigint[]) and known.digest is not null

-- name: waiting_events
select sequence, type, event_id, position, "offset", payload, envelope, digest
from (
    select e.sequence, e.type, e.event_id, e.position, e."offset", e.payload, e.envelope, w.digest,
        row_number() over oldest_first as number,
        sum(coalesce(octet_length(e.payload), 0) + octet_length(e.envelope)) over oldest_first as bytes
    from (
        select run, sequence, digest from pointsman.waiting where run = $1 and until is null
        order by sequence limit $2
    ) w
    join pointsman.events e on e.run = w.run and e.sequence = w.sequence
    window oldest_first as (order by w.sequence rows unbounded preceding)
) waiting
where number = 1 or bytes <= $3
order by sequence

-- name: deferred_events
select w.run, e.sequence, e.type, e.event_id, e.position, e."offset", e.payload, e.envelope, w.digest, e.effects
from pointsman.waiting w join pointsman.events e on e.run = w.run and e.sequence = w.sequence
where w.run = any ($1::bigint[]) and w.until is not null
order by w.run, w.sequence

-- name: due_runs
-- The runs for which something has fallen due, of each pipeline until a time, those that waited longest first. Those of a
-- pipeline and a home are a range of the index, read from its beginning, and no further than to the number $7: however many
-- wait, and however much has fallen due, no more are looked at, beside those that are passed over. Where there may be more
-- of one, nothing is told that fell due after the last of it, so that nothing is told before what came before it. A run that
-- follows a definition that is not loaded waits until it is; one that no event has started follows the newest. Context and
-- memory are there where they are small enough to be loaded before it is known that they are wanted. Those that are passed
-- over are looked up in a hash: `<> all` would compare each run with each of them, once the plan is made for any arguments.
with due as materialized (
    select next.*, home.number as home
    from unnest($2::int[], $3::timestamptz[]) as served (pipeline, until)
    cross join unnest($1::smallint[]) as home (number)
    cross join lateral (
        select r.pipeline, r.wake_at, r.id, r.key, r.generation, r.sequence, r.status, r.configuration,
            case when octet_length(r.context) + octet_length(r.memory) <= 8192 then r.context end as context,
            r.recent, r.hash, r.definition, r.held, r.waiting, r.started, r.updated,
            case when octet_length(r.context) + octet_length(r.memory) <= 8192 then r.memory end as memory
        from pointsman.runs r
        where r.pipeline = served.pipeline and pointsman.home_of(r.key) = home.number and r.wake_at <= served.until
            and r.wake_at is not null and r.held = 0 and (r.definition = any ($4::int[]) or r.status <> 1)
            and r.id not in (select unnest($6::text::bigint[]))
        order by r.wake_at limit $7
    ) as next
), told as (
    select max(wake_at) as until from due group by pipeline, home having count(*) = $7
)
select pipeline, wake_at, id, key, generation, sequence, status, configuration, context, recent, hash, definition, held,
    waiting, started, updated, memory
from due
where wake_at <= coalesce((select min(until) from told), 'infinity')
order by wake_at limit $5

-- name: applied_positions
select topic, partition, position, record_time from pointsman.positions
where namespace = $1 and consumer_group = $2 and cluster = $3 and topic = any ($4::text[])

-- name: add_waiting
insert into pointsman.waiting (run, sequence, digest, until, id_digest)
select * from unnest($1::bigint[], $2::int[], $3::bigint[], $4::timestamptz[], $5::bigint[])

-- name: remove_waiting
delete from pointsman.waiting w using unnest($1::bigint[], $2::int[]) as gone (run, sequence)
where w.run = gone.run and w.sequence = gone.sequence

-- name: add_dead_letter
insert into pointsman.dead_letters (namespace, pipeline, run, sequence, key, event_id, type, disposition, reason, error,
    details, position, "offset", record_time, record_key, record_value, record_headers, dead_letter_topic, at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
returning id

-- name: end_dead_letter
update pointsman.dead_letters
set status = $2, who = $3, why = $4, ended = $7, edited = $6, publishing = coalesce($5, publishing),
    publishing_error = case when $5 is null then publishing_error else '' end
where id = $1 and status = 'open'

-- name: load_dead_letter
select id, pipeline, run, sequence, key, event_id, type, position, "offset", record_time, record_key, record_value,
    record_headers, status, reason, dead_letter_topic, details
from pointsman.dead_letters where id = $1

-- name: pauses
select pipeline, command, who, why, at from pointsman.pauses where pipeline = any ($1::int[])

-- name: add_pause
insert into pointsman.pauses (pipeline, command, who, why, at) values ($1, $2, $3, $4, $5) on conflict do nothing

-- name: end_pause
-- Waits for the transactions that hold runs for it.
delete from pointsman.pauses where pipeline = $1 and command = $2

-- name: lock_pauses
-- None of them ends before this transaction does.
select command from pointsman.pauses where command = any ($1::bigint[]) order by command for share

-- name: release_paused
-- The next runs behind one, so many at most, that are held since their pipeline was paused; returns the last of them, where
-- there may be more.
with found as (
    select r.id, r.held from pointsman.runs r
    join pointsman.events e on e.run = r.id and e.sequence = r.held
    where r.pipeline = $2 and r.held > 0 and r.id > $3 and e.kind = $4::smallint and e.type = $5
    order by r.id limit $6
), put as (
    insert into pointsman.inbox (namespace, pipeline, command, body, who, why)
    select $1, $2, 'release', convert_to(json_build_object('run', id, 'held', held)::text, 'UTF8'), $7, $8
    from found order by id
)
select max(id) from found having count(*) = $6

-- name: holds_of
select e.run, e.kind, e.at, e.payload, d.id, d.reason, e.type, coalesce(e.position, 0) = 0 as is_inner
from unnest($1::bigint[], $2::int[]) as held (run, sequence)
join pointsman.events e on e.run = held.run and e.sequence = held.sequence
left join pointsman.dead_letters d on d.run = e.run and d.sequence = e.sequence and d.status = 'open'

-- name: cancellation_of
select kind, at, payload from pointsman.events where run = $1 and kind = $2::smallint order by sequence desc limit 1

-- name: completion_of
select command, pipeline, key, what, event_id, run, done, answer, who, why, asked, at from pointsman.operations
where run = $1 and what in ('complete', 'fail') and done and starts_with(event_id, $2) order by command desc limit 1

-- name: add_ignored_range
insert into pointsman.ignored_ranges (position, first, last, records, reason, at)
select new.position, new.first, new.last, new.records, new.reason, $6
from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[])
    as new (position, first, last, records, reason)
on conflict (position, first, reason) do update
set last = greatest(ignored_ranges.last, excluded.last), records = greatest(ignored_ranges.records, excluded.records)

-- name: read_inbox
-- The oldest, so many at most. What is in front is read as it comes, as long as not much of it waits for something, such as
-- for its pipeline to go on. Where it does, what may be taken is read by itself, however much waits in front: of each pipeline
-- and home it is a range of an index. So is what is for this group, or for any, and of no pipeline; what has a token; and what
-- is asked of a pipeline that is paused.
with near as materialized (
    select i.id
    from (select * from pointsman.inbox order by id limit 4 * $3 + 100) i
    where i.namespace = $1 and (i.home is null or i.home = any ($5::smallint[])) and (
        (i.pipeline = any ($2::int[]) and (
            i.pipeline not in (select p.pipeline from pointsman.pauses p)
            or i.command in ('pause_pipeline', 'resume_pipeline')
        ))
        or (i.pipeline is null and coalesce(i.consumer_group, $4) = $4)
    ) and
        -- shared: waits_for_no_token
    order by i.id limit $3
), goes_on (pipeline) as (
    select * from unnest($2::int[]) pipeline where pipeline not in (select p.pipeline from pointsman.pauses p)
), far as (
    select i.id
    from goes_on g cross join (select -1 union all select * from unnest($5::smallint[])) as home (number)
    cross join lateral (
        select i.id from pointsman.inbox i
        where i.pipeline = g.pipeline and coalesce(i.home, -1) = home.number and i.token is null
        order by i.id limit $3
    ) i
    union all
    select i.id
    from goes_on g cross join lateral (
        select i.id from pointsman.inbox i
        where i.pipeline = g.pipeline and i.token is not null and
            -- shared: waits_for_no_token
        order by i.id limit $3
    ) i
    union all
    select i.id
    from unnest($2::int[]) loaded (pipeline) cross join lateral (
        select i.id from pointsman.inbox i
        where i.pipeline = loaded.pipeline and i.command in ('pause_pipeline', 'resume_pipeline')
        order by i.id limit $3
    ) i
    where loaded.pipeline in (select p.pipeline from pointsman.pauses p)
    union all
    select i.id
    from (values (''), ($4)) as may (take) cross join lateral (
        select i.id from pointsman.inbox i
        where i.namespace = $1 and i.pipeline is null and coalesce(i.consumer_group, '') = may.take
        order by i.id limit $3
    ) i
), found as (
    select id from near
    union
    select id from far
    where (select count(*) from near) < $3
        and exists (select from pointsman.inbox order by id offset 4 * $3 + 100 limit 1)
    order by id limit $3
)
select i.id, i.pipeline, i.command, i.body, i.who, i.why, i.at,
    i.token is not null and (
        select t.token from pointsman.tokens t where t.namespace = i.namespace and t.token = i.token
    ) is null as awaits_token
from found join pointsman.inbox i using (id)
order by i.id

-- name: take_inbox
delete from pointsman.inbox where id = any ($1::bigint[])

-- name: add_follow_up
insert into pointsman.inbox (namespace, pipeline, command, body, who, why) values ($1, $2, $3, $4, $5, $6)
returning id, pipeline, command, body, who, why, at

-- name: add_sent
-- Events from runs to others. A pipeline that nobody has run yet gets its number now, and its events wait for it.
with sent as (
    select number, pipeline, key, body
    from unnest($2::text[], $3::text[], $4::bytea[]) with ordinality as sent (pipeline, key, body, number)
), made as (
    insert into pointsman.pipelines (namespace, name) select distinct $1, pipeline from sent
    on conflict do nothing returning id, name
), known as (
    select id, name from made
    union
    select id, name from pointsman.pipelines where namespace = $1 and name in (select pipeline from sent)
)
insert into pointsman.inbox (namespace, pipeline, command, body, who, why, home)
select $1, known.id, 'event', sent.body, 'engine', 'sent by a run', pointsman.home_of(sent.key)
from sent join known on known.name = sent.pipeline order by sent.number

-- name: add_completed
-- What runs say of how steps ended that go on outside.
insert into pointsman.inbox (namespace, pipeline, command, body, who, why, token)
select $1, p.id, said.command, said.body, said.who, said.why, said.token
from unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[]) with ordinality
    as said (pipeline, command, body, who, why, token, number)
join pointsman.pipelines p on p.namespace = $1 and p.name = said.pipeline order by said.number

-- name: release_missing_definitions
-- Once for each hold, as whoever drains asks for it, too: while a pipeline is paused, nobody takes up what was asked before.
with held as (
    select r.pipeline, r.id, convert_to(format('{"run":%s,"held":%s}', r.id, r.held), 'UTF8') as body
    from pointsman.runs r join pointsman.events e on e.run = r.id and e.sequence = r.held
    where r.held > 0 and r.definition = any ($2::int[]) and e.kind = any ($3::smallint[])
)
insert into pointsman.inbox (namespace, pipeline, command, body, who, why)
select $1, pipeline, 'release', body, 'engine', 'its definition is loaded again'
from held
where body not in (
    select i.body
    from (select distinct pipeline from pointsman.definitions where id = any ($2::int[])) loaded cross join lateral (
        select i.body from pointsman.inbox i
        where i.pipeline = loaded.pipeline and coalesce(i.home, -1) = -1 and i.token is null and i.command = 'release'
    ) i
)
order by id

-- name: strikes_of
-- Those of events without a position, too: whoever holds the homes of their runs may change at any time. Those of steps are
-- told by struck_attempts.
select position, "offset", strikes, handler from pointsman.strikes
where position = any ($1::int[]) or position between -2 and 0

-- name: struck_attempts
-- Those of steps (OF_STEP).
select "offset", strikes from pointsman.strikes where position = -3

-- name: add_strike
insert into pointsman.strikes (position, "offset", strikes, handler) values ($1, $2, 1, $3)
on conflict (position, "offset") do update
set strikes = strikes.strikes + 1, handler = excluded.handler, at = now()
returning strikes

-- name: busy_run
select p.name, r.key from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline where r.id = $1

-- name: strike_step
-- Which attempt has kept an engine's loop busy for too long: whoever takes the run over takes it for lost, also where what it
-- has begun may go on. Those of executions that are over are forgotten.
with busy as (
    select e.id, p.name, r.key, e.step, e.attempt
    from pointsman.executions e
    join pointsman.runs r on r.id = e.run
    join pointsman.pipelines p on p.id = e.pipeline
    where e.id = $2
), over as (
    delete from pointsman.strikes s
    where s.position = $1 and not exists (select from pointsman.executions e where e.id = s."offset")
), struck as (
    insert into pointsman.strikes (position, "offset", strikes, handler)
    select $1, b.id, b.attempt, $3 from busy b
    on conflict (position, "offset") do update
    set strikes = excluded.strikes, handler = excluded.handler, at = now()
)
select name, key, step, attempt from busy

-- name: forget_strikes
delete from pointsman.strikes s using unnest($1::int[], $2::bigint[]) as gone (position, "offset")
where s.position = gone.position and s."offset" = gone."offset"

-- name: commands_left
select id from pointsman.inbox where id = any ($1::bigint[])

-- name: runs_by_id
select id, key, generation, sequence, status, configuration, context, recent, hash, definition, held, waiting, started,
    updated, memory
from pointsman.runs where id = any ($1::bigint[])

-- name: origin_of
select cluster, topic, partition from pointsman.positions where id = $1

-- name: add_executions
-- New ones, those whose next attempt is to wait for its turn, and those that are to be stopped.
insert into pointsman.executions (
    pipeline, home, run, sequence, number, step, attempt, again, error, of, made, stopping, since, token, limited_by,
    progress
)
select new.pipeline, pointsman.home_of(new.key), new.run, new.sequence, new.number, new.step, new.attempt, new.again,
    new.error, new.of, new.made, new.stopping, new.since, new.token, new.limited_by,
    new.progress
from unnest(
    $1::int[], $2::text[], $3::bigint[], $4::int[], $5::int[], $6::text[], $7::int[], $8::timestamptz[], $9::text[],
    $10::text[], $11::int[], $12::boolean[], $13::int[], $14::text[], $15::text[], $16::bytea[]
) as new (
    pipeline, key, run, sequence, number, step, attempt, again, error, of, made, stopping, since, token, limited_by,
    progress
)
on conflict (run, sequence, number) do update
set step = excluded.step, attempt = excluded.attempt, again = excluded.again, error = excluded.error,
    stopping = excluded.stopping, token = excluded.token,
    -- What begins anew says how far it had come, and has all the time again.
    since = excluded.since, began = case when excluded.progress is null then executions.began end,
    -- Where it is the same attempt, which is to be stopped or has another name, who has begun it has to say what became of
    -- it, or is taken for lost with it.
    holder = case
        when (excluded.attempt, excluded.token) = (executions.attempt, executions.token) then executions.holder
    end,
    limited_by = coalesce(executions.limited_by, excluded.limited_by)

-- name: add_first
-- New ones: whose first attempts wait for their turn, or, with a holder, begin with whoever commits them, who has numbered them.
-- Arrays come as text, with text in hex (``engine.store.literals``).
insert into pointsman.executions (
    id, pipeline, home, run, sequence, number, step, attempt, again, error, of, made, holder, began
)
overriding system value
select coalesce(new.id, nextval('pointsman.executions_id_seq')), ($4::text::int[])[new.place], new.home, new.run,
    new.sequence, new.number, convert_from(decode(($5::text::text[])[new.place], 'hex'), 'UTF8'), 1, $1::timestamptz, '',
    coalesce(convert_from(decode(new.of, 'hex'), 'UTF8'), ''), coalesce(new.made, 0), $2::bigint, $3::timestamptz
from unnest(
    $6::text::int[], $7::text::smallint[], $8::text::bigint[], $9::text::int[], $10::text::int[], $11::text::text[],
    $12::text::int[], $13::text::bigint[]
) as new (place, home, run, sequence, number, of, made, id)

-- name: number_executions
select nextval('pointsman.executions_id_seq') from generate_series(1, $1)

-- name: returned
-- What these rows of the log say that a step has returned.
select run, sequence, payload from pointsman.events
join unnest($1::text::bigint[], $2::text::int[]) as asked (run, sequence) using (run, sequence)

-- name: keep_places
-- Attempts that may go on though no row will say so: those who make them say when they do not any more. One that somebody
-- begins at this moment is one of them: it is waited for.
with left_by as materialized (
    select e.*
    from unnest($1::bigint[], $2::int[], $3::int[], $4::int[]) as left_by (run, sequence, number, attempt)
    join pointsman.executions e using (run, sequence, number, attempt)
    for update of e
)
insert into pointsman.step_places (holder, execution, pipeline, step, limited_by)
select holder, id, pipeline, step, limited_by from left_by where holder is not null and limited_by is not null
on conflict do nothing

-- name: remove_executions
delete from pointsman.executions e
using unnest($1::bigint[], $2::int[], $3::int[]) as gone (run, sequence, number)
where e.run = gone.run and e.sequence = gone.sequence and e.number = gone.number

-- name: close_tokens
update pointsman.tokens t set waits = false, over_at = $6
from unnest($2::text[], $3::bigint[], $4::int[], $5::int[]) as gone (token, run, sequence, number)
where t.namespace = $1 and t.token = gone.token and t.run = gone.run and t.sequence = gone.sequence
    and t.number = gone.number

-- name: open_tokens
-- One that was waited for before may be used again; where another execution waits for it, it is left alone.
insert into pointsman.tokens (namespace, token, pipeline, key, run, sequence, number, step, attempt, waits, over_at)
select $1, new.*, case when not new.waits then $11::timestamptz end
from unnest($2::text[], $3::int[], $4::text[], $5::bigint[], $6::int[], $7::int[], $8::text[], $9::int[], $10::boolean[])
    as new (token, pipeline, key, run, sequence, number, step, attempt, waits)
order by new.token
on conflict (namespace, token) do update
set pipeline = excluded.pipeline, key = excluded.key, run = excluded.run, sequence = excluded.sequence,
    number = excluded.number, step = excluded.step, attempt = excluded.attempt, waits = true, over_at = null
where excluded.waits and not tokens.waits

-- name: forget_tokens
-- Of those that are waited for no more, the longest over first. They are chosen once: as a part of the join they might be
-- chosen anew for each, and then so many would be no limit.
with gone as materialized (
    select token from pointsman.tokens where namespace = $1 and over_at < $2 order by over_at limit $3
    for update skip locked
)
delete from pointsman.tokens t using gone
where t.namespace = $1 and t.token = gone.token and t.over_at < $2

-- name: find_tokens
select token, pipeline, key, run, sequence, number, step, attempt, waits
from pointsman.tokens where namespace = $1 and token = any ($2::text[])

-- name: begin_executions
-- The next of each step, so many at most, in the order in which they were asked for or are to be tried again; those of
-- held runs once they go on, for what became of the last attempt may wait behind the hold: whoever
-- finds one has it. What goes on outside does not begin. A step's input is the context after the row that asked for it, whatever the run's is by now.
-- Of each home those of a step are a range of the index, and so are those that had a limit when they were asked for. A few
-- of each range are looked at first: most ranges have no more of the next ones. What waits for runs that do not go on is in
-- the ranges, too, and read and passed over.
with ranges as (
    select w.*, home.number as home, limits.are_none, least(w.room, w.room / 8 + 4) as few
    from unnest($1::int[], $2::text[], $3::int[]) as w (pipeline, step, room)
    cross join unnest($5::smallint[]) as home (number) cross join (values (true), (false)) as limits (are_none)
), first as (
    select r.*, next.*,
        row_number() over (partition by r.pipeline, r.step order by next.again, next.id) as place,
        row_number() over (partition by r.pipeline, r.step, r.home, r.are_none order by next.again, next.id) as of_range
    from ranges r
    -- shared: next_of_range
), more as (
    select r.*, next.*
    from (
        select pipeline, step, room, home, are_none, room as few from first
        where of_range = few and place <= room and few < room
    ) r
    -- shared: next_of_range
), found as (
    select id from (
        select id, room, row_number() over (partition by pipeline, step order by again, id) as place
        from (
            select pipeline, step, room, again, id from first union select pipeline, step, room, again, id from more
        ) those
    ) those
    where place <= room
), begun as (
    update pointsman.executions e set holder = $8, began = coalesce(e.began, $4)
    from found where e.id = found.id returning e.*
)
-- shared: of_begun
from begun b join pointsman.runs r on r.id = b.run
order by b.again, b.id

-- name: begin_untried
-- Those of which there is only something to be told, however little room there is: whose states were left; or whose time
-- is over; and what goes on outside and was not completed in time. Of each home they are ranges of indexes. What somebody
-- completes whose command waits in the inbox, as that of a paused pipeline does, is heard of first. They are read one after
-- the other, in no order, until there are so many.
with wanted as (
    select * from unnest($1::int[], $2::text[], $3::timestamptz[]) as wanted (pipeline, step, overdue)
    cross join unnest($5::smallint[]) as home (number)
), stopped as (
    select next.id
    from wanted cross join lateral (
        select e.id
        from pointsman.executions e
        where e.pipeline = wanted.pipeline and e.step = wanted.step and e.stopping and e.home = wanted.number
            and e.holder is null and e.id not in (select unnest($6::text::bigint[]))
            and exists (
                select from pointsman.runs r where r.id = e.run and r.definition = any ($7::int[]) and r.held = 0
            )
        limit $4 for update skip locked
    ) next
), over as (
    select next.id
    from wanted cross join lateral (
        select e.id
        from pointsman.executions e
        where e.pipeline = wanted.pipeline and e.step = wanted.step and not e.stopping and e.home = wanted.number
            and e.began <= wanted.overdue and e.holder is null and e.id not in (select unnest($6::text::bigint[]))
            and exists (
                select from pointsman.runs r where r.id = e.run and r.definition = any ($7::int[]) and r.held = 0
            )
        limit $4 for update skip locked
    ) next
), late as (
    select next.id
    from wanted cross join lateral (
        select e.id
        from pointsman.executions e
        where e.pipeline = wanted.pipeline and e.step = wanted.step and e.home = wanted.number
            and e.again <= $9 and e.holder is null and e.token <> ''
            and not exists (select from pointsman.inbox i where i.pipeline = e.pipeline and i.token = e.token)
            and e.id not in (select unnest($6::text::bigint[]))
            and exists (
                select from pointsman.runs r where r.id = e.run and r.definition = any ($7::int[]) and r.held = 0
            )
        limit $4 for update skip locked
    ) next
), begun as (
    update pointsman.executions e set holder = $8
    where e.id in (
        select id from stopped union all select id from over union all select id from late limit $4
    )
    returning e.*
)
select b.id, b.pipeline, r.key, r.generation, b.run, r.definition, b.home, b.sequence, b.number, b.step, b.attempt,
    b.error, ''::bytea as input, b.of, b.stopping, null::bytea as made, b.since, b.token, b.progress, b.began
from begun b join pointsman.runs r on r.id = b.run
order by b.id

-- name: note_progress
-- Of attempts that go on here. It is no part of the log: only what may be lost is said by it. So what a commit works on is
-- passed over, here as where rows are put back: commits lock executions in an order of their own. It is told.
with said as (
    select e.id, new.progress
    from unnest($2::bigint[], $3::int[], $4::bytea[]) as new (id, attempt, progress)
    join pointsman.executions e on e.id = new.id and e.attempt = new.attempt and e.holder = $1
    for update of e skip locked
), noted as (
    update pointsman.executions e set progress = said.progress from said where e.id = said.id
)
select e.id
from unnest($2::bigint[], $3::int[]) as new (id, attempt)
join pointsman.executions e on e.id = new.id and e.attempt = new.attempt and e.holder = $1
where e.id not in (select id from said)

-- name: hold
-- This engine is there. One that was started with the same name before is not, and one that is silent for long is forgotten.
-- The places that such a one kept, which count no more, are taken away the next time that somebody says so.
with gone as (
    delete from pointsman.holders
    where id <> $1 and namespace = $2 and (instance = $3 or seen < clock_timestamp() - interval '1 day')
), kept as (
    delete from pointsman.step_places p
    where p.holder <> $1 and not exists (select from pointsman.holders h where h.id = p.holder)
)
insert into pointsman.holders (id, namespace, instance, seen, breakers) values ($1, $2, $3, clock_timestamp(), $4)
on conflict (id) do update set seen = excluded.seen, breakers = excluded.breakers
returning seen

-- name: let_go
with kept as (delete from pointsman.step_places where holder = $1)
delete from pointsman.holders where id = $1

-- name: put_back
-- What this engine was given, and does not know of: it was cancelled, or lost the connection, before it heard the answer.
-- Whether all of it is.
with given as (
    select id from pointsman.executions
    where holder = $1 and (id, attempt) not in (select * from unnest($2::bigint[], $3::int[]))
    for update skip locked
), free as (
    update pointsman.executions e
    set holder = null, began = case when e.attempt > 1 or e.token <> '' then e.began end
    from given where e.id = given.id
)
select not exists (
    select from pointsman.executions
    where holder = $1 and (id, attempt) not in (select * from unnest($2::bigint[], $3::int[]))
        and id not in (select id from given)
)

-- name: put_held_back
-- Of held runs, what has ended here: what became of it waits behind the hold, and nothing of it begins before that is over.
update pointsman.executions e set holder = null
from (
    select e.id
    from pointsman.executions e join pointsman.runs r on r.id = e.run and r.held > 0
    where e.holder = $1 and (e.id, e.attempt) not in (select * from unnest($2::bigint[], $3::int[]))
    for update of e skip locked
) ended
where e.id = ended.id

-- name: begun_by_others
-- Attempts that engines have begun who are not heard of any more; nor is who was heard in what is the future by now, since the
-- clock was set. Who has begun any is found by a step through the index for each, so that it does not matter how many go on.
with recursive begun as (
    (select e.holder from pointsman.executions e where e.holder is not null order by e.holder limit 1)
    union all
    select (
        select e.holder from pointsman.executions e where e.holder > begun.holder order by e.holder limit 1
    ) from begun where begun.holder is not null
), gone as (
    select begun.holder from begun
    where begun.holder is not null and not exists (
        select from pointsman.holders h
        where h.id = begun.holder and abs(extract(epoch from clock_timestamp() - h.seen)) <= $5
    )
)
select e.id, e.pipeline, r.key, r.generation, e.run, r.definition, e.home, e.sequence, e.number, e.step, e.attempt,
    e.error, ''::bytea as input, e.of, e.stopping, null::bytea as made, e.since, e.token, e.progress, e.began
from gone cross join lateral (
    select e.* from pointsman.executions e
    where e.holder = gone.holder and e.home = any ($1::smallint[]) and e.pipeline = any ($2::int[])
        and e.id not in (select unnest($4::bigint[]))
        and exists (
            select from pointsman.runs r where r.id = e.run and r.definition = any ($3::int[]) and r.held = 0
        )
    order by e.id limit $6
) e join pointsman.runs r on r.id = e.run
order by e.id limit $6

-- name: take_executions
-- Attempts that engines have begun who are not heard of any more, and that go on all the same: who has the row goes on with
-- it. One that has it already may not have heard so.
with found as (
    select e.id
    from pointsman.executions e
    where e.id = any ($1::bigint[]) and e.holder is not null and (
        e.holder = $2 or not exists (
            select from pointsman.holders h
            where h.id = e.holder and abs(extract(epoch from clock_timestamp() - h.seen)) <= $3
        )
    )
    order by e.id for update skip locked
), begun as (
    update pointsman.executions e set holder = $2 from found where e.id = found.id returning e.*
)
-- shared: of_begun
from begun b join pointsman.runs r on r.id = b.run
order by b.id

-- name: told_results
-- Of events that are nobody's but these runs', by what is kept of them, whatever became of each.
with told as (
    select * from unnest($1::bigint[], $2::bigint[], $3::text[]) as told (number, run, event_id)
)
select number from told join pointsman.events e on e.run = told.run and e.event_id = told.event_id
union
select number from told join pointsman.dispositions d on d.event_id = told.event_id
union
select number from told join pointsman.dead_letters l on l.event_id = told.event_id

-- name: executions_there
-- Which of these are still wanted, and whether their states were left.
select id, stopping from pointsman.executions where id = any ($1::bigint[])

-- name: said_last
select coalesce((
    select e.type from pointsman.events e
    where e.run = a.run and starts_with(e.event_id, a.key || '/') order by e.sequence desc limit 1
), '')
from unnest($1::bigint[], $2::text[]) with ordinality a (run, key, number)
order by a.number

-- name: has_executions
-- What a run waits for that is held waits for a person, too; and what goes on outside, for whoever does it.
-- Of those that go on, all are looked at until one is found; they are never more than engines make at once.
select exists (
    select from (
        (select e.run from pointsman.executions e
        where e.pipeline = any ($1::int[]) and e.holder is null and e.token = '' offset 0)
        union all
        (select e.run from pointsman.executions e
        where e.holder > -1 and e.pipeline = any ($1::int[]) and e.token = '' offset 0)
    ) e
    where exists (
        select from pointsman.runs r where r.id = e.run and r.held = 0 and r.definition = any ($2::int[])
    )
)
