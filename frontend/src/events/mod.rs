//! What commands print, as it comes: server-sent events of one command, or of a session's commands in turn.
//!
//! | event | data | when |
//! |---|---|---|
//! | `command` | its row, without output | it is new, or its status is another |
//! | `output` | `{command_id, stream, data}` | text was printed (`?as=text`; stream is null after the end) |
//! | `lines` | `{command_id, from, lines}` | the lines from `from` on are these now (`?as=html`, the default) |
//! | `restart` | `{command_id}` | its worker was lost: it begins again, what was printed counts no more |
//! | `end` | its row, without output | it has ended, and everything was sent |
//!
//! The id of `output`, `lines` and `end` says how far the reader is: command, attempt, chunks and bytes of text so far,
//! "end" after the end. A reader that comes back with it gets what is missing, and nothing twice: while the command
//! runs its chunks are numbered rows, and when it has ended the rest is cut from its output.

mod cursor;
mod follower;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::db::{Db, Scope};
use crate::error::Error;
use crate::identity::now;
use crate::limits::Counted;
use crate::listener::Place;
use crate::shutdown::{Shutdown, Stage};
use crate::sql::Sql;
pub use cursor::Cursor;
use follower::{Follower, Step};

/// A comment is sent this often, so that proxies keep the stream open, and so that one ends whose session has.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A command, to its end.
    Command(i64),
    /// A session, for ever.
    Session(Uuid),
}

/// How output is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Lines of a terminal, as HTML.
    #[default]
    Html,
    /// What was printed, as it was.
    Text,
}

/// A stream as it is asked for.
pub struct Request {
    /// What to follow.
    pub subject: Subject,
    /// How.
    pub form: Form,
    /// From where; else a command's beginning, or a session's oldest command that has not ended.
    pub cursor: Option<Cursor>,
    /// Under which rights.
    pub scope: Scope,
    /// When these end, in seconds since 1970.
    pub expires: Option<i64>,
    /// Its place among the user's streams.
    pub counted: Counted,
}

/// Answers with a stream; what forbids it is answered as an error.
///
/// # Errors
/// PS002, PS006, 42501, [`Error::Database`].
pub async fn answer(
    db: Db,
    place: Place,
    shutdown: Shutdown,
    request: Request,
) -> Result<Response, Error> {
    let cursor = open(&db, &request).await?;
    if matches!(request.subject, Subject::Command(id) if cursor == Cursor::after(id)) {
        // What a browser takes as: do not come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let follower = Follower::new(request.subject, request.form, cursor);
    let mut response = Response::new(Body::from_stream(stream(
        db, place, shutdown, request, follower,
    )));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would gather events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Asks for the right to see it, and where to begin.
async fn open(db: &Db, request: &Request) -> Result<Cursor, Error> {
    let mut sql = Sql::default();
    match request.subject {
        Subject::Command(id) => {
            sql.push("select 0::bigint where shell.require_visible_command(");
            sql.value(id.to_string());
            sql.push(")");
        }
        Subject::Session(id) => {
            sql.push("select coalesce(
                (select min(c.id) from shell_api.command_log as c where c.environment_id = s.id and c.status = 'running'),
                (select min(c.id) from shell_api.command_log as c where c.environment_id = s.id and c.status = 'pending'),
                (select max(c.id) + 1 from shell_api.command_log as c where c.environment_id = s.id),
                0)
              from (select ");
            sql.value(id.to_string());
            sql.push("::uuid as id) as s where shell.require_visible_session(s.id)");
        }
    }
    let rows = db.look(&request.scope, &sql).await?;
    let first = match (request.subject, rows.first()) {
        (Subject::Command(id), _) => id,
        (Subject::Session(_), Some(row)) => row.number(0).unwrap_or(0),
        (Subject::Session(_), None) => 0,
    };
    let fits = |cursor: &Cursor| match request.subject {
        Subject::Command(id) => cursor.command == id,
        Subject::Session(_) => true,
    };
    Ok(request.cursor.filter(fits).unwrap_or(Cursor::before(first)))
}

fn stream(
    db: Db,
    mut place: Place,
    mut shutdown: Shutdown,
    request: Request,
    mut follower: Follower,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    async_stream::stream! {
        let Request { scope, expires, counted, .. } = request;
        let _counted = counted;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.tick().await;
        yield Ok(Bytes::from_static(b"retry: 1000\n\n"));
        loop {
            if expires.is_some_and(|at| at < now()) {
                return;
            }
            let rows = match db.look(&scope, &follower.question()).await {
                Ok(rows) => rows,
                // The session has ended, or the database is away: the client comes back, and is told why it may not,
                // or finds the database again.
                Err(e) => {
                    tracing::debug!("a stream ends: {e}");
                    return;
                }
            };
            let mut events = String::new();
            let step = follower.take(&rows, &mut events);
            if !events.is_empty() {
                yield Ok(Bytes::from(events));
            }
            match step {
                Step::More => continue,
                Step::Over => return,
                Step::Wait => {}
            }
            loop {
                tokio::select! {
                    notice = place.notices.recv() => match notice {
                        Ok(notice) if !follower.concerns(&notice) => continue,
                        // Behind: then it may be anything.
                        Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => break,
                        Err(_) => return,
                    },
                    _ = heartbeat.tick() => {
                        yield Ok(Bytes::from_static(b": still here\n\n"));
                        break;
                    }
                    () = shutdown.reaches(Stage::Soft) => return,
                }
            }
        }
    }
}
