-- Strikes of what runs have asked for themselves, which are known by something else now. Runs as the owner, in the schema
-- pointsman.

-- Those before would never be found again, nor forgotten. -1: timers, and what a run has sent to itself.
delete from strikes where position = -1;
