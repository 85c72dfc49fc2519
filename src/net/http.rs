//! HTTP/1.1 requests: a parser that takes any bytes in any portions.
//!
//! Input: bytes of a client. Output: complete requests, in order, or one refusal with its status. Bodies come with
//! Content-Length or chunked. Must never panic, never store more than its limits (B2: head 16 kB, body 1 MB), never
//! allocate by a claimed length, and give the same results however the bytes were split. After a refusal the
//! connection is closed, so nothing that follows can be mistaken for a request.

use std::net::SocketAddr;

use super::handler::HttpToken;
use super::limits::{HTTP_BODY_MAX, HTTP_CHUNK_LINE_MAX, HTTP_FIELDS_MAX, HTTP_HEAD_MAX};
use super::window::Window;

/// Methods that are served; anything else is answered 405 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    /// As GET; the body of the answer is left out here.
    Head,
    Post,
}

/// A complete request, as the layer above gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Names the request in [`super::Io::respond`], on the net thread or carried through a queue.
    pub token: HttpToken,
    /// Address of the client.
    pub peer: SocketAddr,
    pub parts: RequestParts,
}

/// What a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestParts {
    pub method: Method,
    /// Path without query, starts with `/`; percent signs are as sent.
    pub path: String,
    /// What follows the first `?`.
    pub query: Option<String>,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    pub host: Option<String>,
    pub origin: Option<String>,
    pub body: Vec<u8>,
    /// The client allows another request on this connection.
    pub keep_alive: bool,
}

/// Bounds of one request, bytes.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    pub head: usize,
    pub body: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            head: HTTP_HEAD_MAX,
            body: HTTP_BODY_MAX,
        }
    }
}

/// One step of the parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    More,
    /// The client waits for `100 Continue` before it sends the body.
    Continue,
    /// A request is complete.
    Request(RequestParts),
    /// The bytes are no request that is served; answer with this status and close.
    Refused(u16),
}

/// Where in a request the parser stands; decides which timeout applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Idle,
    Head,
    Body,
}

enum State {
    Head,
    Length { parts: RequestParts, left: usize },
    Chunked { parts: RequestParts, chunk: Chunk },
    Refused(u16),
}

#[derive(Clone, Copy)]
enum Chunk {
    Size,
    Data { left: usize },
    DataEnd,
    Trailer { used: usize },
}

/// How the body of a request is delimited.
enum Framing {
    Length(usize),
    Chunked,
}

/// The parser of one connection.
pub struct HttpParser {
    limits: HttpLimits,
    input: Window,
    /// Bytes at the front of `input` that hold no end of a head.
    scanned: usize,
    state: State,
}

impl HttpParser {
    /// A parser at the start of a connection.
    pub fn new(limits: HttpLimits) -> Self {
        HttpParser {
            limits,
            input: Window::default(),
            scanned: 0,
            state: State::Head,
        }
    }

    /// Takes bytes in. They are looked at by [`HttpParser::step`].
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.tail().extend_from_slice(bytes);
    }

    /// Goes on as far as the bytes allow; call again until it wants more.
    pub fn step(&mut self) -> Parsed {
        loop {
            let step = match std::mem::replace(&mut self.state, State::Head) {
                State::Head => self.read_head(),
                State::Length { parts, left } => Ok(self.read_length(parts, left)),
                State::Chunked { parts, chunk } => self.read_chunked(parts, chunk),
                State::Refused(status) => Err(status),
            };
            match step {
                Ok(Some(parsed)) => return parsed,
                Ok(None) => {}
                Err(status) => {
                    self.state = State::Refused(status);
                    self.input = Window::default();
                    return Parsed::Refused(status);
                }
            }
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.state {
            State::Head if self.input.is_empty() => Phase::Idle,
            State::Head => Phase::Head,
            State::Length { .. } | State::Chunked { .. } | State::Refused(_) => Phase::Body,
        }
    }

    /// Bytes taken in and not yet part of a request.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    fn read_head(&mut self) -> Result<Option<Parsed>, u16> {
        let blank = self
            .input
            .rest()
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        if blank > 0 {
            self.input.consume(blank);
            self.scanned = 0;
        }
        let input = self.input.rest();
        match input.first() {
            None => return Ok(Some(Parsed::More)),
            Some(byte) if !byte.is_ascii_uppercase() => return Err(400),
            Some(_) => {}
        }
        let window = &input[..input.len().min(self.limits.head)];
        let Some(length) = head_end(window, self.scanned.saturating_sub(3)) else {
            self.scanned = window.len();
            return if input.len() >= self.limits.head {
                Err(431)
            } else {
                Ok(Some(Parsed::More))
            };
        };
        let head = parse_head(&input[..length], self.limits.body)?;
        self.input.consume(length);
        self.scanned = 0;
        let Head {
            parts,
            framing,
            wants_continue,
        } = head;
        let has_body = !matches!(framing, Framing::Length(0));
        self.state = match framing {
            Framing::Length(left) => State::Length { parts, left },
            Framing::Chunked => State::Chunked {
                parts,
                chunk: Chunk::Size,
            },
        };
        Ok(if wants_continue && has_body {
            Some(Parsed::Continue)
        } else {
            None
        })
    }

    fn read_length(&mut self, mut parts: RequestParts, left: usize) -> Option<Parsed> {
        let left = left - self.take_body(&mut parts, left);
        if left == 0 {
            return Some(Parsed::Request(parts));
        }
        self.state = State::Length { parts, left };
        Some(Parsed::More)
    }

    fn take_body(&mut self, parts: &mut RequestParts, at_most: usize) -> usize {
        let input = self.input.rest();
        let now = &input[..input.len().min(at_most)];
        parts.body.extend_from_slice(now);
        let count = now.len();
        self.input.consume(count);
        count
    }

    fn read_chunked(
        &mut self,
        mut parts: RequestParts,
        chunk: Chunk,
    ) -> Result<Option<Parsed>, u16> {
        let next = match chunk {
            Chunk::Data { left } => match left - self.take_body(&mut parts, left) {
                0 => Some(Chunk::DataEnd),
                left => {
                    self.state = State::Chunked {
                        parts,
                        chunk: Chunk::Data { left },
                    };
                    return Ok(Some(Parsed::More));
                }
            },
            Chunk::Size => match self.take_line(HTTP_CHUNK_LINE_MAX)? {
                None => None,
                Some(line) => match chunk_size(&line)? {
                    0 => Some(Chunk::Trailer { used: 0 }),
                    size if size > self.limits.body - parts.body.len() => return Err(413),
                    left => Some(Chunk::Data { left }),
                },
            },
            Chunk::DataEnd => match self.take_line(2)? {
                None => None,
                Some(line) if line.is_empty() => Some(Chunk::Size),
                Some(_) => return Err(400),
            },
            Chunk::Trailer { used } => match self.take_line(self.limits.head - used)? {
                None => None,
                Some(line) if line.is_empty() => return Ok(Some(Parsed::Request(parts))),
                Some(line) => Some(Chunk::Trailer {
                    used: used + line.len() + 2,
                }),
            },
        };
        let waits = next.is_none();
        self.state = State::Chunked {
            parts,
            chunk: next.unwrap_or(chunk),
        };
        Ok(if waits { Some(Parsed::More) } else { None })
    }

    /// Takes a line that ends with CR LF and is at most `limit` bytes long with them; the line comes without them.
    fn take_line(&mut self, limit: usize) -> Result<Option<Vec<u8>>, u16> {
        let input = self.input.rest();
        let window = &input[..input.len().min(limit)];
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            return if input.len() >= limit {
                Err(400)
            } else {
                Ok(None)
            };
        };
        let line = window[..end].strip_suffix(b"\r").ok_or(400u16)?.to_vec();
        self.input.consume(end + 1);
        Ok(Some(line))
    }
}

struct Head {
    parts: RequestParts,
    framing: Framing,
    wants_continue: bool,
}

/// Length of the head including its empty line, if that is within `window`.
fn head_end(window: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(step) = window.get(at..)?.iter().position(|byte| *byte == b'\n') {
        at += step + 1;
        match window.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Parses a complete head. The error is the status to refuse with.
fn parse_head(bytes: &[u8], body_limit: usize) -> Result<Head, u16> {
    let mut fields = [httparse::EMPTY_HEADER; HTTP_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(400),
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(httparse::Error::Version) => return Err(505),
        Err(_) => return Err(400),
    }
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => return Err(405),
    };
    let (path, query) = split_target(request.path.ok_or(400u16)?)?;
    let http_1_1 = request.version == Some(1);
    let fields: &[httparse::Header<'_>] = request.headers;
    let wants_continue = match single(fields, "expect")? {
        None => false,
        Some(value) if value.eq_ignore_ascii_case("100-continue") => http_1_1,
        Some(_) => return Err(417),
    };
    let framing = body_framing(fields, http_1_1, body_limit)?;
    let parts = RequestParts {
        method,
        path,
        query,
        authorization: single(fields, "authorization")?,
        content_type: single(fields, "content-type")?,
        host: single(fields, "host")?,
        origin: single(fields, "origin")?,
        body: Vec::new(),
        keep_alive: keep_alive(fields, http_1_1),
    };
    Ok(Head {
        parts,
        framing,
        wants_continue,
    })
}

/// Path and query of `/path?query` or `http://host/path?query`.
fn split_target(target: &str) -> Result<(String, Option<String>), u16> {
    let local = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    if !local.starts_with('/') {
        return Err(400);
    }
    let local = local.split('#').next().unwrap_or(local);
    Ok(match local.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (local.to_owned(), None),
    })
}

fn values<'f>(fields: &'f [httparse::Header<'f>], name: &'f str) -> impl Iterator<Item = &'f [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value)
}

/// The value of a field that may appear once.
fn single(fields: &[httparse::Header<'_>], name: &str) -> Result<Option<String>, u16> {
    let mut all = values(fields, name);
    let first = all.next();
    if all.next().is_some() {
        return Err(400);
    }
    let text = |value: &[u8]| {
        std::str::from_utf8(value)
            .map(|text| text.trim().to_owned())
            .map_err(|_| 400u16)
    };
    first.map(text).transpose()
}

/// Two ways to delimit one body are how requests are smuggled: refused, as is anything but one plain number.
fn body_framing(
    fields: &[httparse::Header<'_>],
    http_1_1: bool,
    body_limit: usize,
) -> Result<Framing, u16> {
    let length = single(fields, "content-length")?;
    let coding = single(fields, "transfer-encoding")?;
    match (length, coding) {
        (Some(_), Some(_)) => Err(400),
        (None, None) => Ok(Framing::Length(0)),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") && http_1_1 => {
            Ok(Framing::Chunked)
        }
        (None, Some(_)) => Err(501),
        (Some(length), None) => {
            if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(400);
            }
            match length.parse::<usize>() {
                Ok(length) if length <= body_limit => Ok(Framing::Length(length)),
                _ => Err(413),
            }
        }
    }
}

fn keep_alive(fields: &[httparse::Header<'_>], http_1_1: bool) -> bool {
    let says = |word: &str| {
        let tokens =
            values(fields, "connection").flat_map(|value| value.split(|byte| *byte == b','));
        tokens
            .map(<[u8]>::trim_ascii)
            .any(|token| token.eq_ignore_ascii_case(word.as_bytes()))
    };
    if http_1_1 {
        !says("close")
    } else {
        says("keep-alive") && !says("close")
    }
}

/// Size of a chunk; extensions after `;` mean nothing to us.
fn chunk_size(line: &[u8]) -> Result<usize, u16> {
    let digits = line
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or(line)
        .trim_ascii_end();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(400);
    }
    let text = std::str::from_utf8(digits).map_err(|_| 400u16)?;
    usize::from_str_radix(text, 16).map_err(|_| 413)
}
