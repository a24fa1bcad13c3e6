-- name: role
-- Whoever may take on another role may do what that one may; and who is granted a partition need not ask its parent.
with mine as (
    select oid from pg_roles where pg_has_role(current_user, oid, 'member')
), log as (
    select c.oid, c.relowner, format('%I.%I', n.nspname, c.relname) as name
    from pg_partition_tree('pointsman.events') t
    join pg_class c on c.oid = t.relid join pg_namespace n on n.oid = c.relnamespace
), allowed as (
    select distinct privilege.name || ' on ' || log.name as told
    from mine, log, (values ('DELETE'), ('TRUNCATE'), ('UPDATE')) as privilege (name)
    where has_table_privilege(mine.oid, log.oid, privilege.name)
        or (privilege.name = 'UPDATE' and has_any_column_privilege(mine.oid, log.oid, privilege.name))
)
select rolsuper,
    exists (select from log where pg_has_role(current_user, relowner, 'member')),
    array(select told from allowed order by told limit 3),
    current_user::text
from pg_roles where rolname = current_user

-- name: may_make_temporary
select current_user::text, current_database()::text, has_database_privilege(current_database(), 'TEMPORARY')

-- name: describe_set
insert into pointsman.engine_sets (lock_class, lock_object, description) values ($1, $2, $3) on conflict do nothing

-- name: note_definitions
-- From now on open runs may follow them.
with loaded as (
    select id from pointsman.definitions where id = any ($3::int[]) order by id for update
), noted as (
    update pointsman.definitions d set loads = d.loads + 1, is_over = false from loaded where d.id = loaded.id
)
update pointsman.engine_sets set definitions = $3::int[] where lock_class = $1 and lock_object = $2

-- name: others_of_set
select count(*)
from pg_locks
where locktype = 'advisory' and granted and objsubid = 2 and mode = 'ShareLock'
    and database = (select oid from pg_database where datname = current_database())
    and classid::bigint = ($1::int::bigint & 4294967295) and objid::bigint = ($2::int::bigint & 4294967295)

-- name: engines_of_group
select exists (
    select from pg_locks
    where locktype = 'advisory' and granted and objsubid = 2 and mode = 'ShareLock'
        and database = (select oid from pg_database where datname = current_database())
        and classid::bigint = ($1::int::bigint & 4294967295)
)

-- name: engines_at_work
-- Of all namespaces and groups.
select s.description, count(*)
from pg_locks l
join pointsman.engine_sets s
    on (s.lock_class::bigint & 4294967295) = l.classid::bigint
    and (s.lock_object::bigint & 4294967295) = l.objid::bigint
where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.mode = 'ShareLock'
    and l.database = (select oid from pg_database where datname = current_database())
group by s.description order by s.description

-- name: definitions_by_name
select d.id, d.version, d.hash, d.code
from pointsman.definitions d join pointsman.pipelines p on p.id = d.pipeline
where p.namespace = $1 and p.name = $2

-- name: other_set
select coalesce(s.description, 'unknown')
from pg_locks l
left join pointsman.engine_sets s
    on (s.lock_class::bigint & 4294967295) = l.classid::bigint
    and (s.lock_object::bigint & 4294967295) = l.objid::bigint
where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.mode = 'ShareLock'
    and l.database = (select oid from pg_database where datname = current_database())
    and l.classid::bigint = ($1::int::bigint & 4294967295) and l.objid::bigint <> ($2::int::bigint & 4294967295)
limit 1
