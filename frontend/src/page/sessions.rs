//! Sessions as a tree: which was forked from which.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use askama::Template;
use axum::extract::{Request, State};
use axum::response::Response;
use uuid::Uuid;

use super::Frame;
use super::model::Session;
use super::visit::{html, page};
use crate::server::Server;
use crate::sql::Sql;

/// The latest so many are shown.
const MOST: usize = 500;

#[derive(Template)]
#[template(path = "sessions.html")]
struct Sessions {
    frame: Frame,
    roots: Vec<Node>,
}

#[derive(Template)]
#[template(path = "node.html")]
struct Node {
    s: Session,
    children: Vec<Node>,
}

pub async fn view(State(server): State<Arc<Server>>, request: Request) -> Response {
    page(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push(&format!(
            "select coalesce(json_agg(s order by s.created_at, s.id), '[]')::text
             from (select * from shell_api.sessions as x where x.user_id = (select shell.current_user_id())
               order by x.updated_at desc limit {MOST}) as s"
        ));
        let all: Vec<Session> = visit.ask(&sql).await?;
        html(&Sessions {
            frame: visit.frame("sessions"),
            roots: tree(all),
        })
    })
    .await
}

/// Puts each below the one it was forked from, or whose replay it is, if that is there.
fn tree(all: Vec<Session>) -> Vec<Node> {
    let known: HashSet<Uuid> = all.iter().map(|s| s.id).collect();
    let mut below: HashMap<Option<Uuid>, Vec<Session>> = HashMap::new();
    for s in all {
        let parent = s.parent_id.or(s.replay_of).filter(|id| known.contains(id));
        below.entry(parent).or_default().push(s);
    }
    nodes(&mut below, None)
}

fn nodes(below: &mut HashMap<Option<Uuid>, Vec<Session>>, parent: Option<Uuid>) -> Vec<Node> {
    let here = below.remove(&parent).unwrap_or_default();
    here.into_iter()
        .map(|s| Node {
            children: nodes(below, Some(s.id)),
            s,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: u128, parent: Option<u128>) -> Session {
        let row = serde_json::json!({
            "id": Uuid::from_u128(id), "name": id.to_string(), "is_default": false, "cwd": "/",
            "parent_id": parent.map(Uuid::from_u128), "created_at": ""
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn children_stand_below_their_parents() {
        let roots = tree(vec![
            session(1, None),
            session(2, Some(1)),
            session(3, Some(2)),
            session(4, Some(9)),
        ]);
        let names = |nodes: &[Node]| nodes.iter().map(|n| n.s.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&roots), ["1", "4"]);
        assert_eq!(names(&roots[0].children), ["2"]);
        assert_eq!(names(&roots[0].children[0].children), ["3"]);
    }
}
