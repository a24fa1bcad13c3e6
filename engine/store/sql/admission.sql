-- name: role
select rolsuper,
    pg_has_role(current_user, (select relowner from pg_class where oid = 'pointsman.events'::regclass), 'member'),
    has_table_privilege('pointsman.events', 'update') or has_table_privilege('pointsman.events', 'delete'),
    current_user::text
from pg_roles where rolname = current_user

-- name: describe_set
insert into pointsman.engine_sets (lock_class, lock_object, description) values ($1, $2, $3) on conflict do nothing

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
