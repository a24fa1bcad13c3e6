-- The road: from a record to a durable transition. Runs as the owner, in the schema pointsman.

-- Which store this is; a relay that finds another one at the same address stops.
create table store (
    id uuid primary key default gen_random_uuid(),
    one boolean not null unique default true check (one)
);
insert into store default values;

create table pipelines (
    id int generated always as identity primary key,
    namespace text not null,
    name text not null,
    unique (namespace, name)
);

-- Content-addressed: structure and code as canonical bytes' hashes, the structure itself beside them.
create table definitions (
    id int generated always as identity primary key,
    pipeline int not null references pipelines,
    version int not null,
    hash bytea not null,
    code bytea not null,
    structure bytea not null,
    registered timestamptz not null default now(),
    unique (pipeline, version, hash, code)
);

-- The next offset to apply, by partition. Whoever is assigned the partition raises the epoch.
create table positions (
    id int generated always as identity primary key,
    namespace text not null,
    consumer_group text not null,
    cluster text not null,
    topic text not null,
    partition int not null,
    epoch bigint not null default 0,
    position bigint not null,
    updated timestamptz not null default now(),
    unique (namespace, consumer_group, cluster, topic, partition)
) with (fillfactor = 50);

-- Positions that a person set, and why.
create table position_changes (
    id bigint generated always as identity primary key,
    position int not null references positions,
    old bigint not null,
    new bigint not null,
    who text not null,
    why text not null,
    at timestamptz not null default now()
);

create table runs (
    id bigint primary key,
    started timestamptz not null,
    updated timestamptz not null,
    pipeline int not null,
    generation int not null,
    sequence int not null,
    definition int not null,
    held int not null,
    waiting int not null,
    status smallint not null,
    key text collate "C" not null,
    configuration text collate "C" not null,
    recent bytea not null,
    hash bytea not null,
    context bytea not null,
    wake_at timestamptz,
    constraint runs_address unique (pipeline, key, generation)
) with (fillfactor = 50);
create index runs_wake_at on runs (wake_at) where wake_at is not null;
create index runs_held on runs (pipeline, id) where held > 0;
-- The runs of one batch have one time, so that the index keeps it once for all of them: eight bytes a run.
create index runs_started on runs (started);

-- The event log. Empty bytes stand for "none" (effects) and "unchanged" (context), which keeps ordinary rows free of
-- nulls; the payload comes before the short columns, where its length needs no padding. Partitioned by the run's start,
-- which but for a few minutes is the upper part of its id, so that a run lies in one partition.
create table events (
    run bigint not null,
    digest bigint,
    "offset" bigint,
    at timestamptz not null,
    sequence int not null,
    position int,
    definition int not null,
    kind smallint not null,
    status smallint not null,
    payload bytea,
    type text collate "C" not null,
    event_id text collate "C" not null,
    configuration text collate "C" not null,
    hash bytea not null,
    envelope bytea not null,
    effects bytea not null,
    context bytea not null,
    constraint events_sequence primary key (run, sequence),
    constraint events_digest unique (run, digest)
) partition by range (run);
create index events_event_id on events using brin (event_id text_bloom_ops) with (autosummarize = on);
create index events_offset on events using brin ("offset" int8_minmax_multi_ops) with (autosummarize = on);

-- Events that wait behind what holds their run; the event itself is in the log row of the same number.
create table waiting (
    run bigint not null,
    sequence int not null,
    digest bigint not null,
    primary key (run, sequence),
    unique (run, digest)
);

create table dead_letters (
    id bigint generated always as identity primary key,
    namespace text not null,
    pipeline int references pipelines,
    run bigint,
    sequence int,
    key text collate "C",
    event_id text collate "C",
    type text collate "C",
    disposition smallint not null,
    reason text not null,
    error text not null,
    details bytea not null,
    position int references positions,
    "offset" bigint,
    record_time bigint not null,
    record_key bytea,
    record_value bytea,
    record_headers bytea not null,
    dead_letter_topic text,
    publishing text not null default 'pending',
    publishing_error text not null default '',
    status text not null default 'open' check (status in ('open', 'redriven', 'dropped')),
    who text not null default '',
    why text not null default '',
    at timestamptz not null,
    ended timestamptz
);
create index dead_letters_open on dead_letters (namespace, id) where status = 'open';
create index dead_letters_event on dead_letters (event_id);
create index dead_letters_record on dead_letters (position, "offset");
create index dead_letters_run on dead_letters (run) where run is not null;

-- What became of the events that the log and the dead letters do not show: ignored, and duplicates.
create table dispositions (
    id bigint generated always as identity primary key,
    position int references positions,
    "offset" bigint,
    pipeline int not null references pipelines,
    run bigint,
    key text collate "C",
    event_id text collate "C" not null,
    type text collate "C" not null,
    disposition smallint not null,
    reason text not null,
    details bytea not null,
    at timestamptz not null
);
create index dispositions_record on dispositions (position, "offset");
create index dispositions_event on dispositions (event_id);

-- Records of a type that no pipeline knows, on topics that say to ignore them.
create table ignored_ranges (
    position int not null references positions,
    first bigint not null,
    last bigint not null,
    records bigint not null,
    at timestamptz not null,
    primary key (position, first)
);

-- What people and services ask of runs; consumed by deleting the row in the transaction of what it caused.
create table inbox (
    id bigint generated always as identity primary key,
    namespace text not null,
    pipeline int,
    command text not null,
    body bytea not null,
    who text not null,
    why text not null,
    at timestamptz not null default now()
);

-- What leaves. One lane is one order of commits; its ticket is taken by the last statement of a transaction.
create table lanes (
    id int generated always as identity primary key,
    namespace text not null,
    shard int not null,
    ticket bigint not null default 0,
    deleted bigint not null default 0,
    unique (namespace, shard)
) with (fillfactor = 50);

create table outbox (
    lane int not null references lanes,
    sequence bigint not null,
    blob bytea not null,
    primary key (lane, sequence)
);
alter table outbox alter column blob set storage external;

-- Records of the outbox that the broker refused for good, and what a person accepted; the relay leaves them out.
create table outbox_refusals (
    lane int not null references lanes,
    sequence bigint not null,
    index int not null,
    error text not null,
    at timestamptz not null default now(),
    primary key (lane, sequence, index)
);
create table relay_decisions (
    id bigint generated always as identity primary key,
    lane int not null references lanes,
    progress bigint not null,
    ticket bigint not null,
    who text not null,
    why text not null,
    at timestamptz not null default now()
);

-- Records during which an engine was ended because a handler never returned.
create table strikes (
    position int not null references positions,
    "offset" bigint not null,
    strikes int not null,
    handler text not null,
    at timestamptz not null default now(),
    primary key (position, "offset")
);

-- Which set of pipelines an advisory lock of an engine stands for, in words.
create table engine_sets (
    lock_class int not null,
    lock_object int not null,
    description text not null,
    primary key (lock_class, lock_object)
);

create sequence run_blocks;

-- The first of 4,096 run ids: milliseconds since 1970 by the database's clock, then 22 bits that do not repeat within one.
create function allocate_run_ids() returns bigint
language sql volatile
begin atomic
    select ((extract(epoch from clock_timestamp()) * 1000)::bigint << 22)
        | ((nextval('pointsman.run_blocks') % 1024) << 12);
end;

-- The partition of the log for this month; a later migration makes those beside it. The engine may call it and not make tables itself.
create function ensure_partitions() returns int
language plpgsql security definer set search_path = pointsman, pg_temp
as $$
declare
    month date;
    made int := 0;
begin
    perform pg_advisory_xact_lock(hashtext('pointsman.ensure_partitions'));
    for step in 0..0 loop
        month := (date_trunc('month', now() at time zone 'utc') + make_interval(months => step))::date;
        if to_regclass(format('pointsman.events_%s', to_char(month, 'YYYYMM'))) is null then
            execute format(
                'create table pointsman.events_%s partition of pointsman.events for values from (%s) to (%s)',
                to_char(month, 'YYYYMM'),
                (extract(epoch from month::timestamp at time zone 'utc') * 1000)::bigint << 22,
                (extract(epoch from (month + interval '1 month') at time zone 'utc') * 1000)::bigint << 22
            );
            made := made + 1;
        end if;
    end loop;
    return made;
end;
$$;

select ensure_partitions();

revoke all on function ensure_partitions() from public;
grant usage on schema pointsman to pointsman_engine, pointsman_reader;
grant select on all tables in schema pointsman to pointsman_engine, pointsman_reader;
grant execute on function ensure_partitions(), allocate_run_ids() to pointsman_engine;
grant usage on sequence run_blocks to pointsman_engine;
grant insert on pipelines, definitions, events, dispositions, position_changes, outbox_refusals, relay_decisions, engine_sets
    to pointsman_engine;
grant insert, update on runs, positions, dead_letters, ignored_ranges, lanes to pointsman_engine;
grant insert, delete on waiting, inbox, outbox to pointsman_engine;
grant insert, update, delete on strikes to pointsman_engine;
