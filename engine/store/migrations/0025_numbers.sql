-- Engines number the executions that they begin themselves, so that they need not hear by which number the store knows each.
-- Runs as the owner, in the schema pointsman.

grant usage on sequence executions_id_seq to pointsman_engine;
