//! Soft, then hard: the first signal lets what is being done finish, the second ends it.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How far the daemon is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not at all.
    Work,
    /// It begins nothing more, and leaves when what it does has ended.
    Soft,
    /// It ends what it does, and leaves.
    Hard,
}

/// The stage, and news of it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stage: watch::Receiver<Stage>,
}

impl Shutdown {
    /// Follows SIGTERM and SIGINT.
    ///
    /// # Errors
    /// The system's, where handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let (sender, stage) = watch::channel(Stage::Work);
        tokio::spawn(async move {
            for next in [Stage::Soft, Stage::Hard] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                tracing::info!(stage = ?next, "told to stop");
                if sender.send(next).is_err() {
                    return;
                }
            }
            // Stay, so that the stage stays as it is.
            sender.closed().await;
        });
        Ok(Shutdown { stage })
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Waits for another stage than the one last seen.
    pub async fn changes(&mut self) {
        if self.stage.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until the stage is at least this one.
    pub async fn reaches(&mut self, stage: Stage) {
        if self.stage.wait_for(|now| *now >= stage).await.is_err() {
            std::future::pending().await
        }
    }
}
