//! A small blocking JSON-RPC client over one keep-alive HTTP connection: what `time-cli` and `timed devnet` talk to a node with.
//!
//! Job: one call at a time, answered or failed within a deadline. Inputs: a URL, credentials from a file, methods and parameters. Outputs:
//! results, or a [`ClientError`] that says whose fault it is and which exit code fits. Never: repeats a request that may have reached the
//! node (a payment sent twice), follows redirects, or reads without a bound.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::exit::Exit;
use crate::rpc::error::is_taken;

mod http;
#[cfg(test)]
mod tests;
mod url;

pub use http::Response;
pub use url::Url;

/// Greatest answer, in bytes.
pub const ANSWER_SIZE_MAX: usize = 64 << 20;
/// Greatest credentials file, in bytes.
const CREDENTIALS_SIZE_MAX: u64 = 4_096;
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take unless told otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is none of ours.
    #[error("{0}")]
    Url(String),
    /// No connection.
    #[error(
        "cannot connect to {url}: {error}; is the node running? (--datadir or --rpc-url says where)"
    )]
    Connect {
        /// Where.
        url: Url,
        /// What the system said.
        error: std::io::Error,
    },
    /// The credentials file cannot be read.
    #[error(
        "cannot read the credentials in {path}: {error}; is the node running, and are you its user?"
    )]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The node does not accept the credentials.
    #[error(
        "{url} refused the credentials: give the node's --datadir, or a file with user:password as --rpc-cookie"
    )]
    Refused {
        /// Where.
        url: Url,
    },
    /// The connection broke during a call.
    #[error("the connection to {url} broke: {error}")]
    Broken {
        /// Where.
        url: Url,
        /// What the system said.
        error: std::io::Error,
    },
    /// No answer within the time.
    #[error("{url} gave no answer within {limit:?}")]
    Timeout {
        /// Where.
        url: Url,
        /// How long was waited.
        limit: Duration,
    },
    /// What came back is no answer.
    #[error("{url} gave no JSON-RPC answer: {reason}")]
    Protocol {
        /// Where.
        url: Url,
        /// What is wrong with it.
        reason: String,
    },
    /// The node answered with an error.
    #[error(transparent)]
    Rpc(#[from] RpcFailure),
}

/// An error reply of the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code}){}", hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
pub struct RpcFailure {
    /// Its number, as Bitcoin Core's.
    pub code: i64,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Why, in one word.
    pub reason: Option<String>,
}

/// The code of a node that is starting.
const CODE_WARMUP: i64 = -28;

impl RpcFailure {
    fn from_json(error: &Value) -> RpcFailure {
        let text = |name: &str| Some(error.get("data")?.get(name)?.as_str()?.to_owned());
        RpcFailure {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or("no message").to_owned(),
            hint: text("hint"),
            reason: text("reason"),
        }
    }

    /// Whether a coin was spent between its choice and the sending, so that choosing again may help.
    pub fn coin_was_taken(&self) -> bool {
        self.reason.as_deref().is_some_and(is_taken)
    }
}

impl ClientError {
    /// The exit code of a program that ends because of this.
    pub fn exit(&self) -> Exit {
        match self {
            ClientError::Url(_) => Exit::Usage,
            ClientError::Connect { .. }
            | ClientError::Broken { .. }
            | ClientError::Protocol { .. } => Exit::Unavailable,
            ClientError::Credentials { error, .. } if error.kind() == ErrorKind::NotFound => {
                Exit::Unavailable
            }
            ClientError::Credentials { .. } | ClientError::Refused { .. } => Exit::Permission,
            ClientError::Timeout { .. } => Exit::TimedOut,
            ClientError::Rpc(failure) if failure.code == CODE_WARMUP => Exit::NotReady,
            ClientError::Rpc(failure) if failure.reason.as_deref() == Some("timeout") => {
                Exit::TimedOut
            }
            ClientError::Rpc(_) => Exit::Failure,
        }
    }
    /// Whether the node may answer a moment later: it is not there yet, or starting.
    pub fn is_not_ready(&self) -> bool {
        matches!(
            self,
            ClientError::Connect { .. } | ClientError::Broken { .. }
        ) || matches!(self, ClientError::Credentials { error, .. } if error.kind() == ErrorKind::NotFound)
            || matches!(self, ClientError::Rpc(failure) if failure.code == CODE_WARMUP)
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular.
    None,
    /// `user:password` in a file, as the cookie of a node; read again when the node made a new one.
    File(PathBuf),
}

/// A node, as seen over its HTTP port.
#[derive(Debug)]
pub struct Client {
    url: Url,
    credentials: Credentials,
    timeout: Duration,
    connection: Option<TcpStream>,
    authorization: Option<String>,
    next_id: u64,
}

impl Client {
    /// A client of the node at `url`. Connects at the first call.
    pub fn new(url: Url, credentials: Credentials) -> Client {
        Client {
            url,
            credentials,
            timeout: CALL_TIMEOUT,
            connection: None,
            authorization: None,
            next_id: 0,
        }
    }
    /// The same node under another path, as `/wallet/NAME`.
    pub fn with_path(&self, path: &str) -> Client {
        let mut url = self.url.clone();
        url.path = path.to_owned();
        let mut client = Client::new(url, self.credentials.clone());
        client.timeout = self.timeout;
        client
    }
    /// Another connection to the same node.
    pub fn another(&self) -> Client {
        self.with_path(&self.url.path)
    }
    /// How long a call may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }
    /// Where the node is.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Calls a method; `params` is a list or an object.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, ClientError> {
        self.call_within(method, params, self.timeout)
    }

    /// Calls a method that may take `limit`.
    pub fn call_within(
        &mut self,
        method: &str,
        params: Value,
        limit: Duration,
    ) -> Result<Value, ClientError> {
        self.next_id += 1;
        let id = self.next_id;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let body = request.to_string();
        let mut response = self.request("POST", &body, limit)?;
        if response.status == 401 && self.credentials != Credentials::None {
            // The node was started anew and has a new cookie. A refused request did nothing, so it may be sent again.
            self.authorization = None;
            response = self.request("POST", &body, limit)?;
        }
        self.result(&response, id)
    }

    /// GETs a path that needs no credentials, as `/health`.
    pub fn get(&mut self, path: &str) -> Result<Response, ClientError> {
        let mut other = self.with_path(path);
        other.credentials = Credentials::None;
        other.request("GET", "", self.timeout)
    }

    fn result(&self, response: &Response, id: u64) -> Result<Value, ClientError> {
        let url = self.url.clone();
        if matches!(response.status, 401 | 403) {
            return Err(ClientError::Refused { url });
        }
        let wrong = |reason: String| ClientError::Protocol {
            url: self.url.clone(),
            reason,
        };
        let mut reply: Value = serde_json::from_slice(&response.body)
            .map_err(|error| wrong(format!("HTTP {}, {error}", response.status)))?;
        if let Some(error) = reply.get("error").filter(|error| !error.is_null()) {
            return Err(RpcFailure::from_json(error).into());
        }
        if reply.get("id").and_then(Value::as_u64) != Some(id) {
            return Err(wrong("it answers another request".to_owned()));
        }
        match reply.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(wrong(format!(
                "HTTP {}, neither result nor error",
                response.status
            ))),
        }
    }

    fn authorization(&mut self) -> Result<Option<String>, ClientError> {
        let Credentials::File(path) = &self.credentials else {
            return Ok(None);
        };
        if self.authorization.is_none() {
            let failed = |error| ClientError::Credentials {
                path: path.clone(),
                error,
            };
            let file = std::fs::File::open(path).map_err(failed)?;
            let mut text = String::new();
            let mut bounded = file.take(CREDENTIALS_SIZE_MAX);
            bounded.read_to_string(&mut text).map_err(failed)?;
            self.authorization = Some(http::basic(text.trim_end()));
        }
        Ok(self.authorization.clone())
    }

    fn request(
        &mut self,
        verb: &str,
        body: &str,
        limit: Duration,
    ) -> Result<Response, ClientError> {
        let authorization = self.authorization()?;
        let deadline = Instant::now() + limit;
        let mut connection = self.connect()?;
        let request = http::request(verb, &self.url, authorization.as_deref(), body);
        let exchanged = exchange(&mut connection, &request, deadline);
        match exchanged {
            Ok((response, keep)) => {
                self.connection = keep.then_some(connection);
                Ok(response)
            }
            Err(http::Failure::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                let url = self.url.clone();
                Err(ClientError::Timeout { url, limit })
            }
            Err(http::Failure::Io(error)) => {
                let url = self.url.clone();
                Err(ClientError::Broken { url, error })
            }
            Err(http::Failure::Malformed(reason)) => {
                let url = self.url.clone();
                Err(ClientError::Protocol { url, reason })
            }
        }
    }

    /// The kept connection if the node has not closed it, else a new one.
    fn connect(&mut self) -> Result<TcpStream, ClientError> {
        if let Some(kept) = self.connection.take().filter(is_open) {
            return Ok(kept);
        }
        let failed = |error| ClientError::Connect {
            url: self.url.clone(),
            error,
        };
        let addresses = (self.url.host.as_str(), self.url.port).to_socket_addrs();
        let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in addresses.map_err(failed)? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT.min(self.timeout)) {
                Ok(connection) => {
                    connection.set_nodelay(true).map_err(failed)?;
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }
}

/// Whether an idle connection is still open and has nothing unread: asked before it is used again, since a request that
/// may have been read must not be repeated.
fn is_open(connection: &TcpStream) -> bool {
    let mut byte = [0];
    let quiet = connection.set_nonblocking(true).is_ok()
        && matches!(connection.peek(&mut byte), Err(e) if e.kind() == ErrorKind::WouldBlock);
    quiet && connection.set_nonblocking(false).is_ok()
}

/// Sends a request and reads its answer; also whether the connection may be kept.
fn exchange(
    connection: &mut TcpStream,
    request: &[u8],
    deadline: Instant,
) -> Result<(Response, bool), http::Failure> {
    connection.set_write_timeout(Some(remaining(deadline)?))?;
    connection.write_all(request)?;
    let mut reader = http::Reader::default();
    let mut chunk = vec![0; 64 << 10];
    loop {
        connection.set_read_timeout(Some(remaining(deadline)?))?;
        let count = match connection.read(&mut chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        if let Some(done) = reader.feed(&chunk[..count])? {
            return Ok(done);
        }
    }
}

fn remaining(deadline: Instant) -> Result<Duration, std::io::Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}
