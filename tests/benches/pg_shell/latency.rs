//! From submit to done, one command at a time, as the submitter sees it.
//!
//! Both sides have the same submitter: it sends one prepared statement, then looks up the row by its
//! primary key until it reads that it is done. A look costs about 0.1 ms on a core that the command could
//! use, so the first is not taken before 80 % of the least time that the side's last commands took, and the
//! next ones a short pause apart; the same rule for both. The sides take turns, in blocks, so that whatever
//! else the machine does falls on both.

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::bare;

/// Between two looks.
const PAUSE: Duration = Duration::from_micros(100);
/// A command that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Commands of one side in a row.
const BLOCK: usize = 20;

/// One side of the comparison.
pub struct Submitter<'a> {
    client: &'a Client,
    submit: Statement,
    look: Statement,
    /// The user, the session and what is submitted in it.
    session: Option<(Uuid, Uuid, &'a str)>,
    recent: VecDeque<Duration>,
}

impl<'a> Submitter<'a> {
    /// Submits a command to pg_shell, in this user's session.
    pub async fn pg_shell(
        client: &'a Client,
        user: Uuid,
        session: Uuid,
        command: &'a str,
    ) -> Submitter<'a> {
        let submit = "select shell.submit_command($1, $3, $2)";
        let look = "select status in ('done', 'failed') from shell.commands where id = $1";
        Submitter::new(client, submit, look, Some((user, session, command))).await
    }

    /// Submits to the bare loop.
    pub async fn bare(client: &'a Client) -> Submitter<'a> {
        Submitter::new(
            client,
            bare::SUBMIT,
            "select status = 'done' from queue where id = $1",
            None,
        )
        .await
    }

    async fn new(
        client: &'a Client,
        submit: &str,
        look: &str,
        session: Option<(Uuid, Uuid, &'a str)>,
    ) -> Submitter<'a> {
        let submit = client.prepare(submit).await.expect("prepare");
        let look = client.prepare(look).await.expect("prepare");
        Submitter {
            client,
            submit,
            look,
            session,
            recent: VecDeque::new(),
        }
    }

    /// From now on submits in another session of the user.
    pub fn go_to(&mut self, other: Uuid) {
        if let Some((_, session, _)) = &mut self.session {
            *session = other;
        }
    }

    /// Submits one command and waits for its end.
    pub async fn once(&mut self) -> Duration {
        let first_look = self
            .recent
            .iter()
            .min()
            .map_or(Duration::ZERO, |least| least.mul_f64(0.8));
        let began = Instant::now();
        let row = match &self.session {
            Some((user, session, command)) => {
                let parameters: [&(dyn ToSql + Sync); 3] = [user, session, command];
                self.client.query_one(&self.submit, &parameters).await
            }
            None => self.client.query_one(&self.submit, &[]).await,
        };
        let id: i64 = row.expect("submit").get(0);
        sleep(first_look.saturating_sub(began.elapsed()));
        while !self
            .client
            .query_one(&self.look, &[&id])
            .await
            .expect("look")
            .get::<_, bool>(0)
        {
            assert!(began.elapsed() < PATIENCE, "command {id} did not end");
            sleep(PAUSE);
        }
        let took = began.elapsed();
        self.recent.push_back(took);
        if self.recent.len() > BLOCK {
            self.recent.pop_front();
        }
        took
    }
}

/// Both sides' times, `count` each, in turns.
pub async fn compare(
    ours: &mut Submitter<'_>,
    bare: &mut Submitter<'_>,
    count: usize,
) -> (Vec<Duration>, Vec<Duration>) {
    for _ in 0..BLOCK {
        ours.once().await;
        bare.once().await;
    }
    let (mut our_times, mut bare_times) = (Vec::new(), Vec::new());
    while our_times.len() < count {
        for _ in 0..BLOCK {
            our_times.push(ours.once().await);
        }
        for _ in 0..BLOCK {
            bare_times.push(bare.once().await);
        }
    }
    (our_times, bare_times)
}

/// Where the time of the session's last commands went: from submit to claim, from claim to the start of the
/// launcher, from there to the command's end; medians, by the database's clock.
pub async fn parts(client: &Client, session: Uuid, count: i64) -> [Duration; 3] {
    let row = client
        .query_one(
            "select percentile_cont(array[0.5]) within group (order by extract(epoch from claimed_at - submitted_at)::float8),
                    percentile_cont(array[0.5]) within group (order by extract(epoch from started_at - claimed_at)::float8),
                    percentile_cont(array[0.5]) within group (order by extract(epoch from duration)::float8)
             from (select * from shell.commands where environment_id = $1 order by id desc limit $2) as c",
            &[&session, &count],
        )
        .await
        .expect("parts");
    [0, 1, 2].map(|i| Duration::from_secs_f64(row.get::<_, Vec<f64>>(i)[0].max(0.0)))
}

/// From cancel_command to the row's end, for commands that run.
pub async fn cancels(client: &Client, user: Uuid, session: Uuid, count: usize) -> Vec<Duration> {
    let submit = client
        .prepare("select shell.submit_command($1, 'sleep 60', $2)")
        .await
        .expect("prepare");
    let status = client
        .prepare("select status from shell.commands where id = $1")
        .await
        .expect("prepare");
    let cancel = client
        .prepare("select shell.cancel_command($1)")
        .await
        .expect("prepare");
    let mut times = Vec::new();
    for _ in 0..count {
        let id: i64 = client
            .query_one(&submit, &[&user, &session])
            .await
            .expect("submit")
            .get(0);
        while client
            .query_one(&status, &[&id])
            .await
            .expect("status")
            .get::<_, &str>(0)
            != "running"
        {
            sleep(PAUSE);
        }
        // Until the shell is there, and has become sleep.
        sleep(Duration::from_millis(20));
        let began = Instant::now();
        client.query_one(&cancel, &[&id]).await.expect("cancel");
        while client
            .query_one(&status, &[&id])
            .await
            .expect("status")
            .get::<_, &str>(0)
            != "failed"
        {
            assert!(began.elapsed() < PATIENCE, "command {id} was not cancelled");
            sleep(PAUSE);
        }
        times.push(began.elapsed());
    }
    times
}
