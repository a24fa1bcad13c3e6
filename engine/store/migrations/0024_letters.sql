-- What is asked of dead letters is found by the group that it is for; and a dead letter by its event and its run. Runs as the owner,
-- in the schema pointsman.

-- Of what is asked of a dead letter of all pipelines: the group whose engines read its record; null: any may take it. Engines of
-- other groups pass over all of it at once, however much waits.
alter table inbox add column consumer_group text;
update inbox i set consumer_group = p.consumer_group
from dead_letters d join positions p on p.id = d.position
where i.pipeline is null and d.id = case
    when i.command in ('redrive', 'drop', 'edit') then (convert_from(i.body, 'UTF8')::json ->> 'dead_letter')::bigint
end;
drop index inbox_of_all;
create index inbox_of_group on inbox (namespace, coalesce(consumer_group, ''), id) where pipeline is null;

-- One id may be that of very many dead letters, each of another run: where an event was sent to many.
drop index dead_letters_event;
create index dead_letters_event on dead_letters (event_id, pipeline, key);
