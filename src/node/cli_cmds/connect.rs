//! Which nodes `time-cli` talks to, and with which credentials.
//!
//! Job: URLs and cookie files from options, or from the configuration of a data directory. Inputs: the options. Outputs: clients.
//! Never: guesses a password.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::client::{Client, ClientError, Credentials, Url};
use super::super::config::{Config, Flags, Inputs};
use super::super::datadir::DataDir;
use super::super::exit::Exit;
use super::args::TimeCli;
use super::output::CliError;

/// Time between two tries of `-rpcwait`.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The configuration of the node that the options mean.
pub(super) fn config(given: &TimeCli) -> Result<Config, CliError> {
    let datadir = given.datadir.as_ref().map(PathBuf::from);
    load(datadir, given.network.clone())
}

fn load(datadir: Option<PathBuf>, network: Option<String>) -> Result<Config, CliError> {
    let flags = Flags {
        config: None,
        network,
        datadir,
        log: None,
    };
    Ok(Config::load(&Inputs::of_process(flags))?)
}

/// The URL under which this host reaches a bound address.
pub(super) fn url_of(bind: SocketAddr) -> Url {
    let host = match bind {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => "::1".to_owned(),
        other => other.ip().to_string(),
    };
    Url {
        host,
        port: bind.port(),
        path: "/".to_owned(),
    }
}

fn of_config(config: &Config, cookie: Option<&Path>) -> Result<Client, CliError> {
    let bind = config.rpc.bind.first().copied().ok_or_else(|| {
        CliError::new(
            Exit::Config,
            "the node has no [rpc] bind address: give --rpc-url",
        )
    })?;
    let cookie = cookie.map_or_else(
        || DataDir::new(&config.node.datadir).cookie(),
        Path::to_owned,
    );
    Ok(Client::new(url_of(bind), Credentials::File(cookie)))
}

/// The node of a configuration, with the cookie of its data directory.
pub fn client_of(config: &Config) -> Result<Client, CliError> {
    of_config(config, None)
}

/// Every node that was named: by URL, or else that of the data directory.
pub(super) fn clients(given: &TimeCli) -> Result<Vec<Client>, CliError> {
    let cookie = given.rpc_cookie.as_ref().map(PathBuf::from);
    if given.rpc_url.is_empty() {
        return Ok(vec![of_config(&config(given)?, cookie.as_deref())?]);
    }
    // Whoever runs a node here knows its data directory; a node elsewhere is never shown the cookie of this one unasked.
    let found = config(given).map(|config| DataDir::new(config.node.datadir).cookie());
    let found = found
        .ok()
        .filter(|file| given.datadir.is_some() || file.exists());
    let client = |text: &String| {
        let url: Url = text.parse().map_err(|e| CliError::new(Exit::Usage, e))?;
        let local = given.datadir.is_some() || is_local(&url);
        let file = cookie.clone().or(found.clone().filter(|_| local));
        Ok(Client::new(
            url,
            file.map_or(Credentials::None, Credentials::File),
        ))
    };
    given.rpc_url.iter().map(client).collect()
}

fn is_local(url: &Url) -> bool {
    let address: Option<std::net::IpAddr> = url.host.parse().ok();
    url.host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

/// The nodes of a devnet or testnet directory that have a data directory here, in order.
pub(super) fn clients_of_network(dir: &Path) -> Result<Vec<Client>, CliError> {
    let mut clients = Vec::new();
    for number in 0.. {
        let datadir = dir.join(format!("node{number}"));
        if !datadir.join("timed.toml").exists() {
            break;
        }
        clients.push(of_config(&load(Some(datadir), None)?, None)?);
    }
    if clients.is_empty() {
        let text = format!(
            "{} holds no node0/timed.toml: name the directory of a devnet or testnet",
            dir.display()
        );
        return Err(CliError::new(Exit::Usage, text));
    }
    Ok(clients)
}

/// The one node that was named, waiting for it if asked to.
pub(super) fn client(given: &TimeCli) -> Result<Client, CliError> {
    let mut clients = clients(given)?;
    if clients.len() > 1 {
        return Err(CliError::new(
            Exit::Usage,
            "only bench takes several --rpc-url",
        ));
    }
    let mut client = clients
        .pop()
        .ok_or_else(|| CliError::new(Exit::Usage, "no node was named"))?;
    if given.rpcwait {
        await_node(&mut client, given.rpcwaittimeout.map(Duration::from_secs))?;
    }
    if let Some(wallet) = &given.rpcwallet {
        client = client.with_path(&format!("/wallet/{}", escape(wallet)));
    }
    Ok(client)
}

/// A wallet's name within a path.
fn escape(name: &str) -> String {
    let letter = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    name.bytes().map(letter).collect()
}

/// Waits until the node answers a call.
pub(super) fn await_node(client: &mut Client, limit: Option<Duration>) -> Result<(), ClientError> {
    let start = Instant::now();
    loop {
        match client.call("uptime", json!([])) {
            Err(error) if error.is_not_ready() && limit.is_none_or(|l| start.elapsed() < l) => {
                pause(RETRY_INTERVAL);
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

/// Lets time pass. Nothing unparks the threads of `time-cli`, so an early return only means another look.
pub(super) fn pause(time: Duration) {
    std::thread::park_timeout(time);
}
