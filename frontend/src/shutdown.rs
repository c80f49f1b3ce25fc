//! Soft, then hard: the first signal lets requests finish, the second ends them.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::Error;

/// How far the server is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not at all.
    Work,
    /// It takes no more requests, ends its streams, and leaves when the others are answered.
    Soft,
    /// It leaves.
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
    /// [`Error::System`] where handlers cannot be installed.
    pub fn on_signals() -> Result<Shutdown, Error> {
        let install = |kind| {
            signal(kind).map_err(|source| Error::System {
                what: "watching for signals",
                source,
            })
        };
        let (mut term, mut int) = (
            install(SignalKind::terminate())?,
            install(SignalKind::interrupt())?,
        );
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

    /// Waits until the stage is at least this one.
    pub async fn reaches(&mut self, stage: Stage) {
        if self.stage.wait_for(|now| *now >= stage).await.is_err() {
            std::future::pending().await
        }
    }
}
