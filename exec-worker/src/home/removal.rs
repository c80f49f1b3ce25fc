//! Removing objects that no chunk names from the content store.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Files;
use super::outside::Outside;
use crate::error::Error;

/// After a round in which there was nothing to do here, as where only another store's objects are left, or one that
/// failed, the next comes so much later.
const PAUSE: Duration = Duration::from_secs(600);

/// When the next round may begin; locked while one is under way.
pub(super) type Round = Arc<Mutex<Option<Instant>>>;

impl Files {
    /// Called when the database has objects that are to be removed. Others' work does not wait for it.
    pub fn remove_objects(self: &Arc<Files>) {
        let (Some(outside), Ok(mut round)) =
            (self.outside.clone(), self.round.clone().try_lock_owned())
        else {
            return;
        };
        if round.is_some_and(|next| Instant::now() < next) {
            return;
        }
        let files = self.clone();
        tokio::spawn(async move {
            let removed = files.remove_unnamed(&outside).await;
            match &removed {
                Ok(objects) => debug!(objects, "removed from the content store"),
                Err(e) => warn!(error = %e, "removing from the content store"),
            }
            *round = match removed {
                Ok(1..) => None,
                _ => Some(Instant::now() + PAUSE),
            };
        });
    }

    /// Removes a batch; how many are gone.
    async fn remove_unnamed(&self, outside: &Outside) -> Result<usize, Error> {
        let connection = self.pool.take().await?;
        let client = &connection.client;
        let base = outside.address().base();
        let rows = client.query(&connection.give_up_objects, &[&base]).await?;
        let urls: Vec<&str> = rows
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()?;
        let removed = join_all(urls.iter().map(|url| outside.remove(url))).await;
        let (mut gone, mut failed) = (Vec::new(), Vec::new());
        for (url, removed) in urls.into_iter().zip(removed) {
            match removed {
                Ok(()) => gone.push(url),
                Err(e) => failed.push((url, e)),
            }
        }
        if let Some((url, e)) = failed.first() {
            warn!(
                objects = failed.len(),
                url,
                error = e,
                "objects cannot be removed; the first of them is named"
            );
        }
        if !gone.is_empty() {
            client.query(&connection.forget_objects, &[&gone]).await?;
        }
        let count = gone.len();
        self.pool.put(connection);
        Ok(count)
    }
}
