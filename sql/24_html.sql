-- Fragments for pages, escaped. PostgREST answers "Accept: text/html" with what a function of this domain returns.

create domain shell_api."text/html" as text;
comment on domain shell_api."text/html" is 'A fragment of HTML.';

create function shell.html(value text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select replace(replace(replace(replace(replace(
    value, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;')
$$;
comment on function shell.html(text) is 'The text as HTML, for content and for attributes in quotes.';

create function shell.plain_text(value text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    regexp_replace(
      regexp_replace(
        regexp_replace(
          regexp_replace(
            regexp_replace(value, '\x1B\[[0-?]*[ -/]*[@-~]', '', 'g'),
            '\x1B[\]PX^_][^\x07\x1B]*(\x07|\x1B\\)?', '', 'g'),
          '\x1B[ -/]*[0-~]?', '', 'g'),
        '\r+\n', E'\n', 'g'),
      '[^\n]*\r(?=[^\n])|[\x01-\x08\x0B-\x1F\x7F]', '', 'g')
$$;
comment on function shell.plain_text(text) is
  'Output without the control sequences of a terminal; of a line that was written again, the last.';

create function shell.command_as_html(command shell_api.command_log) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select concat(
    format(
      '<article class="command" id="command-%s" data-status="%s">', (command).id, shell.html((command).status)),
    format(
      '<header><span class="cwd">%s</span> <code>%s</code></header>',
      shell.html((command).cwd_snapshot), shell.html((command).command)),
    -- The end of what is long: a page is no place for megabytes.
    format('<pre class="output">%s</pre>', shell.html(shell.plain_text(right((command).output, 100000)))),
    format(
      '<footer><span class="status">%s</span> <span class="exit-code">%s</span> <span class="reason">%s</span> ',
      shell.html((command).status), (command).exit_code, shell.html((command).failure_reason)),
    format(
      '<time datetime="%1$s">%1$s</time></footer></article>',
      to_char((command).submitted_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))
$$;
comment on function shell.command_as_html(shell_api.command_log) is 'A command and its output as an article.';

create function shell_api.latest_output_html(user_id uuid default null, n int default 20)
returns shell_api."text/html"
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(string_agg(shell.command_as_html(l), E'\n' order by l.id desc), '')
  from shell_api.latest_output(latest_output_html.user_id, latest_output_html.n) as l
$$;
comment on function shell_api.latest_output_html(uuid, int) is 'What latest_output gives, as HTML.';

create function shell_api.command_html(command_id bigint) returns shell_api."text/html"
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select shell.command_as_html(l)
  from shell_api.command_log as l
  where l.id = command_html.command_id and (select shell.require_visible_command(command_html.command_id))
$$;
comment on function shell_api.command_html(bigint) is 'A command and its output, as HTML.';

create function shell_api.sessions_html() returns shell_api."text/html"
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format('<ul class="sessions">%s</ul>', string_agg(
    format(
      '<li class="session" id="session-%s" data-default="%s" data-parent="%s">'
      '<span class="name">%s</span> <span class="cwd">%s</span> <span class="exit-code">%s</span></li>',
      s.id, s.is_default, s.parent_id, shell.html(s.name), shell.html(s.cwd), s.last_exit_code),
    E'\n' order by s.created_at, s.id))
  from shell_api.sessions as s
$$;
comment on function shell_api.sessions_html() is 'The sessions that the request sees, as an HTML list.';
