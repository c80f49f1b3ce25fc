//! The least of an HTTP client: one connection that is kept, one request at a time; or a stream, as it comes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// See the module.
pub struct Http {
    stream: TcpStream,
    head: String,
    answer: Vec<u8>,
}

impl Http {
    /// Connects to a server at `http://ADDRESS:PORT`, as whom this token names.
    pub async fn connect(url: &str, token: &str) -> Http {
        let address = url.strip_prefix("http://").expect("http");
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket's option");
        let head = format!("Host: {address}\r\nAuthorization: Bearer {token}\r\n");
        Http {
            stream,
            head,
            answer: Vec::with_capacity(1 << 16),
        }
    }

    /// Posts JSON; returns the status and the body.
    pub async fn post(&mut self, path: &str, body: &str) -> (u16, &[u8]) {
        let request = format!(
            "POST {path} HTTP/1.1\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.head,
            body.len()
        );
        let sent = self.stream.write_all(request.as_bytes()).await;
        sent.expect("a connection that is kept");
        self.answer.clear();
        let (status, body) = loop {
            let read = self.stream.read_buf(&mut self.answer).await;
            assert_ne!(read.expect("an answer"), 0, "an answer to {path}");
            if let Some((status, body, length)) = head(&self.answer)
                && self.answer.len() >= body + length
            {
                break (status, body);
            }
        };
        (status, &self.answer[body..])
    }

    /// Asks for what does not end by itself.
    pub async fn begin_get(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\n{}\r\n", self.head);
        let sent = self.stream.write_all(request.as_bytes()).await;
        sent.expect("a connection");
        self.answer.clear();
    }

    /// What has come, up to this; the lengths of HTTP's chunks are among it.
    pub async fn read_until(&mut self, end: &str) -> String {
        loop {
            let found = self.answer.windows(end.len());
            if let Some(at) = found.into_iter().position(|part| part == end.as_bytes()) {
                let part = self.answer.drain(..at + end.len()).collect();
                return String::from_utf8(part).expect("text");
            }
            let read = self.stream.read_buf(&mut self.answer).await;
            assert_ne!(read.expect("a stream"), 0, "a stream that goes on");
        }
    }
}

/// The status, where the body begins, and its length, once the head is there.
fn head(answer: &[u8]) -> Option<(u16, usize, usize)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    Some((
        status,
        end + 4,
        length.map_or(Some(0), |(_, n)| n.parse().ok())?,
    ))
}
