//! What was used, and how long commands took and waited.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;

use super::Frame;
use super::plot::{Plot, Value};
use super::view;
use super::visit::{html, page};
use crate::server::Server;
use crate::sql::Sql;

/// Commands in the plots of times, and days in that of counts.
const COMMANDS: usize = 300;
const DAYS: usize = 30;

#[derive(Template)]
#[template(path = "usage.html")]
struct Usage {
    frame: Frame,
    users: Vec<User>,
    days: Plot,
    durations: Plot,
    queue: Plot,
}

#[derive(Deserialize)]
struct User {
    username: String,
    commands: i64,
    failed: i64,
    seconds: f64,
    cpu_seconds: f64,
    output_bytes: i64,
    last_submitted_at: Option<String>,
}

impl User {
    fn commands(&self) -> String {
        view::number(self.commands)
    }

    fn failed(&self) -> String {
        view::number(self.failed)
    }

    fn duration(&self) -> String {
        view::duration(self.seconds)
    }

    fn cpu(&self) -> String {
        view::duration(self.cpu_seconds)
    }

    fn output(&self) -> String {
        view::bytes(self.output_bytes)
    }
}

#[derive(Deserialize)]
struct Timing {
    seconds: Option<f64>,
    queued: Option<f64>,
    good: bool,
}

#[derive(Deserialize)]
struct Day {
    day: String,
    good: f64,
    bad: f64,
}

#[derive(Deserialize)]
struct Figures {
    users: Vec<User>,
    timings: Vec<Timing>,
    days: Vec<Day>,
}

pub async fn view(State(server): State<Arc<Server>>, request: Request) -> Response {
    page(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push(&format!(
            "select json_build_object(
               'users', (select coalesce(json_agg(u order by u.commands desc, u.username), '[]') from (
                 select x.username, x.commands, x.failed, extract(epoch from x.duration)::float8 as seconds,
                   extract(epoch from x.cpu_time)::float8 as cpu_seconds, x.output_bytes, x.last_submitted_at
                 from shell_api.usage() as x) as u),
               'timings', (select coalesce(json_agg(t order by t.id), '[]') from (
                 select m.id, extract(epoch from m.duration)::float8 as seconds,
                   extract(epoch from m.queue_time)::float8 as queued, m.status = 'done' as good
                 from shell_api.metrics(n => {COMMANDS}) as m where m.status in ('done', 'failed')) as t),
               'days', (select json_agg(d order by d.day) from (
                 select g.day::date as day, count(c.id) filter (where c.status <> 'failed') as good,
                   count(c.id) filter (where c.status = 'failed') as bad
                 from generate_series(current_date - {}, current_date, interval '1 day') as g (day)
                 left join shell_api.command_log as c on c.submitted_at >= g.day and c.submitted_at < g.day + interval '1 day'
                 group by g.day) as d))::text",
            DAYS - 1
        ));
        let Figures { users, timings, days } = visit.ask(&sql).await?;
        let days: Vec<_> = days.into_iter().map(|d| (d.day, Value { good: d.good, bad: d.bad })).collect();
        let all = |of: fn(&Timing) -> Option<f64>| -> Vec<_> {
            timings.iter().filter_map(|timing| Some((of(timing)?, timing.good))).collect()
        };
        html(&Usage {
            frame: visit.frame("usage"),
            users,
            days: Plot::bars("Commands a day", &days),
            durations: Plot::seconds("How long commands took", &all(|t| t.seconds), "older", "latest"),
            queue: Plot::seconds("How long commands waited", &all(|t| t.queued), "older", "latest"),
        })
    })
    .await
}
