//! One session: its log and the prompt.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::Frame;
use super::model::{Command, Session};
use super::visit::{Visit, fragment, html, missing, page};
use crate::error::Error;
use crate::server::Server;
use crate::sql::Sql;

/// Commands shown at first, and each time earlier ones are asked for.
const COMMANDS: usize = 40;
/// So many are shown where a link names one far back.
const MOST: usize = 1000;
/// Sessions with a tab.
const TABS: usize = 12;
/// How far back the history is searched, and what of it is shown.
const SEARCHED: usize = 20_000;
const FOUND: usize = 30;

#[derive(Template)]
#[template(path = "terminal.html")]
struct Terminal {
    frame: Frame,
    session: Option<Session>,
    tabs: Vec<Session>,
    commands: Vec<Command>,
    earlier: Option<(Uuid, i64)>,
}

impl Terminal {
    fn is_open(&self, tab: &Session) -> bool {
        self.session.as_ref().is_some_and(|open| open.id == tab.id)
    }
}

#[derive(Template)]
#[template(path = "commands.html")]
struct Commands {
    commands: Vec<Command>,
    earlier: Option<(Uuid, i64)>,
}

/// A command that has not ended, or that is no part of the log yet.
#[derive(Template)]
#[template(path = "command.html")]
struct Begun {
    command: Command,
}

/// A command that has ended, and the prompt after it.
#[derive(Template)]
#[template(path = "finished.html")]
struct Finished {
    frame: Frame,
    command: Command,
    session: Option<Session>,
}

#[derive(Template)]
#[template(path = "history.html")]
struct History {
    found: Vec<String>,
}

#[derive(Deserialize)]
struct Found {
    session: Option<Session>,
    tabs: Vec<Session>,
    commands: Vec<Command>,
}

pub async fn home(State(server): State<Arc<Server>>, request: Request) -> Response {
    page(server, request, async |visit| show(visit, None).await).await
}

pub async fn session(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    page(server, request, async |visit| {
        show(visit, Some(id.parse().map_err(|_| missing("session"))?)).await
    })
    .await
}

/// The session, or the default one, or where there is none yet a prompt that makes it.
async fn show(visit: Visit<'_>, wanted: Option<Uuid>) -> Result<Response, Error> {
    let mut sql = Sql::default();
    sql.push("with open as materialized (select s.* from shell_api.sessions as s where ");
    match wanted {
        Some(id) => {
            sql.push("s.id = ");
            sql.value(id.to_string());
        }
        None => sql.push("s.user_id = (select shell.current_user_id()) order by s.is_default desc, s.updated_at desc limit 1"),
    }
    sql.push(&format!(
        "), tabs as (
           select s.* from shell_api.sessions as s
           where s.user_id = (select shell.current_user_id()) and s.id is distinct from (select o.id from open as o)
           order by s.is_default desc, s.updated_at desc limit {TABS})
         select json_build_object(
           'session', (select row_to_json(o) from open as o),
           'tabs', (select coalesce(json_agg(t order by t.created_at, t.id), '[]')
             from (select * from open union all select * from tabs) as t),
           'commands', (select coalesce(json_agg(c order by c.id), '[]') from (
             select {} from open as o cross join lateral shell_api.session_commands(o.id, null, ",
        Command::columns(false),
    ));
    match visit.parameter("at").and_then(|id| id.parse::<i64>().ok()) {
        Some(id) => {
            sql.push("greatest(least((select count(*) from shell_api.command_log as x where x.environment_id = o.id and x.id >= ");
            sql.value(id.to_string());
            sql.push(&format!(
                "::bigint) + {}, {MOST}), {})::int",
                COMMANDS / 2,
                COMMANDS + 1
            ));
        }
        None => sql.push(&(COMMANDS + 1).to_string()),
    }
    sql.push(") as l) as c))::text");
    let found: Found = visit.ask(&sql).await?;
    if wanted.is_some() && found.session.is_none() {
        return Err(missing("session"));
    }
    let mut commands = found.commands;
    html(&Terminal {
        frame: visit.frame("terminal"),
        earlier: earlier_than(&mut commands),
        session: found.session,
        tabs: found.tabs,
        commands,
    })
}

/// Takes the one command too many away, and tells before which there are more.
fn earlier_than(commands: &mut Vec<Command>) -> Option<(Uuid, i64)> {
    if commands.len() <= COMMANDS {
        return None;
    }
    commands.remove(0);
    commands
        .first()
        .map(|command| (command.environment_id, command.id))
}

pub async fn earlier(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push(&format!(
            "select coalesce(json_agg(c order by c.id), '[]')::text from (select {} from shell_api.session_commands(",
            Command::columns(false)
        ));
        sql.value(id);
        sql.push("::uuid, ");
        sql.value(visit.parameter("before").unwrap_or_default());
        sql.push(&format!("::bigint, {}) as l) as c", COMMANDS + 1));
        let mut commands: Vec<Command> = visit.ask(&sql).await?;
        html(&Commands { earlier: earlier_than(&mut commands), commands })
    })
    .await
}

/// One command as it is now; with `whole=true` all of its output.
pub async fn command(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fragment(server, request, async |visit| {
        let whole = visit.parameter("whole").is_some();
        one(&visit, id, whole).await
    })
    .await
}

/// A command as a fragment.
pub async fn one(visit: &Visit<'_>, id: String, whole: bool) -> Result<Response, Error> {
    let mut sql = Sql::default();
    sql.push(&format!(
        "select row_to_json(f)::text from (
           select (select row_to_json(c) from (select {}) as c) as command,
             (select row_to_json(s) from shell_api.sessions as s where s.id = l.environment_id) as session
           from shell_api.command_log as l where l.id = ",
        Command::columns(whole)
    ));
    sql.value(id);
    sql.push("::bigint) as f");
    #[derive(Deserialize)]
    struct One {
        command: Command,
        session: Option<Session>,
    }
    let found: Option<One> = visit.ask(&sql).await?;
    let One { command, session } = found.ok_or_else(|| missing("command"))?;
    match command.is_finished() {
        true => html(&Finished {
            frame: visit.frame("terminal"),
            command,
            session,
        }),
        false => html(&Begun { command }),
    }
}

/// Commands with a text in them, each once, the latest first.
pub async fn history(State(server): State<Arc<Server>>, request: Request) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push(&format!(
            "select coalesce(json_agg(h.command order by h.id desc), '[]')::text from (
               select l.command, max(l.id) as id from (
                 select c.id, c.command from (select shell.current_user_id() as id) as u
                 join shell_api.command_log as c on c.user_id between u.id and u.id
                 order by c.user_id desc, c.id desc limit {SEARCHED}) as l
               where strpos(lower(l.command), lower("
        ));
        sql.value(visit.parameter("q").unwrap_or_default());
        sql.push(&format!(
            ")) > 0 group by l.command order by max(l.id) desc limit {FOUND}) as h"
        ));
        html(&History {
            found: visit.ask(&sql).await?,
        })
    })
    .await
}
