//! A replay: its commands beside those that they repeat.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use uuid::Uuid;

use super::Frame;
use super::model::{Command, Session};
use super::visit::{Visit, fragment, html, missing, page};
use crate::server::Server;
use crate::sql::Sql;

/// Commands shown at a time.
const PAIRS: usize = 100;

#[derive(Template)]
#[template(path = "replay.html")]
struct Replay {
    frame: Frame,
    original: Option<Session>,
    verdict: Verdict,
    pairs: Vec<Pair>,
    /// Whether those that are the same are left out.
    different: bool,
    /// After which command there are more.
    more: Option<i64>,
    update: bool,
}

/// One command of it, and what that makes of the whole: this is put where it stood before.
#[derive(Template)]
#[template(path = "replayed.html")]
struct Replayed {
    pair: Pair,
    verdict: Verdict,
    update: bool,
    different: bool,
}

/// How many commands did what they had done.
#[derive(Deserialize)]
struct Verdict {
    replay: Uuid,
    original: Uuid,
    same: i64,
    different: i64,
    open: i64,
}

/// A command beside the one that it repeats.
#[derive(Deserialize)]
struct Pair {
    differs: bool,
    original: Command,
    replayed: Command,
}

/// Lines as HTML; true for those that the other side does not have there.
type Lines = Vec<(String, bool)>;

impl Verdict {
    /// Of the one `replay`, if there is one.
    const COUNTED: &str = "(select row_to_json(n) from replay as r cross join lateral (
        select r.id as replay, r.replay_of as original, count(*) filter (where d.differs) as different,
          count(*) filter (where not d.differs and d.replay_status in ('done', 'failed')) as same,
          count(*) filter (where d.replay_status not in ('done', 'failed')) as open
        from shell_api.replay_differences as d where d.replay_id = r.id) as n)";

    fn all(&self) -> i64 {
        self.same + self.different + self.open
    }
}

impl Pair {
    /// Its columns, of `d`.
    fn columns() -> String {
        let command = |id| {
            format!(
                "(select row_to_json(c) from (
                   select {} from shell_api.command_log as l where l.id = d.{id}) as c)",
                Command::columns(false)
            )
        };
        format!(
            "d.differs, {} as original, {} as replayed",
            command("original_command_id"),
            command("replay_command_id")
        )
    }

    /// A word for style sheets and scripts.
    fn verdict(&self) -> &'static str {
        match (self.replayed.is_finished(), self.differs) {
            (false, _) => "open",
            (true, true) => "different",
            (true, false) => "same",
        }
    }

    /// The same for people.
    fn said(&self) -> &'static str {
        match self.replayed.status.as_str() {
            "pending" => "waiting",
            "running" => "running",
            _ if !self.differs => "the same",
            _ if self.original.outcome() == self.replayed.outcome() => "other output",
            _ if self.original.output == self.replayed.output => "other end",
            _ => "other output and end",
        }
    }

    /// Both commands, each with its lines.
    fn sides(&self) -> [(&'static str, &Command, Lines); 2] {
        let [first, replayed] = marked(self.original.lines(), self.replayed.lines());
        [
            ("First", &self.original, first),
            ("Replayed", &self.replayed, replayed),
        ]
    }
}

/// Marks what stands between the first and the last difference.
fn marked(one: Vec<String>, other: Vec<String>) -> [Lines; 2] {
    let shorter = one.len().min(other.len());
    let equal = |pair: &(&String, &String)| pair.0 == pair.1;
    let head = one.iter().zip(&other).take_while(equal).count();
    let tail = one.iter().rev().zip(other.iter().rev());
    let tail = tail.take(shorter - head).take_while(equal).count();
    [one, other].map(|lines| {
        let end = lines.len() - tail;
        let marked = |(index, line)| (line, (head..end).contains(&index));
        lines.into_iter().enumerate().map(marked).collect()
    })
}

pub fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/replay/{environment_id}", get(view))
        .route("/page/replayed/{command_id}", get(replayed))
}

async fn view(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    #[derive(Deserialize)]
    struct Found {
        original: Option<Session>,
        verdict: Option<Verdict>,
        pairs: Vec<Pair>,
    }
    page(server, request, async |visit| {
        let id: Uuid = id.parse().map_err(|_| missing("replay"))?;
        let different = only_different(&visit);
        let mut sql = Sql::default();
        sql.push("with replay as (select s.* from shell_api.sessions as s where s.replay_of is not null and s.id = ");
        sql.value(id.to_string());
        sql.push(&format!(
            ") select json_build_object(
               'original', (select row_to_json(o) from replay as r join shell_api.sessions as o on o.id = r.replay_of),
               'verdict', {},
               'pairs', (select coalesce(json_agg(p order by p.replay_command_id), '[]') from (
                 select d.replay_command_id, {} from shell_api.replay_differences as d
                 where d.replay_id = (select r.id from replay as r)",
            Verdict::COUNTED,
            Pair::columns()
        ));
        sql.push(" and d.replay_command_id > ");
        sql.value(visit.parameter("after").unwrap_or_else(|| "0".into()));
        sql.push("::bigint");
        if different {
            sql.push(" and (d.differs or d.replay_status not in ('done', 'failed'))");
        }
        sql.push(&format!(" order by d.replay_command_id limit {}) as p))::text", PAIRS + 1));
        let Found { original, verdict, mut pairs } = visit.ask(&sql).await?;
        let more = pairs.len() > PAIRS;
        pairs.truncate(PAIRS);
        html(&Replay {
            frame: visit.frame("replay"),
            original,
            verdict: verdict.ok_or_else(|| missing("replay"))?,
            different,
            more: pairs.last().map(|pair| pair.replayed.id).filter(|_| more),
            pairs,
            update: false,
        })
    })
    .await
}

/// Whether the page leaves out what is the same.
fn only_different(visit: &Visit<'_>) -> bool {
    visit.parameter("only").as_deref() == Some("different")
}

impl Replay {
    /// From which command on the page is to be told of news, if there can be any.
    fn open(&self) -> Option<i64> {
        let mut open = self
            .pairs
            .iter()
            .filter(|pair| !pair.replayed.is_finished());
        open.next().map(|pair| pair.replayed.id - 1)
    }
}

/// One command as it is now.
async fn replayed(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push("with replayed as (select d.* from shell_api.replay_differences as d where d.replay_command_id = ");
        sql.value(id);
        sql.push(&format!(
            "::bigint), replay as (select d.replay_id as id, d.original_id as replay_of from replayed as d)
             select json_build_object('pair', (select row_to_json(p) from (select {}) as p), 'verdict', {})::text
             from replayed as d",
            Pair::columns(),
            Verdict::COUNTED
        ));
        #[derive(Deserialize)]
        struct Found {
            pair: Pair,
            verdict: Verdict,
        }
        let found: Option<Found> = visit.ask(&sql).await?;
        let Found { pair, verdict } = found.ok_or_else(|| missing("command"))?;
        html(&Replayed { pair, verdict, different: only_different(&visit), update: true })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_the_first_and_the_last_difference_is_marked() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let shown = |lines: &Lines| -> String {
            let mark = |(line, marked): &(String, bool)| match marked {
                true => line.to_uppercase(),
                false => line.clone(),
            };
            lines.iter().map(mark).collect()
        };
        for (one, other, expected) in [
            ("abc", "abc", ["abc", "abc"]),
            ("abc", "axc", ["aBc", "aXc"]),
            ("ac", "abc", ["ac", "aBc"]),
            ("aa", "aaa", ["aa", "aaA"]),
            ("", "ab", ["", "AB"]),
            ("abcd", "xbcy", ["ABCD", "XBCY"]),
        ] {
            let sides = marked(lines(one), lines(other));
            assert_eq!(sides.each_ref().map(shown), expected, "{one} {other}");
        }
    }
}
