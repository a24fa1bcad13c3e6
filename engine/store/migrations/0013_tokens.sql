-- Tokens that are waited for no more. Runs as the owner, in the schema pointsman.

-- Since when; null while one is waited for. After a while they are forgotten: who comes with one then is told that nobody
-- knows it.
alter table tokens add column over_at timestamptz;
update tokens set over_at = now() where not waits;
create index tokens_over on tokens (namespace, over_at) where over_at is not null;

grant delete on tokens to pointsman_engine;

-- Who asks what has taken too long looks first for what completes it.
create index inbox_completions on inbox (pipeline) where command in ('complete', 'fail');
