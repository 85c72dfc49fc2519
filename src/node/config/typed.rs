//! The configuration as the node uses it: one typed field per key.
//!
//! Job: turn [`Settings`] into [`Config`]. Inputs: checked settings. Outputs: [`Config`]; units end the names.
//! Never: has a field that is not in the table of keys, or leaves a key of the table out (a test counts both).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::cores::CoreSet;
use super::load::{ConfigError, Inputs, Settings};
use super::value::{Endpoint, RpcUser, Value, parse_address, parse_user_methods};
use crate::p2p::buckets::{Limit, Limits as PeerLimits};
use crate::types::address::Network;
use crate::types::ids::{BlockId, Height};

/// Default port for peers.
pub fn p2p_port(network: Network) -> u16 {
    match network {
        Network::Main => 24_100,
        Network::Test => 24_200,
        Network::Dev => 24_300,
    }
}

/// Default port for JSON-RPC, metrics and health: the one after the P2P port.
pub fn http_port(network: Network) -> u16 {
    p2p_port(network) + 1
}

/// `[node]`
#[derive(Clone, Debug)]
pub struct Node {
    /// Which network.
    pub network: Network,
    /// Directory of everything this node keeps.
    pub datadir: PathBuf,
    /// The genesis file; it may not be there.
    pub genesis: PathBuf,
}

/// `[p2p]`
#[derive(Clone, Debug)]
pub struct P2p {
    /// Addresses to accept peers on.
    pub bind: Vec<SocketAddr>,
    /// True if `bind` is the default: then an address family that this host lacks is skipped instead of an error.
    pub bind_is_default: bool,
    /// Address told to peers.
    pub external: Option<Endpoint>,
    /// Nodes to stay connected to.
    pub peers: Vec<Endpoint>,
    /// Nodes that are asked for addresses.
    pub seeds: Vec<Endpoint>,
    /// Dialled connections of the address book.
    pub max_outbound: usize,
    /// Whether only masternodes are admitted.
    pub require_stake: bool,
    /// Accepted connections, without masternodes.
    pub max_inbound: usize,
    /// Longest handshake.
    pub handshake_timeout_ms: u64,
    /// Time between pings.
    pub ping_interval_ms: u64,
}

/// `[rpc]`
#[derive(Clone, Debug)]
pub struct Rpc {
    /// Addresses of the HTTP port.
    pub bind: Vec<SocketAddr>,
    /// Users beside the cookie, each with the methods it may call (`rpc.methods`).
    pub users: Vec<RpcUser>,
    /// Threads that answer reads.
    pub workers: usize,
    /// Open HTTP connections.
    pub max_connections: usize,
    /// Most calls in one batch.
    pub max_batch: usize,
    /// Requests per second and address without credentials; 0 = no limit.
    pub rate_anonymous: u64,
    /// Calls per second and user; 0 = no limit.
    pub rate_user: u64,
}

/// `[storage]`
#[derive(Clone, Debug)]
pub struct Storage {
    /// Address space of the ledger environment, bytes.
    pub map_size: usize,
    /// Blocks kept; 0: all.
    pub prune: u64,
    /// Bytes of blocks kept; 0: no bound.
    pub prune_bytes: u64,
    /// Slot blocks between snapshots; 0: none are made.
    pub snapshot_interval: u64,
}

/// `[sync]`
#[derive(Clone, Debug)]
pub struct Sync {
    /// F3: signatures of transactions below a trusted slot header are not checked.
    pub certified: bool,
    /// F4: a snapshot is fetched instead of all blocks.
    pub snapshot: bool,
    /// F2: a block that the operator vouches for.
    pub trusted: Option<(Height, BlockId)>,
}

/// `[mempool]`
#[derive(Clone, Debug)]
pub struct Mempool {
    /// Bytes of waiting transactions.
    pub max_size: usize,
    /// Number of waiting transactions.
    pub max_count: usize,
}

/// `[masternode]`
#[derive(Clone, Debug)]
pub struct Masternode {
    /// The operator key file; None if none was named and the data directory holds none.
    pub operator_key: Option<PathBuf>,
}

/// `[threads]`
#[derive(Clone, Debug)]
pub struct Threads {
    /// Cores of the net thread.
    pub net: CoreSet,
    /// Cores of the consensus thread.
    pub consensus: CoreSet,
    /// Cores of the storage thread.
    pub storage: CoreSet,
    /// Cores of the signer thread.
    pub signer: CoreSet,
    /// Cores of the sync thread.
    pub sync: CoreSet,
    /// Cores of the rpc workers.
    pub rpc: CoreSet,
    /// Threads of the verification pool; None = one per core it may use.
    pub pool: Option<usize>,
    /// Cores of the verification pool.
    pub pool_cores: CoreSet,
}

/// `[wallet]`
#[derive(Clone, Debug)]
pub struct Wallet {
    /// Whether this node holds wallets.
    pub enable: bool,
    /// Wallet loaded (and made, if need be) at start.
    pub default: Option<String>,
    /// File with the passphrase of the default wallet.
    pub passphrase_file: Option<PathBuf>,
}

/// How log lines begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `journal` if standard error is the journal, else `plain`.
    Auto,
    /// With the time.
    Plain,
    /// With the priority.
    Journal,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// Filter.
    pub level: String,
    /// Form of the lines.
    pub format: LogFormat,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct Limits {
    /// Peer connections of all kinds.
    pub connections: usize,
    /// What each peer may send.
    pub peer: PeerLimits,
}

/// The whole configuration of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// `[node]`
    pub node: Node,
    /// `[p2p]`
    pub p2p: P2p,
    /// `[rpc]`
    pub rpc: Rpc,
    /// `[storage]`
    pub storage: Storage,
    /// `[mempool]`
    pub mempool: Mempool,
    /// `[masternode]`
    pub masternode: Masternode,
    /// `[threads]`
    pub threads: Threads,
    /// `[sync]`
    pub sync: Sync,
    /// `[wallet]`
    pub wallet: Wallet,
    /// `[log]`
    pub log: Log,
    /// `[limits]`
    pub limits: Limits,
}

impl Config {
    /// What each peer may send, as the buckets take it.
    pub fn peer_limits(&self) -> PeerLimits {
        self.limits.peer
    }

    /// Reads all layers and gives every key its meaning.
    pub fn load(inputs: &Inputs) -> Result<Self, ConfigError> {
        Config::from_settings(&Settings::load(inputs)?)
    }

    /// Gives checked settings their meaning.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        Reader::new(settings).config()
    }
}

/// Reads keys and remembers which, so that a test can see that none is left out.
struct Reader<'a> {
    settings: &'a Settings,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    fn new(settings: &'a Settings) -> Self {
        Reader {
            settings,
            read: RefCell::default(),
        }
    }

    fn config(&self) -> Result<Config, ConfigError> {
        Ok(Config {
            file: self.settings.file.clone(),
            node: self.node()?,
            p2p: self.p2p()?,
            rpc: self.rpc()?,
            storage: Storage {
                map_size: self.bytes("storage", "map_size_gib", 1 << 30)?,
                prune: self.number("storage", "prune")?,
                prune_bytes: self.number("storage", "prune_mb")? * 1_000_000,
                snapshot_interval: self.number("storage", "snapshot_interval")?,
            },
            mempool: Mempool {
                max_size: self.bytes("mempool", "max_mb", 1_000_000)?,
                max_count: self.count("mempool", "max_count")?,
            },
            masternode: Masternode {
                operator_key: self.path("masternode", "operator_key")?,
            },
            threads: self.threads()?,
            sync: self.sync()?,
            wallet: Wallet {
                enable: self.flag("wallet", "enable")?,
                default: Some(self.text("wallet", "default")?).filter(|name| !name.is_empty()),
                passphrase_file: self.path("wallet", "passphrase_file")?,
            },
            log: self.log()?,
            limits: self.limits()?,
        })
    }

    fn sync(&self) -> Result<Sync, ConfigError> {
        let trusted = self.text("sync", "trusted")?;
        let parse = |text: &str| crate::node::trust::parse_root(text);
        Ok(Sync {
            certified: self.text("sync", "verify")? == "certified",
            snapshot: self.flag("sync", "snapshot")?,
            trusted: match trusted.is_empty() {
                true => None,
                false => Some(parse(&trusted).map_err(ConfigError::Conflict)?),
            },
        })
    }

    fn node(&self) -> Result<Node, ConfigError> {
        self.text("node", "network")?;
        Ok(Node {
            network: super::derive::network(self.settings)?,
            datadir: self.some_path("node", "datadir")?,
            genesis: self.some_path("node", "genesis")?,
        })
    }

    fn p2p(&self) -> Result<P2p, ConfigError> {
        let external = self.text("p2p", "external")?;
        Ok(P2p {
            bind: self.each("p2p", "bind", parse_address)?,
            bind_is_default: matches!(
                self.settings.get("p2p", "bind"),
                Some((_, super::Source::Default))
            ),
            external: if external.is_empty() {
                None
            } else {
                Some(self.one("p2p", "external", Endpoint::parse)?)
            },
            peers: self.each("p2p", "peers", Endpoint::parse)?,
            seeds: self.each("p2p", "seeds", Endpoint::parse)?,
            max_outbound: self.count("p2p", "max_outbound")?,
            require_stake: self.flag("p2p", "require_stake")?,
            max_inbound: self.count("p2p", "max_inbound")?,
            handshake_timeout_ms: self.number("p2p", "handshake_timeout_ms")?,
            ping_interval_ms: self.number("p2p", "ping_interval_ms")?,
        })
    }

    fn rpc(&self) -> Result<Rpc, ConfigError> {
        let mut users = self.each("rpc", "users", RpcUser::parse)?;
        for (name, methods) in self.each("rpc", "methods", parse_user_methods)? {
            let known = users.iter_mut().find(|user| user.name == name);
            let user = known.ok_or_else(|| {
                ConfigError::Conflict(format!("rpc.methods names \"{name}\", who is not in rpc.users; add the user or remove the line"))
            })?;
            user.methods.get_or_insert_default().extend(methods);
        }
        Ok(Rpc {
            bind: self.each("rpc", "bind", parse_address)?,
            users,
            workers: self.count("rpc", "workers")?,
            max_connections: self.count("rpc", "max_connections")?,
            max_batch: self.count("rpc", "max_batch")?,
            rate_anonymous: self.number("rpc", "rate_anonymous")?,
            rate_user: self.number("rpc", "rate_user")?,
        })
    }

    fn threads(&self) -> Result<Threads, ConfigError> {
        let cores = |name| self.one("threads", name, CoreSet::parse);
        Ok(Threads {
            net: cores("net")?,
            consensus: cores("consensus")?,
            storage: cores("storage")?,
            signer: cores("signer")?,
            sync: cores("sync")?,
            rpc: cores("rpc")?,
            pool: Some(self.count("threads", "pool")?).filter(|count| *count > 0),
            pool_cores: cores("pool_cores")?,
        })
    }

    fn log(&self) -> Result<Log, ConfigError> {
        Ok(Log {
            level: self.text("log", "level")?,
            format: match self.text("log", "format")?.as_str() {
                "plain" => LogFormat::Plain,
                "journal" => LogFormat::Journal,
                _ => LogFormat::Auto,
            },
        })
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        Ok(Limits {
            connections: self.count("limits", "connections")?,
            peer: self.peer_limits()?,
        })
    }

    fn peer_limits(&self) -> Result<PeerLimits, ConfigError> {
        let base = PeerLimits::default();
        let number = |name| self.number("limits", name);
        let limit = |frames, bytes| Limit { frames, bytes };
        Ok(PeerLimits {
            tx: limit(number("tx_frames")?, 1_000 * number("tx_kb")?),
            consensus: limit(number("consensus_frames")?, 1_000 * number("consensus_kb")?),
            sync: limit(number("sync_frames")?, base.sync.bytes),
            other: limit(number("other_frames")?, base.other.bytes),
            strangers: number("strangers")?,
            handshakes: number("handshakes")?,
            group_handshakes: number("group_handshakes")?,
        })
    }

    /// The value of a key. Settings are checked, so a value of another type means that the table has no such key.
    fn value(&self, section: &str, name: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(format!("{section}.{name}"));
        self.settings.get(section, name).map(|(value, _)| value)
    }

    fn missing<T>(&self, section: &str, name: &str) -> Result<T, ConfigError> {
        Err(ConfigError::Conflict(format!(
            "{section}.{name} has no value; set it"
        )))
    }

    fn flag(&self, section: &str, name: &str) -> Result<bool, ConfigError> {
        match self.value(section, name) {
            Some(Value::Bool(value)) => Ok(*value),
            _ => self.missing(section, name),
        }
    }

    fn number(&self, section: &str, name: &str) -> Result<u64, ConfigError> {
        match self.value(section, name) {
            Some(Value::Integer(number)) => Ok(*number),
            _ => self.missing(section, name),
        }
    }

    fn count(&self, section: &str, name: &str) -> Result<usize, ConfigError> {
        self.bytes(section, name, 1)
    }

    fn bytes(&self, section: &str, name: &str, unit: u64) -> Result<usize, ConfigError> {
        let bytes = self
            .number(section, name)?
            .checked_mul(unit)
            .and_then(|bytes| usize::try_from(bytes).ok());
        bytes.ok_or_else(|| {
            ConfigError::Conflict(format!(
                "{section}.{name} is too large for this machine; lower it"
            ))
        })
    }

    fn text(&self, section: &str, name: &str) -> Result<String, ConfigError> {
        match self.value(section, name) {
            Some(Value::Text(text)) => Ok(text.clone()),
            _ => self.missing(section, name),
        }
    }

    fn path(&self, section: &str, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        match self.value(section, name) {
            Some(Value::Text(text)) if !text.is_empty() => Ok(Some(PathBuf::from(text))),
            _ => Ok(None),
        }
    }

    fn some_path(&self, section: &str, name: &str) -> Result<PathBuf, ConfigError> {
        match self.path(section, name)? {
            Some(path) => Ok(path),
            None => self.missing(section, name),
        }
    }

    fn one<T>(
        &self,
        section: &str,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        parse(&self.text(section, name)?).map_err(ConfigError::Conflict)
    }

    fn each<T>(
        &self,
        section: &str,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        match self.value(section, name) {
            Some(Value::List(items)) => items
                .iter()
                .map(|item| parse(item))
                .collect::<Result<_, _>>()
                .map_err(ConfigError::Conflict),
            _ => self.missing(section, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::config::{Flags, keys};

    #[test]
    fn every_key_of_the_table_is_read_and_no_other() {
        let flags = Flags {
            datadir: Some("/d".into()),
            ..Flags::default()
        };
        let settings = Settings::load(&Inputs {
            flags,
            ..Inputs::default()
        })
        .expect("defaults");
        let reader = Reader::new(&settings);
        reader.config().expect("defaults make a configuration");
        let table: BTreeSet<String> = keys().iter().map(|key| key.full_name()).collect();
        assert_eq!(
            *reader.read.borrow(),
            table,
            "one field per row of the table"
        );
    }
}
