-- What engines have loaded. Runs as the owner, in the schema pointsman.

-- The definitions of a set, by their numbers; null until an engine that has loaded it has registered them.
alter table engine_sets add column definitions int[];

grant update (definitions) on engine_sets to pointsman_engine;
