-- name: pipelines
select id, name from pointsman.pipelines where namespace = $1 order by name

-- name: definitions
select d.id, d.pipeline, p.name, d.version, d.hash, d.code, d.registered, d.structure
from pointsman.definitions d join pointsman.pipelines p on p.id = d.pipeline
where p.namespace = $1 order by d.id

-- name: identities
select d.id, p.name, d.version, d.hash, d.code, d.registered, d.is_over
from pointsman.definitions d join pointsman.pipelines p on p.id = d.pipeline
where p.namespace = $1 order by d.id

-- name: open_runs
-- How many open runs follow each of these definitions. All runs are looked at, once for all definitions. To count each up to
-- a bound would be once for each that few follow, which most are. And with an index of the open runs the end of each would
-- change all indexes, which no move does.
select definition, count(*) from pointsman.runs where definition = any ($1::int[]) and status = $2 group by definition

-- name: loaded_now
-- The definitions that engines have loaded that are there now, and how many have each.
select d.id, count(*) as engines
from pg_locks l
join pointsman.engine_sets s on (s.lock_class::bigint & 4294967295) = l.classid::bigint
    and (s.lock_object::bigint & 4294967295) = l.objid::bigint
join pointsman.definitions d on d.id = any (s.definitions)
join pointsman.pipelines p on p.id = d.pipeline and p.namespace = $1
where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.mode = 'ShareLock'
    and l.database = (select oid from pg_database where datname = current_database())
group by d.id

-- name: dropped_months
select first, behind, month, who, why, at from pointsman.dropped_months order by first

-- name: dropped_notes
select max(before) from pointsman.dropped_notes

-- name: positions
-- "set_back_from" is the highest position that a person ever moved it back from.
select p.id, p.consumer_group, p.cluster, p.topic, p.partition, p.position, p.epoch, p.updated,
    (select max(c.old) from pointsman.position_changes c where c.position = p.id and c.new < c.old) as set_back_from,
    p.topic_id
from pointsman.positions p where p.namespace = $1
order by p.topic, p.partition, p.consumer_group, p.cluster

-- name: list_runs
select p.name, r.id, r.key, r.generation, r.sequence, r.status, r.configuration, r.context, r.recent, r.hash,
    r.definition, r.held, r.waiting, r.started, r.updated, r.memory, a.attributes, h.kind as holding, h.type as held_by,
    case when h.position is null then h.payload end as held_payload,
    case when starts_with(h.type, 'failed.step.') then d.structure end as held_structure, d.version
from pointsman.runs r
join pointsman.pipelines p on p.id = r.pipeline
left join pointsman.definitions d on d.id = r.definition
left join pointsman.run_attributes a on a.run = r.id
left join pointsman.events h on r.held > 0 and h.run = r.id and h.sequence = r.held
where p.namespace = $1
    and ($2::text is null or p.name = $2)
    and ($3::text is null or r.key = $3)
    and ($4::int is null or r.status = $4)
    and ($5::boolean is null or (r.held > 0) = $5)
    and ($6::text is null or $6 = any (string_to_array(split_part(r.configuration, '  ', 1), ' ')))
    and ($8::jsonb[] is null or a.attributes @> any ($8))
    and (not $9::boolean or r.waiting > 0)
    and ($10::boolean is null or $10 = exists (
        select from pointsman.events h where h.run = r.id and h.sequence = r.held and h.kind = $11::smallint
    ))
    and ($12::text is null or $12 = any (string_to_array(split_part(r.configuration, '  ', 1), ' ')))
    and ($13::smallint[] is null or r.held > 0 and exists (
        select from pointsman.events h
        where h.run = r.id and h.sequence = r.held and h.kind = any ($13) and starts_with(h.type, $14::text)
            and h.position is null
    ))
    and ($15::int is null or d.version = $15)
order by r.started desc, r.id desc
limit nullif($7::int, 0)

-- name: pauses
select l.name, p.who, p.why, p.at from pointsman.pauses p join pointsman.pipelines l on l.id = p.pipeline
where l.namespace = $1 and ($2::text is null or l.name = $2) order by l.name

-- name: find_run
select r.id, r.key, r.generation, r.sequence, r.status, r.configuration, r.context, r.recent, r.hash, r.definition,
    r.held, r.waiting, r.started, r.updated, r.memory
from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline
where p.namespace = $1 and p.name = $2 and r.key = $3 and ($4::int is null or r.generation = $4)
order by r.generation desc limit 1

-- name: view_of_run
select p.name, r.id, r.key, r.generation, r.sequence, r.status, r.configuration, r.context, r.recent, r.hash,
    r.definition, r.held, r.waiting, r.started, r.updated, r.memory, a.attributes, h.kind as holding, h.type as held_by,
    case when h.position is null then h.payload end as held_payload,
    case when starts_with(h.type, 'failed.step.') then d.structure end as held_structure, d.version
from pointsman.runs r
join pointsman.pipelines p on p.id = r.pipeline
left join pointsman.definitions d on d.id = r.definition
left join pointsman.run_attributes a on a.run = r.id
left join pointsman.events h on r.held > 0 and h.run = r.id and h.sequence = r.held
where p.namespace = $1 and p.name = $2 and r.key = $3 and ($4::int is null or r.generation = $4)
order by r.generation desc limit 1

-- name: runs_now
-- The latest generation of each key, with the number that it was asked under.
select asked.number as asked, r.id, r.generation, r.sequence, r.status, r.configuration
from unnest($1::int[], $2::int[], $3::text[]) as asked (number, pipeline, key)
cross join lateral (
    select id, generation, sequence, status, configuration from pointsman.runs
    where pipeline = asked.pipeline and key = asked.key order by generation desc limit 1
) r

-- name: rows_between
-- Where runs have been since a row, until another one.
select asked.number, e.configuration
from unnest($1::int[], $2::bigint[], $3::int[], $4::int[]) as asked (number, run, since, until)
cross join lateral (
    select sequence, configuration from pointsman.events
    where run = asked.run and sequence > asked.since and sequence < asked.until
) e
order by asked.number, e.sequence

-- name: generation
select id, key, generation, sequence, status, configuration, context, recent, hash, definition, held, waiting, started,
    updated, memory
from pointsman.runs where pipeline = $1 and key = $2 and generation = $3

-- name: generations
select r.generation
from pointsman.runs r join pointsman.pipelines p on p.id = r.pipeline
where p.namespace = $1 and p.name = $2 and r.key = $3 order by r.generation

-- name: rows_of_run
select run, digest, "offset", at, sequence, position, definition, kind, status, type, event_id, configuration, envelope,
    effects, context, memory, payload, hash
from pointsman.events where run = $1 and ($2::int is null or sequence <= $2) order by sequence

-- name: rows_of_runs
select run, digest, "offset", at, sequence, position, definition, kind, status, type, event_id, configuration, envelope,
    effects, context, memory, payload, hash
from pointsman.events where run between $2::bigint and $3::bigint and run = any ($1::bigint[])
order by run, sequence

-- name: runs_of_pipelines
-- The next runs behind one, in the order of their numbers.
select pipeline, id, key, generation, sequence, status, configuration, context, recent, hash, definition, held, waiting,
    started, updated, memory
from pointsman.runs
where pipeline = any ($1::int[]) and id > $2::bigint and ($3::bigint is null or id = $3)
order by id limit $4

-- name: attributes_of_runs
select run, attributes from pointsman.run_attributes where run = any ($1::bigint[])

-- name: executions_of_runs
select e.run, e.sequence, e.number, e.step, e.attempt, e.again, e.error, e.of, e.made, e.stopping, e.since, e.token,
    exists (
        select from pointsman.tokens t join pointsman.pipelines p on p.namespace = t.namespace
        where p.id = e.pipeline and t.token = e.token and t.run = e.run and t.sequence = e.sequence
            and t.number = e.number
    ) as is_found
from pointsman.executions e where e.run = any ($1::bigint[]) order by e.run, e.sequence, e.number

-- name: executions_going
-- Of a run, those of which an attempt has begun.
select sequence, number from pointsman.executions where run = $1 and holder is not null

-- name: limited_of_run
-- Of a run, what is due and is limited for all engines: of the value of its limit how many attempts go on, as `values_going`
-- counts them, and from when on the next may begin by its rate, where that is to come.
with there as (
    select id from pointsman.holders where seen >= clock_timestamp() - make_interval(secs => $2)
)
select e.sequence, e.number, e.limited_by, (
    select count(*) from pointsman.executions o join pointsman.runs r on r.id = o.run
    where o.pipeline = e.pipeline and o.step = e.step and o.limited_by = e.limited_by and o.holder is not null
        and (r.held = 0 or o.holder in (select id from there))
) + (
    select count(*) from pointsman.step_places p
    where p.pipeline = e.pipeline and p.step = e.step and p.limited_by = e.limited_by
        and p.holder in (select id from there)
) as going, r.next
from pointsman.executions e
join pointsman.runs w on w.id = e.run and w.held = 0
left join pointsman.step_rates r on r.pipeline = e.pipeline and r.step = e.step and r.limited_by = e.limited_by
    and r.next > clock_timestamp()
where e.run = $1 and e.holder is null and e.token = '' and e.limited_by is not null and e.again <= clock_timestamp()

-- name: holders_with_breakers
-- Engines that were heard of so many seconds ago at most, and how their breakers are.
select id, instance, seen, breakers from pointsman.holders
where namespace = $1 and breakers <> '' and seen >= clock_timestamp() - make_interval(secs => $2)
order by instance nulls last, id

-- name: attempts_that_wait
-- How many of a step wait for an attempt. One that goes on outside waits for none.
select p.name, e.step, count(*)
from unnest($2::text[], $3::text[]) as wanted (pipeline, step)
join pointsman.pipelines p on p.namespace = $1 and p.name = wanted.pipeline
join pointsman.executions e on e.pipeline = p.id and e.step = wanted.step and e.holder is null
    and e.token = ''
group by p.name, e.step

-- name: waiting_of_runs
select run, sequence, until from pointsman.waiting where run = any ($1::bigint[]) order by run, sequence

-- name: wakes_of_runs
select id, wake_at from pointsman.runs where id = any ($1::bigint[])

-- name: holders_of_runs
-- The open dead letters that say they hold one of these runs.
select run, sequence, reason from pointsman.dead_letters
where run = any ($1::bigint[]) and sequence is not null and status = 'open'

-- name: hold_reasons
-- Why events that held one of these runs failed, then and now.
select run, sequence, reason, error, event_id from pointsman.dead_letters
where run = any ($1::bigint[]) and sequence is not null

-- name: rested_rows
-- By which one of these runs made way for others.
select run, sequence from pointsman.events where run = any ($1::bigint[]) and kind = $2 and event_id = $3

-- name: rows_without_run
select e.run, min(e.sequence) as sequence, count(*) as rows
from pointsman.events e
where not exists (select from pointsman.runs r where r.id = e.run)
    and not exists (
        select from pointsman.definitions d join pointsman.pipelines p on p.id = d.pipeline
        where d.id = e.definition and p.namespace <> $1
    )
group by e.run order by e.run

-- name: attributes_without_run
select a.run from pointsman.run_attributes a
where not exists (select from pointsman.runs r where r.id = a.run)
order by a.run

-- name: executions_without_run
select e.run, e.sequence from pointsman.executions e
where not exists (select from pointsman.runs r where r.id = e.run)
order by e.run, e.sequence

-- name: waiting_without_run
select w.run, w.sequence from pointsman.waiting w
where not exists (select from pointsman.runs r where r.id = w.run)
order by w.run, w.sequence

-- name: changed_definitions
select d.id, p.name, d.version
from pointsman.definitions d join pointsman.pipelines p on p.id = d.pipeline
where p.namespace = $1 and sha256(d.structure) <> d.hash order by d.id

-- name: consumed_twice
-- A record moves one run of a pipeline once; positions that a person set back may read a topic that was made anew. Where a
-- record may hold several events ($4), that goes for each of them, which has an id or bytes of its own.
select e.position, e."offset", r.pipeline, min(e.run) as first, max(e.run) as last, count(*) as times
from pointsman.events e
join pointsman.runs r on r.id = e.run
where e.kind = any ($2::smallint[]) and r.pipeline = any ($1::int[]) and ($3::bigint is null or e.run = $3)
    and e.position > 0
    and not exists (
        select from pointsman.position_changes c where c.position = e.position and c.new < c.old
    )
group by e.position, e."offset", r.pipeline,
    case when e.position = any ($4::int[]) then e.event_id end,
    case when e.position = any ($4::int[]) then e.payload end
having count(*) > 1
order by e.position, e."offset"

-- name: generations_out_of_place
-- A key begins its next generation once the one before it has ended, and not before.
select r.pipeline, r.key, r.generation, b.generation as before, b.status, b.held
from pointsman.runs r
left join pointsman.runs b on b.pipeline = r.pipeline and b.key = r.key and b.generation = r.generation - 1
where r.pipeline = any ($1::int[]) and ($2::bigint is null or r.id = $2) and r.generation > 0
    and (b.id is null or b.status < $3::smallint or b.held > 0 or b.updated > r.started)
order by r.pipeline, r.key, r.generation

-- name: consumed_by_generations
-- What an earlier generation of a key has consumed is a duplicate for all that come after it.
select r.pipeline, r.key, r.generation, e.sequence, e.event_id, b.generation as before, f.sequence as first
from pointsman.runs r
join pointsman.runs b on b.pipeline = r.pipeline and b.key = r.key and b.generation < r.generation
join pointsman.events e on e.run = r.id
join pointsman.events f on f.run = b.id and f.digest = e.digest
where r.pipeline = any ($1::int[]) and ($2::bigint is null or r.id = $2) and r.generation > 0 and e.digest is not null
order by r.pipeline, r.key, r.generation, e.sequence

-- name: letters_without_hold
-- That of a run that was cancelled stays open, and holds nothing.
select d.id, d.run, d.sequence, d.key, p.name as pipeline
from pointsman.dead_letters d
left join pointsman.pipelines p on p.id = d.pipeline
where d.namespace = $1 and d.status = 'open' and d.sequence is not null
    and ($2::bigint is null or d.run = $2)
    and not exists (select from pointsman.runs r where r.id = d.run and r.held = d.sequence)
    and not exists (
        select from pointsman.events e where e.run = d.run and e.sequence > d.sequence and e.kind = $3::smallint
    )
order by d.id

-- name: lanes
select l.id, l.shard, l.ticket, l.deleted, count(o.sequence) as rows, min(o.sequence) as first, max(o.sequence) as last
from pointsman.lanes l left join pointsman.outbox o on o.lane = l.id
where l.namespace = $1 group by l.id order by l.shard

-- name: blobs
select lane, sequence, blob from pointsman.outbox where lane = any ($1::int[]) order by lane, sequence

-- name: rows_with_event_id
-- Apart from the rest, so that the index on event_id is what finds them.
select run, sequence from pointsman.events where event_id = $1 order by run, sequence limit $2

-- name: rows_sent
-- Of what was sent to a key under an id, since a time: the runs of the key find it, whatever else has the same id.
select e.run, e.sequence
from pointsman.pipelines p
join pointsman.runs r on r.pipeline = p.id
join pointsman.events e on e.run = r.id
where p.namespace = $1 and p.name = $2 and r.key = $3 and e.event_id = $4 and e.at >= $5
    and coalesce(e.position, 0) = 0
order by e.run, e.sequence limit $6

-- name: rows_with_record
select run, sequence from pointsman.events
where "offset" = any ($2::bigint[]) and position = any ($1::int[]) order by run, sequence limit $3

-- name: rows_to_explain
select e.run, e.sequence, e.kind, e.status, e.at, e.position, e."offset", e.definition, e.type, e.event_id,
    e.configuration, e.effects, e.envelope, e.payload, r.pipeline, r.key, r.generation, r.held, r.waiting,
    case when split_part(e.type, '.', 2) = 'step' then (
        select b.memory from pointsman.events b where b.run = e.run and b.sequence < e.sequence and b.memory <> ''
        order by b.sequence desc limit 1
    ) end as memory,
    (select b.configuration from pointsman.events b where b.run = e.run and b.sequence = e.sequence - 1) as before,
    (select max(b.sequence) from pointsman.events b
        where b.run = e.run and b.sequence < e.sequence and b.kind = any ($4::smallint[])) as last_release,
    (select max(b.sequence) from pointsman.events b
        where b.run = e.run and b.sequence < e.sequence and b.kind = any ($5::smallint[])) as last_hold
from unnest($2::bigint[], $3::int[]) as asked (run, sequence)
join pointsman.events e on e.run = asked.run and e.sequence = asked.sequence
join pointsman.runs r on r.id = e.run
join pointsman.pipelines p on p.id = r.pipeline
where p.namespace = $1
order by e.at, e.run, e.sequence

-- name: row
select kind, at, type, event_id, payload from pointsman.events where run = $1 and sequence = $2

-- name: letters_to_explain
select d.id, d.pipeline, d.run, d.sequence, d.key, d.event_id, d.type, d.disposition, d.reason, d.error, d.details,
    d.position, d."offset", d.record_time, d.record_key, d.record_value, d.record_headers, d.dead_letter_topic,
    d.publishing, d.publishing_error, d.status, d.who, d.why, d.at, d.ended, r.generation, r.held, r.waiting,
    d.edited is not null
from pointsman.dead_letters d left join pointsman.runs r on r.id = d.run
where d.namespace = $1 and (
    d.event_id = $2
    or (d.position = any ($3::int[]) and d."offset" = any ($4::bigint[]))
) and ($6::text is null or (
    d.pipeline = (select id from pointsman.pipelines where namespace = $1 and name = $6) and d.key = $7 and d.at >= $8
    and d.position is null
))
order by d.id limit $5

-- name: letter_of_hold
select id, event_id, reason, error, status, who, why, ended, type from pointsman.dead_letters
where run = $1 and sequence = $2
order by id desc limit 1

-- name: notes_to_explain
select n.id, n.position, n."offset", n.pipeline, n.run, n.key, n.event_id, n.type, n.disposition, n.reason, n.details,
    n.at, r.generation
from pointsman.dispositions n
join pointsman.pipelines p on p.id = n.pipeline
left join pointsman.runs r on r.id = n.run
where p.namespace = $1 and (
    n.event_id = $2
    or (n.position = any ($3::int[]) and n."offset" = any ($4::bigint[]))
) and ($6::text is null or (p.name = $6 and n.key = $7 and n.at >= $8 and n.position is null))
order by n.id limit $5

-- name: ranges_to_explain
select position, first, last, records, reason, at from pointsman.ignored_ranges
where position = any ($1::int[]) and first <= $2::bigint and last >= $2::bigint order by position, first, at

-- name: seen_first
-- Of all generations of a key: what one of them has taken is a duplicate for the next.
select e.sequence, e.kind, e.at, e.event_id, r.generation
from pointsman.runs r join pointsman.events e on e.run = r.id
where r.pipeline = $1 and r.key = $2 and e.event_id = $3 and e.kind = any ($4::smallint[]) and e.at <= $5
order by r.generation, e.sequence limit 1

-- name: has_begun
-- Whether an event without a record began a run of a key: the runs of the key find it, whatever else has the same id.
select exists (
    select from pointsman.runs r join pointsman.events e on e.run = r.id
    where r.pipeline = $1 and r.key = $2 and e.event_id = $3 and e.kind = $4::smallint and coalesce(e.position, 0) = 0
)

-- name: last_note
-- Of the events of an id that were sent to a key; the index on event_id is what finds them.
select n.id, n.position, n."offset", n.pipeline, n.run, n.key, n.event_id, n.type, n.disposition, n.reason, n.details,
    n.at, r.generation
from (
    select * from pointsman.dispositions n
    where n.event_id = $3 and n.pipeline = $1 and n.key = $2 and n.disposition = $4::smallint and n.position is null
    offset 0
) n left join pointsman.runs r on r.id = n.run
order by n.id desc limit 1

-- name: seen_by_digest
select e.sequence, e.kind, e.at, e.event_id, r.generation
from pointsman.runs r join pointsman.events e on e.run = r.id
where r.pipeline = $1 and r.key = $2 and e.digest = $3
order by r.generation, e.sequence limit 1

-- name: rows_that_remember
select e.sequence, e.kind, e.at, e.event_id, r.generation, e.memory
from pointsman.runs r join pointsman.events e on e.run = r.id
where r.pipeline = $1 and r.key = $2 and position($3::bytea in e.memory) > 0 and e.at <= $4
order by r.generation, e.sequence

-- name: asking_row
-- The row of a run that asked for an event, which is in its effects by the id that it has.
select e.sequence, e.kind, e.at, e.effects, e.memory as remembered, r.key, r.generation, p.name
from pointsman.pipelines p
join pointsman.runs r on r.pipeline = p.id
join pointsman.events e on e.run = r.id
where p.namespace = $1 and p.name = $2 and r.key = $3 and ($4::text is null or e.event_id = $4)
    and position(convert_to($5, 'UTF8') in e.effects) > 0
order by r.generation, e.sequence limit 1

-- name: asked_of_waking_run
-- The same where only the id is known, among the runs for which something falls due.
select e.sequence as asked_in, e.kind, e.at, e.effects, e.memory as remembered, p.name, r.id, r.key, r.generation, r.sequence, r.status,
    r.configuration, r.context, r.recent, r.hash, r.definition, r.held, r.waiting, r.started, r.updated, r.memory
from pointsman.pipelines p
join pointsman.runs r on r.pipeline = p.id and r.wake_at is not null
join pointsman.events e on e.run = r.id
where p.namespace = $1 and position(convert_to($2, 'UTF8') in e.effects) > 0
limit 1

-- name: run_with_outcome
-- The run that has heard how an attempt ended, by the ids that such an event may have.
select p.name, r.key
from (select run from pointsman.events where event_id = any ($2::text[]) limit 1) found
join pointsman.runs r on r.id = found.run
join pointsman.pipelines p on p.id = r.pipeline
where p.namespace = $1

-- name: run_with_void_outcome
select p.name, n.key
from pointsman.dispositions n join pointsman.pipelines p on p.id = n.pipeline
where p.namespace = $1 and n.event_id = any ($2::text[]) and n.key is not null
limit 1

-- name: run_with_execution
-- The run that waits for an execution, by the id of the effect that asked for it.
select p.name, r.key
from pointsman.executions x
join pointsman.events e on e.run = x.run and e.sequence = x.sequence
join pointsman.runs r on r.id = x.run
join pointsman.pipelines p on p.id = x.pipeline
where p.namespace = $1 and position(convert_to($2, 'UTF8') in e.effects) > 0
limit 1

-- name: ends_of_execution
-- The last row until a time that has to do with an execution, after the one that asked for it.
select e.sequence, e.at, e.type, e.event_id
from pointsman.pipelines p
join pointsman.runs r on r.pipeline = p.id
join pointsman.events e on e.run = r.id
where p.namespace = $1 and p.name = $2 and r.key = $3 and r.generation = $4 and e.sequence > $5 and e.at <= $6
    and (starts_with(e.event_id, $7 || '/') or position(convert_to($7, 'UTF8') in e.effects) > 0)
order by e.sequence desc limit 1

-- name: sent_and_not_taken
select i.body, i.at, p.name
from pointsman.inbox i join pointsman.pipelines p on p.id = i.pipeline
where i.namespace = $1 and i.command = 'event' and position(convert_to($2, 'UTF8') in i.body) > 0
order by i.id

-- name: configuration_before
-- The last row before a time; "unsure" where rows of that very time came before or after.
select configuration, exists (select from pointsman.events where run = $1 and at = $2) as unsure
from pointsman.events where run = $1 and at < $2 order by sequence desc limit 1

-- name: changes_over
select old, new, who, why, at from pointsman.position_changes
where position = $1 and old <= $2::bigint and new > $2::bigint order by id

-- name: list_dead_letters
-- The pipeline is asked for by its number: how many dead letters it has is known as this is planned.
select d.id, d.reason, d.error, coalesce(p.topic, '') as topic, p.partition, d."offset", l.name as pipeline, d.key,
    d.event_id, d.type, d.status, d.publishing, d.at, d.details
from pointsman.dead_letters d
left join pointsman.positions p on p.id = d.position
left join pointsman.pipelines l on l.id = d.pipeline
where d.namespace = $1
    and ($2::text is null or d.status = $2)
    and ($3::text is null or d.reason = $3)
    and ($4::int is null or d.pipeline = $4)
    and ($5::text is null or d.key = $5)
    and ($6::text is null or p.topic = $6
        or case when d.reason = $9 then convert_from(d.details, 'UTF8')::json ->> 'topic' end = $6)
    and ($7::text is null or d.event_id = $7)
order by d.id desc limit nullif($8::int, 0)

-- name: show_dead_letter
select d.id, d.reason, d.error, coalesce(p.topic, '') as topic, p.partition, d."offset", l.name as pipeline, d.key,
    d.event_id, d.type, d.status, d.publishing, d.at, d.details, d.publishing_error, d.dead_letter_topic, d.sequence,
    d.who, d.why, d.ended, d.edited, d.record_time, d.record_key, d.record_value, d.record_headers, r.generation,
    coalesce(r.held = d.sequence, false) as holds, coalesce(r.waiting, 0) as waiting
from pointsman.dead_letters d
left join pointsman.positions p on p.id = d.position
left join pointsman.pipelines l on l.id = d.pipeline
left join pointsman.runs r on r.id = d.run
where d.namespace = $1 and d.id = $2

-- name: letters_to_ask_of
-- With what the run remembers that each of them holds, and what it follows; and the dead letter that its event is now.
select d.id, d.pipeline, d.status, d.reason, d.position, r.memory, f.structure, (
        select max(n.id) from pointsman.dead_letters n
        where n.event_id = d.event_id and n.namespace = d.namespace and n.status = 'open' and n.id > d.id
            and (n.pipeline, n.position, n."offset", n.key)
                is not distinct from (d.pipeline, d.position, d."offset", d.key)
    ) as now
from pointsman.dead_letters d left join pointsman.runs r on r.id = d.run and r.held = d.sequence
left join pointsman.definitions f on f.id = r.definition
where d.namespace = $1 and d.id = any ($2::bigint[]) order by d.id

-- name: ask
-- Of a dead letter of all pipelines it is asked of the group whose engines read its record.
insert into pointsman.inbox (namespace, pipeline, command, body, who, why, consumer_group)
select $1, asked.pipeline, $2, convert_to(json_build_object('dead_letter', asked.id)::text, 'UTF8'), $5, $6,
    case when asked.pipeline is null then p.consumer_group end
from unnest($3::bigint[], $4::int[]) as asked (id, pipeline)
left join pointsman.dead_letters d on d.id = asked.id left join pointsman.positions p on p.id = d.position
order by asked.id
returning id

-- name: ask_to_edit
insert into pointsman.inbox (namespace, pipeline, command, body, who, why, consumer_group)
select $1, $2, 'edit', $3, $4, $5, case when $2::int is null then p.consumer_group end
from pointsman.dead_letters d left join pointsman.positions p on p.id = d.position where d.id = $6
returning id

-- name: notify
select pg_notify($1, '')

-- name: commands_left
select id from pointsman.inbox where id = any ($1::bigint[]) order by id

-- name: records_of_letters
-- With the dead letter that holds the run of each since then; and the one that its event is now.
select d.id, d.status, d.reason, d.pipeline, d.position, d."offset", d.event_id, d.edited is not null as is_edited, (
        select max(n.id) from pointsman.dead_letters n
        where n.event_id = d.event_id and n.namespace = d.namespace and n.status = 'open' and n.id > d.id
            and (n.pipeline, n.position, n."offset", n.key)
                is not distinct from (d.pipeline, d.position, d."offset", d.key)
    ) as now, h.id as holder, h.reason as holder_reason, h.event_id as holder_event_id, h.type as holder_type
from pointsman.dead_letters d
left join pointsman.runs r on r.id = d.run and d.sequence is not null
left join pointsman.dead_letters h on h.run = r.id and h.sequence = r.held and h.status = 'open' and h.id > d.id
where d.id = any ($1::bigint[]) order by d.id

-- name: lock_positions
select id, consumer_group, cluster, partition, position from pointsman.positions
where namespace = $1 and topic = $2 and ($3::int is null or partition = $3)
    and ($4::text is null or consumer_group = $4) and ($5::text is null or cluster = $5)
order by id for update

-- name: set_position
-- Whatever topic has the name by now, it is the one that a person means.
update pointsman.positions set position = $2, epoch = epoch + 1, topic_id = '', updated = now() where id = $1 returning epoch

-- name: add_position_change
insert into pointsman.position_changes (position, old, new, who, why) values ($1, $2, $3, $4, $5)

-- name: place_of_position
select topic, partition, consumer_group from pointsman.positions where id = $1

-- name: way_of_run
select sequence, kind, status, type, configuration, event_id, memory from pointsman.events
where run = $1 order by sequence

-- name: count_states
-- How many runs are where, by version, without those that were cancelled; exact, and one pass over the runs of these pipelines.
select p.name, d.version, split_part(r.configuration, '  ', 1) as configuration, count(*) as runs
from pointsman.runs r
join pointsman.pipelines p on p.id = r.pipeline
join pointsman.definitions d on d.id = r.definition
where p.namespace = $1 and p.name = any ($2::text[]) and r.status <> $3::smallint
group by 1, 2, 3

-- name: structures_of
-- Of all versions of a pipeline, or of all pipelines, the newest first.
select d.structure from pointsman.definitions d join pointsman.pipelines p on p.id = d.pipeline
where p.namespace = $1 and ($2::text is null or p.name = $2) order by d.version desc, d.id desc

-- name: newest_structures
select distinct on (p.id) d.structure from pointsman.definitions d join pointsman.pipelines p on p.id = d.pipeline
where p.namespace = $1 order by p.id, d.version desc, d.id desc

-- name: open_runs_of_version
select r.key, r.generation, r.sequence, r.configuration, h.kind as holding, d.id as definition
from pointsman.pipelines p
join pointsman.definitions d on d.pipeline = p.id and d.version = $3
join pointsman.runs r on r.pipeline = p.id and r.definition = d.id and r.status = $4
left join pointsman.events h on h.run = r.id and h.sequence = r.held
where p.namespace = $1 and p.name = $2 and ($5::text is null or r.key = $5)
order by r.id

-- name: ask_of_run
insert into pointsman.inbox (namespace, pipeline, command, body, who, why, token) values ($1, $2, $3, $4, $5, $6, $7)
returning id

-- name: token
select p.name as pipeline, t.key, t.run, t.sequence, t.number, t.step, t.attempt
from pointsman.tokens t join pointsman.pipelines p on p.id = t.pipeline where t.namespace = $1 and t.token = $2

-- name: ask_of_runs
insert into pointsman.inbox (namespace, pipeline, command, body, who, why)
select $1, asked.pipeline, $2, asked.body, $5, $6
from unnest($3::int[], $4::bytea[]) with ordinality as asked (pipeline, body, number)
order by asked.number
returning id

-- name: operations
-- With the dead letter that the event of one that was not done has become, or one that was sent: it has no position, as one of
-- the same id has that has come from a topic.
select o.command, o.event_id, o.done, o.answer, o.at, l.id as dead_letter, l.reason
from pointsman.operations o left join lateral (
    select d.id, d.reason from pointsman.dead_letters d
    where d.event_id = o.event_id and d.pipeline = o.pipeline and d.key = o.key and d.at >= o.at and d.position is null
    order by d.id desc limit 1
) l on not o.done or o.what = 'send'
where o.command = any ($1::bigint[]) order by o.command

-- name: letters_before
-- By command, the open dead letters that hold nothing and have come from no topic, of events that were sent by the same id to
-- the same key before: with those that this very command has made. Letters, what was sent and what is asked are grouped, and
-- not joined: of one id there may be very many of each, and a join would compare all with all.
with letters as materialized (
    select id, event_id, pipeline, key from pointsman.dead_letters
    where namespace = $1 and event_id = any ($3::text[]) and position is null and sequence is null and status = 'open'
)
select max(one.asked) as command, array_agg(one.letter order by one.letter) filter (where one.letter is not null) as letters
from (
    select event_id, pipeline, key, id as letter, null::bigint as sent, null::bigint as asked from letters
    union all
    select event_id, pipeline, key, null, command, null from pointsman.operations
    where event_id = any (array(select distinct event_id from letters)) and what = 'send'
    union all
    select a.event_id, p.id, a.key, null, null, a.command
    from unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) as a (command, event_id, pipeline, key)
    join pointsman.pipelines p on p.namespace = $1 and p.name = a.pipeline
) one
group by one.event_id, one.pipeline, one.key
having count(one.letter) > 0 and min(one.sent) < max(one.asked)

-- name: end_told
-- Of what was sent, that is: which has no position, as it has come from no topic.
update pointsman.dead_letters set status = 'dropped', who = $2, why = $3, ended = now()
where id = any ($1::bigint[]) and status = 'open' and sequence is null and position is null

-- name: operation_of_event
-- Who has sent an event to a run of a pipeline first, and why.
select who, why, asked from pointsman.operations where event_id = $1 and pipeline = $2 and key = $3 and what in ('send', 'complete', 'fail')
order by command limit 1

-- name: asked_and_not_taken
-- Events that operators have sent, and no engine has taken up. The id is looked for in the bytes, for JSON may have a NUL in
-- its data, which no text of Postgres can have. The event is a text in it: its quotes are escaped, so that it is not found.
select i.who, i.why, i.at, p.name, i.body
from pointsman.inbox i join pointsman.pipelines p on p.id = i.pipeline
where i.namespace = $1 and i.command = 'send'
    and position(convert_to('"event_id":' || to_json($2::text), 'UTF8') in i.body) > 0
order by i.id
