-- Several statements go to Postgres in one message, so that nobody looks at what one has done before the next. Runs as the
-- owner, in the schema pointsman.

-- Ends the transaction where a statement has not done as much as was expected of it; what is lost then is the error's code.
create function expect(done bigint, wanted bigint, lost text) returns void
language plpgsql as $$
begin
    if done <> wanted then
        raise exception '% rows of % are as they were expected', done, wanted using errcode = lost;
    end if;
end;
$$;
