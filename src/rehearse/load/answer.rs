//! Reads one HTTP/1.1 answer from a connection, to its very last byte, and says in which way it was broken if it
//! was. It keeps no body and never writes.

use std::io;

use httparse::Status;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A head longer than this is no head that a server means.
const LONGEST_HEAD: usize = 64 * 1024;

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// What its `X-Generation` header said.
    pub(super) generation: Option<u64>,
    /// Whether another request may be sent over the same connection.
    pub(super) reusable: bool,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// End of stream before the first byte.
    Closed,
    /// Reset before the first byte.
    Reset(io::Error),
    /// Ended within the answer.
    Short(String),
    /// Not HTTP/1.
    Garbage(String),
}

/// How the end of the body is known: RFC 9112 §6.3.
enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Reads the answer to a GET.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Answer, Broken> {
    let mut reader = Reader { stream, bytes: Vec::with_capacity(4096), begun: false };
    let (mut answer, body) = reader.head().await?;
    match body {
        Body::Length(length) => reader.discard(length).await?,
        Body::Chunked => reader.chunks().await?,
        Body::UntilClose => {
            answer.reusable = false;
            reader.rest().await?;
        }
    }
    if reader.bytes.is_empty() {
        Ok(answer)
    } else {
        Err(Broken::Garbage(format!("{} bytes after the end of the answer", reader.bytes.len())))
    }
}

struct Reader<'a> {
    stream: &'a mut TcpStream,
    /// What has come and is not dealt with yet.
    bytes: Vec<u8>,
    /// Whether anything ever came.
    begun: bool,
}

impl Reader<'_> {
    async fn head(&mut self) -> Result<(Answer, Body), Broken> {
        loop {
            if let Some((length, answer, body)) = parse_head(&self.bytes)? {
                self.bytes.drain(..length);
                // An interim answer (RFC 9110 §15.2) announces the one that counts.
                if !(100..200).contains(&answer.status) {
                    return Ok((answer, body));
                }
                continue;
            }
            if self.bytes.len() > LONGEST_HEAD {
                return Err(Broken::Garbage("an endless head".to_owned()));
            }
            self.more("the head").await?;
        }
    }

    async fn chunks(&mut self) -> Result<(), Broken> {
        loop {
            match httparse::parse_chunk_size(&self.bytes) {
                Ok(Status::Complete((line, 0))) => {
                    self.bytes.drain(..line);
                    return self.trailers().await;
                }
                Ok(Status::Complete((line, size))) => {
                    self.bytes.drain(..line);
                    self.discard(size + 2).await?;
                }
                Ok(Status::Partial) => self.more("a chunk").await?,
                Err(_) => return Err(Broken::Garbage("a chunk with no size".to_owned())),
            }
        }
    }

    async fn trailers(&mut self) -> Result<(), Broken> {
        loop {
            let mut trailers = [httparse::EMPTY_HEADER; 32];
            match httparse::parse_headers(&self.bytes, &mut trailers) {
                Ok(Status::Complete((length, _))) => {
                    self.bytes.drain(..length);
                    return Ok(());
                }
                Ok(Status::Partial) => self.more("the trailers").await?,
                Err(cause) => return Err(Broken::Garbage(cause.to_string())),
            }
        }
    }

    async fn discard(&mut self, mut length: u64) -> Result<(), Broken> {
        loop {
            let here = self.bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.bytes.drain(..here);
            length -= here as u64;
            if length == 0 {
                return Ok(());
            }
            self.more("the body").await?;
        }
    }

    async fn rest(&mut self) -> Result<(), Broken> {
        loop {
            self.bytes.clear();
            if self.fill("the body").await? == 0 {
                return Ok(());
            }
        }
    }

    async fn more(&mut self, within: &str) -> Result<(), Broken> {
        match self.fill(within).await? {
            0 if self.begun => Err(Broken::Short(format!("closed within {within}"))),
            0 => Err(Broken::Closed),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self, within: &str) -> Result<usize, Broken> {
        match self.stream.read_buf(&mut self.bytes).await {
            Ok(count) => {
                self.begun |= count > 0;
                Ok(count)
            }
            Err(cause) if self.begun => Err(Broken::Short(format!("within {within}: {cause}"))),
            Err(cause) => Err(Broken::Reset(cause)),
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Answer, Body)>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(cause) => return Err(Broken::Garbage(cause.to_string())),
    };
    let status = head.code.unwrap_or_default();
    let mut answer = Answer { status, generation: None, reusable: head.version == Some(1) };
    let mut body = if matches!(status, 100..200 | 204 | 304) { Body::Length(0) } else { Body::UntilClose };
    for header in head.headers.iter() {
        let value = str::from_utf8(header.value).unwrap_or_default().trim();
        match header.name.to_ascii_lowercase().as_str() {
            "x-generation" => answer.generation = value.parse().ok(),
            "connection" if lists(value, "close") => answer.reusable = false,
            "connection" if lists(value, "keep-alive") => answer.reusable = true,
            "transfer-encoding" if lists(value, "chunked") => body = Body::Chunked,
            "content-length" if matches!(body, Body::UntilClose) => {
                let length = value.parse().map_err(|_| Broken::Garbage(format!("content-length {value}")))?;
                body = Body::Length(length);
            }
            _ => {}
        }
    }
    Ok(Some((length, answer, body)))
}

fn lists(value: &str, word: &str) -> bool {
    value.split(',').any(|item| item.trim().eq_ignore_ascii_case(word))
}
