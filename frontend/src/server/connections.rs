//! Connections: accepted, served, and ended where the client says nothing for too long. Those beyond a number are told
//! so, and closed.
//!
//! HTTP/1 only: browsers speak HTTP/2 over TLS alone, which ends at the proxy in front.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A request's head is there within this time of the connection's beginning, or of the last answer. Whoever sends it
/// byte by byte would else hold a descriptor for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before the next attempt, where a connection cannot be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// What is beyond the number is told so; so many are at a time, the others are closed at once.
const REFUSED_AT_A_TIME: usize = 64;
/// Who is refused has read why within this time.
const FAREWELL: Duration = Duration::from_secs(1);
/// That there are too many connections is logged once for so long.
const QUIET: Duration = Duration::from_secs(60);

const REFUSAL: &str = r#"{"code":"PSW503","message":"There are more connections than this server takes.","details":null,"hint":"Try again in some seconds, or have the server run with more --max-connections."}"#;

/// Serves until `soft`, and then what has been asked already; `most` connections at a time.
pub async fn serve(
    listener: TcpListener,
    most: NonZeroU32,
    app: Router,
    soft: impl Future<Output = ()>,
) {
    let mut places = Places::new(most);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let open = GracefulShutdown::new();
    let mut soft = std::pin::pin!(soft);
    loop {
        let (stream, address) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut soft => break,
        };
        let Some(place) = places.take() else {
            places.refuse(stream);
            continue;
        };
        let app = app.clone().layer(Extension(ConnectInfo(address)));
        let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
        let served = open.watch(served);
        tokio::spawn(async move {
            let _place = place;
            if let Err(e) = served.await {
                tracing::debug!("a connection ends: {e}");
            }
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// Places for connections, and those for who finds none.
struct Places {
    most: NonZeroU32,
    free: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    told: Option<Instant>,
}

impl Places {
    fn new(most: NonZeroU32) -> Places {
        let free = usize::try_from(most.get()).unwrap_or(Semaphore::MAX_PERMITS);
        Places {
            most,
            free: Arc::new(Semaphore::new(free.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSED_AT_A_TIME)),
            told: None,
        }
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }

    fn refuse(&mut self, stream: TcpStream) {
        if self.told.is_none_or(|told| told.elapsed() > QUIET) {
            tracing::warn!("{} connections are open: others are refused", self.most);
            self.told = Some(Instant::now());
        }
        if let Ok(turn) = self.refusals.clone().try_acquire_owned() {
            tokio::spawn(async move {
                let _turn = turn;
                let _ = timeout(FAREWELL, farewell(stream)).await;
            });
        }
    }
}

/// Says why, and reads what the client has sent: to close before that would take the answer away from it.
async fn farewell(mut stream: TcpStream) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n\
         Proxy-Status: PostgREST; error=PSW503\r\nContent-Type: application/json; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n{REFUSAL}",
        REFUSAL.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut sent = [0; 1024];
    while stream.read(&mut sent).await? > 0 {}
    Ok(())
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // A stream's events are small, and each is to leave at once.
                if let Err(e) = stream.set_nodelay(true) {
                    tracing::debug!("a connection keeps Nagle's delay: {e}");
                }
                return (stream, address);
            }
            // Gone before it was taken: the next one is another.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => {
                tracing::warn!("cannot take a connection: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;

    async fn connect() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(async || "here"));
        tokio::spawn(serve(
            listener,
            NonZeroU32::MIN,
            app,
            std::future::pending(),
        ));
        TcpStream::connect(address).await.unwrap()
    }

    // Paused, the clock goes on as soon as everybody waits.
    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_waited_for_but_not_for_ever() {
        for half in ["", "GET / HTTP/1.1\r\nHost: h", "PRI * HTTP/2"] {
            let mut stream = connect().await;
            stream.write_all(half.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // It ends: that is the test.
            let _ = stream.read_to_string(&mut answer).await;
            assert!(!answer.contains(" 200 "), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_request_is_answered_and_the_connection_kept() {
        let mut stream = connect().await;
        for _ in 0..2 {
            let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = vec![0; 1024];
            let mut read = 0;
            while !answer[..read].ends_with(b"here") {
                read += stream.read(&mut answer[read..]).await.unwrap();
            }
        }
    }
}
