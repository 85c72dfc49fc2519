//! HTTP answers: what the layer above gives, and the bytes they become.
//!
//! Input: status, fields, body. Output: bytes. Must never let a field value break out of its line.

use std::io::Write;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// 200 to 599.
    pub status: u16,
    /// Left out when empty.
    pub content_type: &'static str,
    /// Further fields, for example `WWW-Authenticate`. Content-Length and Connection are added here.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Close the connection afterwards, whatever the client asked for.
    pub close: bool,
}

impl HttpResponse {
    /// An answer with a body.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        HttpResponse {
            status,
            content_type,
            headers: Vec::new(),
            body: body.into(),
            close: false,
        }
    }

    /// An answer in plain text; a line end is added.
    pub fn text(status: u16, message: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{message}\n"))
    }

    /// Adds a field.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What net itself answers when it refuses a request.
    pub(super) fn refusal(status: u16) -> Self {
        let mut response = Self::text(status, reason(status));
        if status == 405 {
            response = response.with_header("Allow", "GET, HEAD, POST");
        }
        if status == 503 {
            response = response.with_header("Retry-After", "1");
        }
        response.close = true;
        response
    }

    /// Appends the answer to `out`; `head_only` for answers to HEAD.
    pub(super) fn encode(&self, out: &mut Vec<u8>, keep_alive: bool, head_only: bool) {
        let bodiless = self.status == 204 || self.status == 304;
        let body: &[u8] = if bodiless || head_only {
            &[]
        } else {
            &self.body
        };
        out.reserve(256 + body.len());
        line(
            out,
            format_args!("HTTP/1.1 {} {}", self.status, reason(self.status)),
        );
        if !self.content_type.is_empty() && !bodiless {
            line(out, format_args!("Content-Type: {}", self.content_type));
        }
        if !bodiless {
            line(out, format_args!("Content-Length: {}", self.body.len()));
        }
        line(
            out,
            format_args!(
                "Connection: {}",
                if keep_alive { "keep-alive" } else { "close" }
            ),
        );
        for (name, value) in &self.headers {
            let clean: String = value
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            line(out, format_args!("{name}: {clean}"));
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
    out.extend_from_slice(b"\r\n");
}

/// The phrase beside a status; clients ignore it, people read it.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}
