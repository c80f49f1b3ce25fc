-- What the contract is tried on. To try another server, run this in its database, have it know the tests' secret
-- (tests/src/web.rs), and name it: PG_SHELL_REST_URL=http://…  (where PostgREST has /rpc).
insert into shell.users (id, username)
values ('11111111-1111-4111-8111-111111111111', 'rest one'), ('22222222-2222-4222-8222-222222222222', 'rest two');

create table public.rest_log (id int generated always as identity, note text unique);
grant insert, select on public.rest_log to shell_user, shell_anonymous;

create type shell_api.rest_pair as (id int, name text);
create function shell_api.rest_add(a int, b int default 2) returns int
language sql immutable as $$ select a + b $$;
create function shell_api.rest_rows(n int default 5) returns table (id int, name text, odd boolean, tags text[])
language sql stable as $$ select i, 'row ' || i, i % 2 = 1, array['t' || i] from generate_series(1, n) as i $$;
create function shell_api.rest_numbers() returns setof int language sql stable as $$ select generate_series(1, 3) $$;
create function shell_api.rest_pair() returns shell_api.rest_pair
language sql stable as $$ select (7, 'seven')::shell_api.rest_pair $$;
create function shell_api.rest_nothing() returns void language sql volatile as $$ select $$;
create function shell_api.rest_write(note text) returns int
language sql volatile as $$ insert into public.rest_log (note) values (note) returning 1 $$;
create function shell_api.rest_write_rows(note text) returns setof int
language sql volatile as $$ insert into public.rest_log (note) values (note || '1'), (note || '2') returning 1 $$;
create function shell_api.rest_written() returns setof text
language sql stable as $$ select l.note from public.rest_log as l order by l.id $$;
create function shell_api.rest_false_stable() returns int
language plpgsql stable as $$ begin return shell_api.rest_write('stable'); end $$;
create function shell_api.rest_over(a int) returns int language sql stable as $$ select a $$;
create function shell_api.rest_over(a text) returns text language sql stable as $$ select a $$;
create function shell_api.rest_json(v jsonb) returns jsonb language sql stable as $$ select v $$;
create function shell_api.rest_array(v int[]) returns int language sql stable as $$ select v[2] $$;
create function shell_api.rest_text(v text) returns text language sql stable as $$ select v $$;
create function shell_api.rest_html(name text) returns shell_api."text/html"
language sql stable as $$ select '<b>' || name || '</b>' $$;
create function shell_api.rest_setting(name text) returns text
language sql stable as $$ select current_setting(name, true) $$;
create function shell_api.rest_role() returns text language sql stable as $$ select current_user::text $$;
create function shell_api.rest_headers() returns int
language sql volatile as $$
  select set_config('response.headers', '[{"X-One": "1"}, {"Cache-Control": "max-age=7"}]', true);
  select set_config('response.status', '202', true);
  select 1
$$;
create function shell_api.rest_bad_headers() returns int
language sql volatile as $$ select set_config('response.headers', '{}', true); select 1 $$;
create function shell_api.rest_bad_status() returns int
language sql volatile as $$ select set_config('response.status', 'x', true); select 1 $$;
create function shell_api.rest_raise(code text) returns int
language plpgsql volatile as $$
begin
  raise exception using errcode = code, message = 'raised', detail = 'the detail', hint = 'the hint';
end
$$;
create function shell_api.rest_raise_whole() returns int
language plpgsql stable as $$
begin
  raise sqlstate 'PGRST' using
    message = '{"code": "T1", "message": "whole", "details": "d", "hint": "h"}',
    detail = '{"status": 418, "headers": {"X-Tea": "yes"}}';
end
$$;
set check_function_bodies = off;
create function shell_api.rest_deep() returns int language sql stable as $$ select 1 from no_such_table $$;
create function shell_api.rest_two_rows() returns int
language sql stable as $$ select (select i from generate_series(1, 2) as i) $$;
notify pgrst, 'reload schema';
