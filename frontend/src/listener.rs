//! The one connection that listens: wakes streams, and reads the functions of shell_api again when told.
//!
//! A notification costs every commit that sends one, and who hears it a process's waking, so output and new commands are
//! watched only while a stream is open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Notification};
use uuid::Uuid;

use crate::catalogue::Catalogue;
use crate::error::Error;

/// Streams that are further behind look at everything.
const NOTICES: usize = 256;
/// Which session a command is of, is remembered of so many.
const REMEMBERED: usize = 10_000;
/// The longest pause before another attempt to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// News: these commands have new output, have ended or are new.
#[derive(Debug, Clone, Default)]
pub struct Notice {
    /// The commands.
    pub commands: Vec<i64>,
    /// Their sessions.
    pub sessions: Vec<Uuid>,
    /// It may be any.
    pub all: bool,
}

/// Where streams hear of news, and requests find functions.
#[derive(Clone)]
pub struct Hub {
    notices: broadcast::Sender<Arc<Notice>>,
    catalogue: Arc<RwLock<Arc<Catalogue>>>,
    orders: mpsc::UnboundedSender<Order>,
    open: Arc<Mutex<usize>>,
}

enum Order {
    Watch(oneshot::Sender<()>),
    Unwatch,
}

/// A stream's place; output is watched while there is one.
pub struct Place {
    /// What it hears.
    pub notices: broadcast::Receiver<Arc<Notice>>,
    hub: Hub,
}

impl Hub {
    /// Connects, and stays connected.
    ///
    /// # Errors
    /// [`Error::Database`] where the first attempt fails.
    pub async fn start(config: &Config) -> Result<Hub, Error> {
        let mut config = config.clone();
        config.application_name("pg-shell-web listener");
        let (orders, inbox) = mpsc::unbounded_channel();
        let hub = Hub {
            notices: broadcast::channel(NOTICES).0,
            catalogue: Arc::default(),
            orders,
            open: Arc::default(),
        };
        let connection = Connection::open(&config, &hub).await?;
        tokio::spawn(listen(config, hub.clone(), connection, inbox));
        Ok(hub)
    }

    /// The functions, as they were last read.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        let catalogue = self
            .catalogue
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        catalogue.clone()
    }

    /// A place; what changes from now on is heard of.
    pub async fn enter(&self) -> Place {
        let place = Place {
            notices: self.notices.subscribe(),
            hub: self.clone(),
        };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let (done, watched) = oneshot::channel();
        let _ = self.orders.send(Order::Watch(done));
        // Without a connection nothing answers: the stream looks again when there is one.
        let _ = tokio::time::timeout(LONGEST_PAUSE, watched).await;
        place
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.hub.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open -= 1;
        if *open == 0 {
            let _ = self.hub.orders.send(Order::Unwatch);
        }
    }
}

/// A connection that listens.
struct Connection {
    client: Client,
    notices: mpsc::UnboundedReceiver<Notification>,
    watching: bool,
    sessions: HashMap<i64, Uuid>,
    newest: i64,
}

impl Connection {
    async fn open(config: &Config, hub: &Hub) -> Result<Connection, Error> {
        let (client, mut connection) = config.connect(NoTls).await?;
        let (sender, notices) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|cx| connection.poll_message(cx)).await
            {
                if let AsyncMessage::Notification(notice) = message {
                    let _ = sender.send(notice);
                }
            }
        });
        client.batch_execute("listen pgrst").await?;
        let mut connection = Connection {
            client,
            notices,
            watching: false,
            sessions: HashMap::new(),
            newest: 0,
        };
        connection.reload(hub).await?;
        if hub.streams() > 0 {
            connection.watch().await?;
        }
        let all = Notice {
            all: true,
            ..Notice::default()
        };
        let _ = hub.notices.send(Arc::new(all));
        Ok(connection)
    }

    async fn reload(&mut self, hub: &Hub) -> Result<(), Error> {
        let catalogue = Arc::new(Catalogue::read(&self.client).await?);
        tracing::info!(
            functions = catalogue.len(),
            "read the functions of shell_api"
        );
        *hub.catalogue
            .write()
            .unwrap_or_else(PoisonError::into_inner) = catalogue;
        Ok(())
    }

    async fn watch(&mut self) -> Result<(), Error> {
        if !self.watching {
            // First what is to be heard, in a transaction of its own; then that somebody hears it.
            self.client
                .batch_execute("listen shell_output; listen shell_commands")
                .await?;
            self.client
                .batch_execute("select shell.watch_output()")
                .await?;
            self.watching = true;
        }
        Ok(())
    }

    async fn order(&mut self, order: Order, hub: &Hub) -> Result<(), Error> {
        match order {
            Order::Watch(done) => {
                self.watch().await?;
                let _ = done.send(());
            }
            // Another stream may have come since this was sent.
            Order::Unwatch if self.watching && hub.streams() == 0 => {
                self.client
                    .batch_execute("select shell.unwatch_output(); unlisten shell_output; unlisten shell_commands")
                    .await?;
                self.watching = false;
                self.sessions.clear();
            }
            Order::Unwatch => {}
        }
        Ok(())
    }

    async fn heard(&mut self, first: Notification, hub: &Hub) -> Result<(), Error> {
        let mut notice = Notice::default();
        let (mut reload, mut submitted) = (false, false);
        let mut next = Some(first);
        while let Some(heard) = next {
            match heard.channel() {
                "pgrst" => reload |= matches!(heard.payload(), "" | "reload schema"),
                "shell_commands" => submitted = true,
                _ if heard.payload().is_empty() => notice.all = true,
                _ => notice.commands.extend(
                    heard
                        .payload()
                        .split(',')
                        .filter_map(|id| id.parse::<i64>().ok()),
                ),
            }
            next = self.notices.try_recv().ok();
        }
        if reload {
            self.reload(hub).await?;
        }
        if hub.streams() > 0 {
            self.find_sessions(&mut notice, submitted).await?;
            let _ = hub.notices.send(Arc::new(notice));
        }
        Ok(())
    }

    /// Adds the sessions of these commands, and with `submitted` those with new ones. Whether a stream may see its
    /// session was asked with its own rights; here only who shall look again is found.
    async fn find_sessions(&mut self, notice: &mut Notice, submitted: bool) -> Result<(), Error> {
        let unknown: Vec<i64> = notice
            .commands
            .iter()
            .filter(|id| !self.sessions.contains_key(id))
            .copied()
            .collect();
        if submitted || !unknown.is_empty() {
            if self.sessions.len() > REMEMBERED {
                self.sessions.clear();
            }
            let newest = if submitted { self.newest } else { i64::MAX };
            let parameters: [(&(dyn ToSql + Sync), Type); 2] =
                [(&unknown, Type::INT8_ARRAY), (&newest, Type::INT8)];
            let (begun, rows, ended) = tokio::join!(
                self.client
                    .batch_execute("begin read only; set local role shell_auditor"),
                self.client.query_typed(ACTIVE, &parameters),
                self.client.batch_execute("commit"),
            );
            begun?;
            let rows = rows?;
            ended?;
            for row in rows {
                let (id, session): (i64, Uuid) = (row.try_get(0)?, row.try_get(1)?);
                self.newest = self.newest.max(id);
                self.sessions.insert(id, session);
                if !notice.commands.contains(&id) {
                    notice.commands.push(id);
                }
            }
        }
        notice.sessions = notice
            .commands
            .iter()
            .filter_map(|id| self.sessions.get(id).copied())
            .collect();
        Ok(())
    }
}

/// The named commands, what waits, and what runs already though it is newer than what was last seen.
const ACTIVE: &str = "select id, environment_id from shell.commands where id = any ($1)
  union all select id, environment_id from shell.commands where status = 'pending' and $2 < 9223372036854775807
  union all select id, environment_id from shell.commands where status = 'running' and id > $2";

async fn listen(
    config: Config,
    hub: Hub,
    first: Connection,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut connection = first;
    loop {
        let failed = serve(&mut connection, &hub, &mut orders).await;
        let Err(why) = failed else { return };
        tracing::warn!("the listening connection is gone: {why}");
        let mut pause = Duration::from_millis(100);
        connection = loop {
            tokio::time::sleep(pause).await;
            match Connection::open(&config, &hub).await {
                Ok(connection) => break connection,
                Err(e) => tracing::debug!("cannot listen: {e}"),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        tracing::info!("listening again");
    }
}

/// Ends well when nobody is left to order anything.
async fn serve(
    connection: &mut Connection,
    hub: &Hub,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => connection.order(order, hub).await?,
                None => return Ok(()),
            },
            heard = connection.notices.recv() => match heard {
                Some(heard) => connection.heard(heard, hub).await?,
                None => return Err(Error::System {
                    what: "listening",
                    source: std::io::ErrorKind::ConnectionReset.into(),
                }),
            },
        }
    }
}
