//! A child process whose log lines and exit can be waited for.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::PATIENCE;

/// See the module. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<String>,
    /// No more lines will come.
    log_ended: bool,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a command; `name` is what messages call it. Its standard error is its log.
    pub fn start(name: &str, mut command: Command) -> Process {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = spawn(command);
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let shared = Arc::new(Shared::default());
        let log = child.stderr.take().expect("a pipe");
        let reader = shared.clone();
        thread::spawn(move || reader.read_log(log));
        let waiter = shared.clone();
        thread::spawn(move || waiter.wait_for(pid, child));
        Process {
            name: name.into(),
            pid,
            shared,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let seen = self.shared.seen.lock().unwrap();
        // It is reaped under this lock, so the id is still its own.
        if seen.status.is_none() {
            let _ = kill(self.pid, signal);
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// True while it has not ended.
    pub fn is_running(&self) -> bool {
        self.shared.seen.lock().unwrap().status.is_none()
    }

    /// Waits for its exit and for the end of its log.
    pub fn wait(&self) -> ExitStatus {
        self.until("its exit", |seen| seen.status.filter(|_| seen.log_ended))
    }

    /// Waits for a log line that contains `text`, from line number `from` on; returns the number of
    /// the line after.
    pub fn wait_for_log(&self, text: &str, from: usize) -> usize {
        let found = self.until(&format!("a log line with \"{text}\""), |seen| {
            let at = seen
                .lines
                .iter()
                .skip(from)
                .position(|line| line.contains(text));
            match at {
                Some(at) => Some(Some(from + at + 1)),
                None if seen.log_ended => Some(None),
                None => None,
            }
        });
        found.unwrap_or_else(|| panic!("{} ended without \"{text}\":\n{}", self.name, self.log()))
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.shared.seen.lock().unwrap().lines.join("\n")
    }

    /// How many lines the log has.
    pub fn log_lines(&self) -> usize {
        self.shared.seen.lock().unwrap().lines.len()
    }

    fn until<T>(&self, what: &str, mut ready: impl FnMut(&Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.shared.seen.lock().unwrap();
        loop {
            if let Some(value) = ready(&seen) {
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let log = seen.lines.join("\n");
                drop(seen);
                panic!(
                    "{} ({}): waited in vain for {what}; its log:\n{log}",
                    self.name, self.pid
                );
            }
            seen = self.shared.news.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

impl Shared {
    fn read_log(&self, log: impl Read) {
        for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.seen.lock().unwrap().lines.push(line);
            self.news.notify_all();
        }
        self.seen.lock().unwrap().log_ended = true;
        self.news.notify_all();
    }

    fn wait_for(&self, pid: Pid, mut child: Child) {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(pid), ended) == Err(nix::errno::Errno::EINTR) {}
        let mut seen = self.seen.lock().unwrap();
        seen.status = child.wait().ok();
        self.news.notify_all();
    }
}

/// Starts a child from a thread that lives as long as the process: the signal at a parent's death
/// is tied to the thread that forked, and a test's thread ends with its test.
fn spawn(command: Command) -> Child {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static NURSERY: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (sender, answer) = channel();
    nursery
        .lock()
        .unwrap()
        .send((command, sender))
        .expect("the thread that starts children");
    answer
        .recv()
        .expect("an answer")
        .expect("a program that can be started")
}

/// Runs a command to its end, which must be a success.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{log}",
        output.status
    );
    output
}

/// Runs a program to its end, which must be a success; false where it is not installed, which is printed.
pub fn run_if_installed(command: &mut Command) -> bool {
    match command.output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no {}", command.get_program().to_string_lossy());
            false
        }
        Err(e) => panic!("{command:?}: {e}"),
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(output.status.success(), "{command:?}:\n{said}");
            true
        }
    }
}
