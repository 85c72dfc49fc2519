//! The bytes of HTTP/1.1, client side.
//!
//! Job: write a request, put an answer together. Inputs: bytes as they come. Outputs: a whole [`Response`] or a [`Failure`].
//! Never: takes more than [`super::ANSWER_SIZE_MAX`] bytes, touches a socket.

use super::{ANSWER_SIZE_MAX, Url};

/// Greatest head of an answer, in bytes.
const HEAD_SIZE_MAX: usize = 16 << 10;
/// Most header fields of an answer.
const FIELD_COUNT_MAX: usize = 64;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// What it holds.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection.
    Io(std::io::Error),
    /// The other side speaks something else.
    Malformed(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Io(error)
    }
}

/// A request with its body.
pub fn request(verb: &str, url: &Url, authorization: Option<&str>, body: &str) -> Vec<u8> {
    let mut out = format!(
        "{verb} {} HTTP/1.1\r\nHost: {}\r\n",
        url.path,
        url.authority()
    );
    if let Some(value) = authorization {
        out.push_str(&format!("Authorization: {value}\r\n"));
    }
    if verb == "POST" {
        let length = body.len();
        out.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {length}\r\n"
        ));
    }
    out.push_str("Connection: keep-alive\r\n\r\n");
    out.push_str(body);
    out.into_bytes()
}

/// The value of an Authorization field for `user:password`.
pub fn basic(user_and_password: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("Basic ");
    for chunk in user_and_password.as_bytes().chunks(3) {
        let mut group = [0u8; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for place in 0..4usize {
            if place <= chunk.len() {
                let six = (bits >> (18 - 6 * place)) & 63;
                out.push(char::from(LETTERS[six as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// Puts an answer together.
#[derive(Default)]
pub struct Reader {
    bytes: Vec<u8>,
    head: Option<Head>,
}

#[derive(Clone, Copy)]
struct Head {
    size: usize,
    status: u16,
    /// None: until the connection ends.
    length: Option<usize>,
    keep: bool,
}

impl Reader {
    /// Takes what was read, none at the end of the connection. The answer once it is whole, and whether the connection may be kept.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<(Response, bool)>, Failure> {
        self.bytes.extend_from_slice(bytes);
        if self.head.is_none() {
            self.head = head(&self.bytes)?;
        }
        let ended = bytes.is_empty();
        let Some(head) = self.head else {
            return if ended { Err(cut()) } else { Ok(None) };
        };
        let have = self.bytes.len() - head.size;
        if head.length.unwrap_or(have) > ANSWER_SIZE_MAX {
            return Err(Failure::Malformed(format!(
                "the answer is larger than {ANSWER_SIZE_MAX} bytes"
            )));
        }
        let whole = match head.length {
            Some(length) if have > length => {
                return Err(Failure::Malformed("more bytes than announced".to_owned()));
            }
            Some(length) if have < length && ended => return Err(cut()),
            Some(length) => have == length,
            None => ended,
        };
        Ok(whole.then(|| {
            let response = Response {
                status: head.status,
                body: self.bytes.split_off(head.size),
            };
            (response, head.keep && head.length.is_some())
        }))
    }
}

fn cut() -> Failure {
    Failure::Io(std::io::ErrorKind::UnexpectedEof.into())
}

fn head(bytes: &[u8]) -> Result<Option<Head>, Failure> {
    let malformed = |reason: String| Failure::Malformed(reason);
    let mut fields = [httparse::EMPTY_HEADER; FIELD_COUNT_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let size = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_SIZE_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(malformed("its HTTP header is too large".to_owned()));
        }
        Err(error) => return Err(malformed(format!("no HTTP: {error}"))),
    };
    let status = answer.code.unwrap_or_default();
    let mut head = Head {
        size,
        status,
        length: None,
        keep: answer.version == Some(1),
    };
    for field in answer.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = value.parse();
            head.length = Some(length.map_err(|_| malformed("bad Content-Length".to_owned()))?);
        } else if field.name.eq_ignore_ascii_case("connection") {
            head.keep &= !value.eq_ignore_ascii_case("close");
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(malformed(format!(
                "transfer encoding '{value}' is not understood"
            )));
        }
    }
    if status == 204 {
        head.length = Some(0);
    }
    Ok(Some(head))
}
