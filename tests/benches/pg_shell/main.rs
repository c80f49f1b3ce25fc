//! The speed tables: pg_shell against the least that could do the same work, in one run.
//!
//! `PG_SHELL_STAGE` names the stage to measure. `PG_SHELL_BENCH_QUICK=1` runs everything small, to see that
//! it runs; its figures mean nothing. `PG_SHELL_BENCH_ONLY=latency,drain,…` runs parts.
//! `PG_SHELL_BENCH_LOAD=60` has many users at a time for so many seconds.

mod backend;
mod bare;
mod cluster;
mod drain;
mod files;
mod history;
mod http;
mod idle;
mod latency;
mod launcher;
mod live;
mod rest;
mod table;

use std::time::{Duration, Instant};

use confine::shell::Shell;
use pg_shell_tests::{Cluster, Stage, Web, Worker};
use tokio_postgres::Client;
use uuid::Uuid;

use cluster::{BARE, PG_SHELL};
use table::{Table, median, ms, percentile};

/// How much of everything.
struct Size {
    pairs: usize,
    queued: usize,
    finished: usize,
    sessions: usize,
    window: Duration,
    cancels: usize,
    load: Duration,
    rounds: usize,
    files: usize,
    /// Bytes of each, in the session with large ones.
    file: usize,
    forks: usize,
}

const FULL: Size = Size {
    pairs: 300,
    queued: 5000,
    finished: 1_000_000,
    sessions: 10_000,
    window: Duration::from_secs(25),
    cancels: 40,
    load: Duration::from_secs(10),
    rounds: 6,
    files: 10_000,
    file: 107_374,
    forks: 1000,
};
const QUICK: Size = Size {
    pairs: 20,
    queued: 200,
    finished: 5000,
    sessions: 100,
    window: Duration::from_secs(3),
    cancels: 5,
    load: Duration::from_secs(3),
    rounds: 1,
    files: 200,
    file: 20_000,
    forks: 20,
};

fn main() {
    // `cargo test --benches` runs benches too, to see that they start.
    if std::env::args().any(|a| a == "--test" || a == "--list") {
        return;
    }
    let quick = std::env::var_os("PG_SHELL_BENCH_QUICK").is_some();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cluster = cluster::start();
    let mut size = if quick { QUICK } else { FULL };
    if let Ok(seconds) = std::env::var("PG_SHELL_BENCH_LOAD") {
        size.load = Duration::from_secs(seconds.parse().expect("seconds"));
    }
    let web = wanted("rest").then(|| rest::server(&cluster));
    runtime.block_on(measure(&cluster, web, size));
}

fn wanted(part: &str) -> bool {
    std::env::var("PG_SHELL_BENCH_ONLY").map_or(true, |only| only.split(',').any(|p| p == part))
}

/// The two figures that must not depend on how long the history is.
#[derive(Default)]
struct Speed {
    latency: Option<[Duration; 2]>,
    rate: Option<[f64; 2]>,
}

struct Bench<'a> {
    table: Table,
    size: Size,
    shell: Shell,
    ours: &'a Client,
    bare: &'a Client,
    user: Uuid,
    session: Uuid,
}

async fn measure(cluster: &Cluster, web: Option<Web>, size: Size) {
    let shell = Shell::find().expect("a shell");
    let ours = cluster::client(cluster, PG_SHELL).await;
    let bare_client = cluster::client(cluster, BARE).await;
    print_machine(&ours).await;
    bare_client
        .batch_execute(bare::TABLE)
        .await
        .expect("a table");
    let (user, session) = history::make_sessions(&ours).await;
    let bench = Bench {
        table: Table::new(),
        size,
        shell,
        ours: &ours,
        bare: &bare_client,
        user,
        session,
    };
    // Before there is the worker, which would run what is submitted on the same cores.
    if let Some(web) = &web {
        bench.rest(cluster, web).await;
        bench.live(cluster, web).await;
    }
    let worker = cluster.worker(&[]);
    bare::start(cluster::bare_config(cluster), shell);
    tokio::time::sleep(Duration::from_millis(300)).await;

    if let Some(web) = web {
        bench.load(cluster, &web).await;
    }
    if wanted("launcher") {
        bench.launcher();
    }
    if wanted("backend") {
        bench.backend().await;
    }
    let small = bench.speed("").await;
    if wanted("cancel") {
        bench.cancel().await;
    }
    if wanted("idle") {
        bench.idle(cluster, &worker).await;
    }
    if wanted("history") {
        let began = Instant::now();
        history::fill(&ours, bench.size.finished, bench.size.sessions).await;
        eprintln!("filled in {:.1?}", began.elapsed());
        let what = format!(
            ", {} finished in {} sessions",
            bench.size.finished, bench.size.sessions
        );
        let large = bench.speed(&what).await;
        bench.growth(&small, &large);
    }
    if wanted("steps") {
        print_steps(bench.size.pairs);
    }
    worker.terminate();
    worker.wait();
    if wanted("files") {
        bench.files(cluster).await;
    }
}

/// What a launch is made of.
fn print_steps(count: usize) {
    println!("\n| step of a launch, all taken anew | µs, median | taken |\n|---|---|---|");
    let mut total = 0;
    for (step, nanoseconds) in launcher::steps(&Stage::find().launcher(), count) {
        total += nanoseconds;
        let micros = nanoseconds as f64 / 1e3;
        println!("| {step} | {micros:.1} | {} |", launcher::when(step));
    }
    println!("| all | {:.1} | |", total as f64 / 1e3);
}

impl Bench<'_> {
    /// Both figures of speed, as far as they are wanted.
    async fn speed(&self, what: &str) -> Speed {
        let mut speed = Speed::default();
        if wanted("latency") {
            speed.latency = Some(self.latency(what).await);
        }
        if wanted("drain") {
            let (drained, spawned) = drain::compare(self.ours, self.shell, self.size.queued).await;
            self.table.row(
                &format!("drain of {} `true`{what}", self.size.queued),
                &format!("{drained:.0} a second"),
                &format!("{spawned:.0} a second"),
                &format!("**{:.2} ×**", drained / spawned),
                "≥ 0.6 ×",
            );
            speed.rate = Some([drained, spawned]);
        }
        speed
    }

    async fn latency(&self, what: &str) -> [Duration; 2] {
        let mut ours =
            latency::Submitter::pg_shell(self.ours, self.user, self.session, "true").await;
        let mut bare = latency::Submitter::bare(self.bare).await;
        let (times, bare_times) = latency::compare(&mut ours, &mut bare, self.size.pairs).await;
        let (p50, bare_p50) = (median(&times), median(&bare_times));
        let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
        self.table.row(
            &format!("submit → done, p50{what}"),
            &ms(p50),
            &ms(bare_p50),
            &format!("**{:.2} ×**", ratio(p50, bare_p50)),
            "≤ 1.3 ×",
        );
        let (p95, bare_p95) = (percentile(&times, 0.95), percentile(&bare_times, 0.95));
        let shown = format!("{:.2} ×", ratio(p95, bare_p95));
        self.table.row(
            &format!("submit → done, p95{what}"),
            &ms(p95),
            &ms(bare_p95),
            &shown,
            "",
        );
        let count = i64::try_from(self.size.pairs).expect("a small number");
        let parts = latency::parts(self.ours, self.session, count).await;
        for (name, part) in ["submit → claim", "claim → launcher", "launcher → end"]
            .iter()
            .zip(parts)
        {
            self.table
                .row(&format!("… {name}, p50{what}"), &ms(part), "", "", "");
        }
        [p50, bare_p50]
    }

    fn launcher(&self) {
        for (shell, name) in [(Shell::Bash, "bash"), (Shell::Sh, "sh")] {
            let times = launcher::compare(&Stage::find().launcher(), shell, self.size.pairs);
            let row = |figure: &str, ours: &[Duration], against: &[Duration], target: &str| {
                let (ours, against) = (median(ours), median(against));
                self.table.row(
                    &format!("`{name} -c true` confined, {figure}"),
                    &ms(ours),
                    &ms(against),
                    &format!("**{:.2} ×**", ours.as_secs_f64() / against.as_secs_f64()),
                    target,
                );
            };
            row("against bare", &times.again, &times.bare, "≤ 1.6 ×");
            row(
                "against bubblewrap",
                &times.again,
                &times.bubblewrap,
                "≤ 0.35 ×",
            );
            let first = "a session's first, against";
            row(&format!("{first} bare"), &times.first, &times.bare, "");
            row(
                &format!("{first} bubblewrap"),
                &times.first,
                &times.bubblewrap,
                "",
            );
        }
    }

    async fn backend(&self) {
        let Some((times, peer)) = backend::compare(self.ours, self.size.pairs).await else {
            return self
                .table
                .row("run_command", "", "PL/sh is not installed", "", "");
        };
        let (ours, peer) = (median(&times), median(&peer));
        self.table.row(
            "`run_command` of `true`, confined, against PL/sh, unconfined",
            &ms(ours),
            &ms(peer),
            &format!("**{:.2} ×**", ours.as_secs_f64() / peer.as_secs_f64()),
            "≤ 0.75 ×",
        );
    }

    async fn rest(&self, cluster: &Cluster, web: &Web) {
        let (times, bare) = rest::compare(cluster, self.ours, web, self.size.pairs).await;
        self.against("`POST /rpc/submit_command`", &times, &bare, "≤ 1.3 ×");
        let nobody_runs = "set session_replication_role = replica;
            delete from shell.commands where status = 'pending';
            set session_replication_role = origin";
        let deleted = self.ours.batch_execute(nobody_runs).await;
        deleted.expect("commands that nobody has claimed");
    }

    /// Before there is the worker, which has a slot a core.
    async fn live(&self, cluster: &Cluster, web: &Web) {
        let late = live::first_bytes(cluster, self.ours, web, self.size.rounds).await;
        for (name, share, target) in [("p50", 0.5, ""), ("p95", 0.95, "≤ 50 ms")] {
            self.table.row(
                &format!(
                    "first byte written → received, {} sessions, {name}",
                    live::SESSIONS
                ),
                &ms(percentile(&late, share)),
                "",
                "",
                target,
            );
        }
    }

    async fn load(&self, cluster: &Cluster, web: &Web) {
        let window = self.size.load;
        let load = rest::load(cluster, self.ours, web, window).await;
        for error in load.errors.iter().take(5) {
            eprintln!("{error}");
        }
        let requests = load.looks.len() + load.submits.len() + load.errors.len();
        let what = format!("{} users for {} s", rest::USERS, window.as_secs());
        self.table.row(
            &format!("{what}: requests that fail"),
            &format!("{} of {requests}", load.errors.len()),
            "",
            "",
            "0",
        );
        self.against(
            &format!("{what}: `latest_output`"),
            &load.looks,
            &load.bare,
            "",
        );
        self.against(&format!("{what}: `submit_command`"), &load.submits, &[], "");
    }

    /// Rows of p50 and p95; the target is the first one's.
    fn against(&self, what: &str, times: &[Duration], bare: &[Duration], target: &str) {
        for (name, share, target) in [("p50", 0.5, target), ("p95", 0.95, "")] {
            let ours = percentile(times, share);
            let (shown, ratio) = match bare {
                [] => Default::default(),
                _ => {
                    let bare = percentile(bare, share);
                    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
                    (ms(bare), format!("**{ratio:.2} ×**"))
                }
            };
            self.table.row(
                &format!("{what}, {name}"),
                &ms(ours),
                &shown,
                &ratio,
                target,
            );
        }
    }

    async fn cancel(&self) {
        let times = latency::cancels(self.ours, self.user, self.session, self.size.cancels).await;
        for (name, share) in [("p50", 0.5), ("p95", 0.95)] {
            self.table.row(
                &format!("cancel → ended, {name}"),
                &ms(percentile(&times, share)),
                "",
                "",
                "≤ 100 ms",
            );
        }
    }

    async fn idle(&self, cluster: &Cluster, worker: &Worker) {
        let idle = idle::watch(cluster, worker, self.size.window).await;
        let row = |figure: &str, value: String, target: &str| {
            self.table.row(figure, &value, "", "", target)
        };
        row(
            "idle worker: transactions a second",
            format!("{:.2}", idle.transactions_per_second),
            "≤ 0.2",
        );
        let share = idle.cpu.as_secs_f64() / self.size.window.as_secs_f64() * 100.0;
        row(
            "idle worker with its launcher: CPU",
            format!("{} ticks, {} ({share:.3} %)", idle.ticks, ms(idle.cpu)),
            "not measurable",
        );
        row(
            "idle worker with its launcher: resident",
            format!("{:.1} MiB", idle.resident_mib),
            "≤ 25 MiB",
        );
    }

    /// Workers of its own: nobody else's may run meanwhile.
    async fn files(&self, cluster: &Cluster) {
        let Size { files, file, .. } = self.size;
        let warm = files::Warm::make(cluster, self.ours, files, file).await;
        let what = format!("{files} files, {:.1} GB", (files * file) as f64 / 1e9);
        let (full, empty) = warm.warm(self.size.pairs).await;
        self.sides(
            &format!("`true` in a session of {what}, against one of none"),
            (&full, &empty),
            "≤ 1.1 ×",
        );
        let (change, same) = warm.change(self.size.pairs.div_ceil(3)).await;
        self.sides(
            "… a file of 4 KB changed, against `true` in the same",
            (&change, &same),
            "≤ 1.5 ×",
        );
        let forks = warm.forks(self.size.pairs.div_ceil(3)).await;
        let fork = ms(median(&forks.fork));
        self.table.row("… `fork_session`", &fork, "", "", "≤ 10 ms");
        self.sides(
            "… first `true` in a fork, against `true` in the session",
            (&forks.first.0, &forks.first.1),
            "≤ 2 ×",
        );
        let grown = warm.growth(self.size.forks).await as f64 / 1e6;
        self.table.row(
            &format!(
                "{} forks, a file of 4 KB changed in each: the database grows by",
                self.size.forks
            ),
            &format!("{grown:.1} MB"),
            "",
            "",
            "≤ 10 MB",
        );
        let cold = warm.cold(cluster, self.size.rounds.div_ceil(2)).await;
        for (what, (ours, copies)) in [
            (format!("{files} files of 4 KB"), &cold.small),
            (what, &cold.large),
        ] {
            self.sides(
                &format!("{what}: cold start, against `cp -a`"),
                (ours, copies),
                "≤ 1.5 ×",
            );
        }
    }

    /// Medians, and how they compare.
    fn sides(&self, what: &str, (ours, against): (&[Duration], &[Duration]), target: &str) {
        let (ours, against) = (median(ours), median(against));
        let ratio = ours.as_secs_f64() / against.as_secs_f64();
        let ratio = format!("**{ratio:.2} ×**");
        self.table
            .row(what, &ms(ours), &ms(against), &ratio, target);
    }

    /// The long history against the short one: each by its ratio to the bare figure taken beside it.
    fn growth(&self, small: &Speed, large: &Speed) {
        let row = |figure: &str, ratio: f64| {
            self.table
                .row(figure, "", "", &format!("**{ratio:.2} ×**"), "0.9 to 1.1 ×");
        };
        if let (Some([a, bare_a]), Some([b, bare_b])) = (small.latency, large.latency) {
            let [a, bare_a, b, bare_b] = [a, bare_a, b, bare_b].map(|d| d.as_secs_f64());
            row(
                "long history: submit → done against the short one's",
                (b / bare_b) / (a / bare_a),
            );
        }
        if let (Some([a, bare_a]), Some([b, bare_b])) = (small.rate, large.rate) {
            row(
                "long history: drain against the short one's",
                (b / bare_b) / (a / bare_a),
            );
        }
    }
}

async fn print_machine(client: &Client) {
    let row = client
        .query_one("select version(), now()::date::text", &[])
        .await
        .expect("version");
    let (version, date): (&str, &str) = (row.get(0), row.get(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let system = nix::sys::utsname::uname().expect("uname");
    let version = version.split(" on ").next().unwrap_or(version);
    println!(
        "{date}; {cores} cores; {} {}; {version}; fsync on",
        system.sysname().display(),
        system.release().display()
    );
}
