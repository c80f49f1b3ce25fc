//! A connection on which a whole transaction is one message each way.
//!
//! All statements up to one Sync are one implicit transaction, which needs no begin and no commit, and is answered once.
//! tokio-postgres sends a Sync with each statement, so it only signs in here; the rest is its own protocol crate. Values
//! are text both ways.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use futures_util::FutureExt;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::{CancelToken, Config, NoTls};

use crate::error::{Error, Raised};
use crate::sql::Sql;

/// Statements that a connection keeps prepared; with more it begins anew, for requests choose their texts.
const MOST_PREPARED: usize = 64;
/// How long what was given up may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Room for what is read at a time.
const ROOM: usize = 16 * 1024;

trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Socket for T {}

/// See the module.
pub struct Wire {
    socket: Box<dyn Socket>,
    received: BytesMut,
    to_send: BytesMut,
    /// Names of statements by their texts.
    prepared: HashMap<String, String>,
    /// What is being prepared, the first first, and not known to be.
    preparing: Vec<(String, String)>,
    named: u64,
    idle: bool,
    /// Where it goes to, and what ends a statement there.
    end: Option<(Address, CancelToken)>,
}

/// Where a server listens.
#[derive(Debug, Clone)]
enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// A row of an answer: null, or what the value's type prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<Option<String>>);

impl Wire {
    /// Connects to the first host that answers, and signs in.
    ///
    /// # Errors
    /// What the last host's socket, or Postgres, said.
    pub async fn open(config: &Config) -> io::Result<Wire> {
        let mut last = io::ErrorKind::InvalidInput.into();
        for (index, host) in config.get_hosts().iter().enumerate() {
            let ports = config.get_ports();
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match sign_in(config, Address::new(host, port)).await {
                Ok(wire) => return Ok(wire),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn on(socket: Box<dyn Socket>) -> Wire {
        Wire {
            socket,
            received: BytesMut::new(),
            to_send: BytesMut::new(),
            prepared: HashMap::new(),
            preparing: Vec::new(),
            named: 0,
            idle: true,
            end: None,
        }
    }

    /// Ends what runs there for a request that was given up, and returns when it has ended.
    pub async fn give_up(&mut self) {
        let ended = async {
            if let Some((address, token)) = &self.end {
                let socket = address.connect().await?;
                let cancelled = token.cancel_query_raw(socket, NoTls).await;
                cancelled.map_err(io::Error::other)?;
            }
            self.end().await
        };
        // After that it is Postgres's to find out that nobody is there.
        let _ = timeout(PATIENCE, ended).await;
    }

    /// True between transactions.
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    /// True where Postgres has ended the connection, or has said something that nobody asked for.
    pub fn has_news(&mut self) -> bool {
        let mut byte = [0];
        self.socket.read(&mut byte).now_or_never().is_some()
    }

    /// Adds a statement to what is sent next. It is prepared in its place: under the role, and with the rights, that
    /// the statements before it have set.
    ///
    /// # Errors
    /// [`Error::Lost`] for what is longer than a message may be.
    pub fn add(&mut self, sql: &Sql) -> Result<(), Error> {
        // First of all, or a failure before it would leave them there.
        if self.to_send.is_empty() && self.prepared.len() >= MOST_PREPARED {
            for (_, name) in self.prepared.drain() {
                frontend::close(b'S', &name, &mut self.to_send)?;
            }
        }
        let name = match self.prepared.get(&sql.text) {
            Some(name) => name.clone(),
            None => self.prepare(&sql.text)?,
        };
        let written = frontend::bind(
            "",
            &name,
            [],
            &sql.parameters,
            |value, out| match &value.0 {
                Some(text) => {
                    out.extend_from_slice(text.as_bytes());
                    Ok(IsNull::No)
                }
                None => Ok(IsNull::Yes),
            },
            [],
            &mut self.to_send,
        );
        written.map_err(|e| match e {
            frontend::BindError::Conversion(e) => io::Error::other(e),
            frontend::BindError::Serialization(e) => e,
        })?;
        frontend::execute("", 0, &mut self.to_send)?;
        Ok(())
    }

    fn prepare(&mut self, text: &str) -> Result<String, Error> {
        let name = format!("s{}", self.named);
        self.named += 1;
        frontend::parse(&name, text, [], &mut self.to_send)?;
        self.preparing.push((text.to_owned(), name.clone()));
        Ok(name)
    }

    /// Sends what was added, up to here one transaction unless it says otherwise.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn send(&mut self) -> Result<(), Error> {
        self.idle = false;
        frontend::sync(&mut self.to_send);
        let sent = self.socket.write_all(&self.to_send).await;
        self.to_send.clear();
        Ok(sent?)
    }

    /// The rows of the last statement.
    ///
    /// # Errors
    /// [`Error::Raised`] with the first statement's error; then nothing of the transaction is kept. [`Error::Lost`].
    pub async fn rows(&mut self) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        while let Some(next) = self.next().await? {
            match next {
                Next::Statement => rows.clear(),
                Next::Row(row) => rows.push(row),
            }
        }
        Ok(rows)
    }

    /// What comes next; nothing after the transaction.
    ///
    /// # Errors
    /// As of [`Wire::rows`], once all has come.
    pub async fn next(&mut self) -> Result<Option<Next>, Error> {
        loop {
            match self.message().await? {
                Message::ParseComplete if !self.preparing.is_empty() => {
                    let (text, name) = self.preparing.remove(0);
                    self.prepared.insert(text, name);
                }
                Message::BindComplete => return Ok(Some(Next::Statement)),
                Message::DataRow(body) => return Ok(Some(Next::Row(Row::read(&body)?))),
                Message::ErrorResponse(body) => {
                    let raised = read_error(&body)?;
                    // Some errors end the connection: it stays busy then, and is not used again.
                    let _ = self.end().await;
                    return Err(Error::Raised(raised));
                }
                Message::ReadyForQuery(body) => {
                    self.ready(body.status());
                    return Ok(None);
                }
                _ => {}
            }
        }
    }

    /// Passes over what is left of a transaction that has failed.
    async fn end(&mut self) -> io::Result<()> {
        loop {
            if let Message::ReadyForQuery(body) = self.message().await? {
                self.ready(body.status());
                return Ok(());
            }
        }
    }

    fn ready(&mut self, status: u8) {
        self.preparing.clear();
        self.idle = status == b'I';
    }

    async fn message(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.received)? {
                return Ok(message);
            }
            self.received.reserve(ROOM);
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A part of an answer.
pub enum Next {
    /// The rows that follow are another statement's.
    Statement,
    /// A row.
    Row(Row),
}

impl Row {
    fn read(body: &DataRowBody) -> Result<Row, Error> {
        let values = body.ranges().map(|range| {
            let bytes = range.map(|range| &body.buffer()[range]);
            let text = bytes.map(std::str::from_utf8).transpose();
            text.map(|text| text.map(str::to_owned))
                .map_err(io::Error::other)
        });
        Ok(Row(values.collect()?))
    }

    /// A column's text.
    pub fn text(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }

    /// The same, of a number.
    pub fn number<T: std::str::FromStr>(&self, column: usize) -> Option<T> {
        self.text(column)?.parse().ok()
    }

    /// The same, taken away: an output may be long.
    pub fn take(&mut self, column: usize) -> Option<String> {
        self.0.get_mut(column)?.take()
    }
}

impl Address {
    fn new(host: &Host, port: u16) -> Address {
        match host {
            Host::Tcp(name) => Address::Tcp(name.clone(), port),
            Host::Unix(folder) => Address::Unix(folder.join(format!(".s.PGSQL.{port}"))),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Socket>> {
        Ok(match self {
            Address::Tcp(name, port) => {
                let socket = TcpStream::connect((name.as_str(), *port)).await?;
                socket.set_nodelay(true)?;
                Box::new(socket)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

/// tokio-postgres signs in over the socket, and is gone before anything else is sent.
async fn sign_in(config: &Config, address: Address) -> io::Result<Wire> {
    let mut socket = address.connect().await?;
    let signed_in = config.connect_raw(&mut socket, NoTls).await;
    let token = {
        let (client, _connection) =
            signed_in.map_err(|e| io::Error::other(daemon::describe(&e)))?;
        client.cancel_token()
    };
    let mut wire = Wire::on(socket);
    wire.end = Some((address, token));
    Ok(wire)
}

fn read_error(body: &ErrorResponseBody) -> io::Result<Box<Raised>> {
    let mut raised = Raised::default();
    body.fields().for_each(|field| {
        let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => raised.code = text(),
            b'M' => raised.message = text(),
            b'D' => raised.detail = Some(text()),
            b'H' => raised.hint = Some(text()),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Box::new(raised))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for two statements, and is answered with these messages before the connection ends.
    async fn asked(messages: &[(u8, &[u8])]) -> (Wire, Result<Vec<Row>, Error>) {
        let (ours, mut theirs) = tokio::io::duplex(ROOM);
        let mut wire = Wire::on(Box::new(ours));
        for statement in ["select 1", "select 2"] {
            wire.add(&Sql::from(statement)).unwrap();
        }
        wire.send().await.unwrap();
        for (tag, body) in messages {
            let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
            let message = [&[*tag], length.as_slice(), body].concat();
            theirs.write_all(&message).await.unwrap();
        }
        drop(theirs);
        let rows = wire.rows().await;
        (wire, rows)
    }

    const PARSED: (u8, &[u8]) = (b'1', b"");
    const BOUND: (u8, &[u8]) = (b'2', b"");
    const DONE: (u8, &[u8]) = (b'C', b"SELECT 1\0");
    const NOTICE: (u8, &[u8]) = (b'N', b"SNOTICE\0\0");
    const READY: (u8, &[u8]) = (b'Z', b"I");
    const FAILED: (u8, &[u8]) = (b'E', b"SERROR\0C22012\0Mdivision by zero\0Dwhy\0\0");

    fn row(value: &[u8; 1]) -> Vec<u8> {
        [b"\0\x01\0\0\0\x01".as_slice(), value].concat()
    }

    #[tokio::test]
    async fn the_last_statements_rows_count() {
        let (one, two) = (row(b"1"), row(b"2"));
        let (wire, rows) = asked(&[
            PARSED,
            BOUND,
            (b'D', &one),
            DONE,
            NOTICE,
            PARSED,
            BOUND,
            (b'D', &two),
            DONE,
            READY,
        ])
        .await;
        let rows = rows.unwrap();
        assert_eq!((rows.len(), rows[0].number(0)), (1, Some(2)));
        assert_eq!(
            (rows[0].text(1), rows[0].number::<i64>(1)),
            (None, None),
            "no such column"
        );
        assert!(wire.is_idle() && wire.prepared.len() == 2);
    }

    #[tokio::test]
    async fn what_fails_says_why_and_is_not_taken_for_prepared() {
        let (wire, rows) = asked(&[PARSED, BOUND, DONE, FAILED, READY]).await;
        let Err(Error::Raised(raised)) = rows else {
            panic!("{rows:?}")
        };
        assert_eq!(
            (raised.code.as_str(), raised.message.as_str()),
            ("22012", "division by zero")
        );
        assert_eq!(raised.detail.as_deref(), Some("why"));
        assert!(wire.is_idle());
        assert_eq!(wire.prepared.keys().collect::<Vec<_>>(), ["select 1"]);
    }

    #[tokio::test]
    async fn a_connection_that_ends_is_not_used_again() {
        let (mut wire, rows) = asked(&[PARSED, BOUND, FAILED]).await;
        assert!(matches!(rows, Err(Error::Raised(_))), "{rows:?}");
        assert!(!wire.is_idle() && wire.has_news());
        let (wire, rows) = asked(&[PARSED, BOUND]).await;
        assert!(matches!(rows, Err(Error::Lost(_))), "{rows:?}");
        assert!(!wire.is_idle());
        let (wire, rows) = asked(&[PARSED, (b'?', b"")]).await;
        assert!(matches!(rows, Err(Error::Lost(_))), "{rows:?}");
        assert!(!wire.is_idle());
    }

    #[tokio::test]
    async fn what_is_given_up_is_not_idle() {
        let (ours, _theirs) = tokio::io::duplex(ROOM);
        let mut wire = Wire::on(Box::new(ours));
        assert!(wire.is_idle() && !wire.has_news());
        wire.add(&Sql::from("select 1")).unwrap();
        wire.send().await.unwrap();
        assert!(wire.rows().now_or_never().is_none());
        assert!(!wire.is_idle());
    }
}
