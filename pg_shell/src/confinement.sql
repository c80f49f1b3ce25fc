-- What this host can do of the confinement. The launcher tries it; what it says comes as JSON, once.

create function shell.confinement_report() returns json
language c volatile parallel unsafe cost 100000
as 'MODULE_PATHNAME', 'pg_shell_confinement_report';
comment on function shell.confinement_report() is 'The rows of shell.confinement(), as one JSON array.';

create function shell.confinement()
returns table (step text, available boolean, detail text, hint text, strict text, basic text)
language sql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
  select r.step, r.available, r.detail, r.hint, r.strict, r.basic
  from rows from (
    json_to_recordset(shell.confinement_report())
    as (step text, available boolean, detail text, hint text, strict text, basic text)
  ) with ordinality as r (step, available, detail, hint, strict, basic, nth)
  order by r.nth
$$;
comment on function shell.confinement() is
  'What the database''s host can do of the confinement, step by step, as exec-worker doctor says it of the '
  'worker''s: whether a step can be taken, what was tried, what to do where it cannot, and whether the levels '
  'strict and basic use it. The last rows say whether each level is available.';
