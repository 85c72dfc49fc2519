//! The one table of configuration keys.
//!
//! Job: say of every key its section, name, form, default, unit, whether a reload takes it up, and its help text. Parsing,
//! `--print-config`, the example file and timed.toml(5) all come from here; [`super::Config`] has one field per row (a test counts).
//! Inputs: none. Outputs: [`keys`]. Never: holds a key that nothing reads.

/// Sections of the configuration file, in the order they are printed, with one line of help each.
pub const SECTIONS: [(&str, &str); 11] = [
    (
        "node",
        "Which network this node is on, and where it keeps its data.",
    ),
    ("p2p", "Connections to other nodes."),
    ("rpc", "The HTTP port: JSON-RPC, metrics and health."),
    ("storage", "The ledger database."),
    ("mempool", "Transactions that wait for a block."),
    ("masternode", "Taking part in consensus."),
    (
        "threads",
        "Which cores each thread may use, as N, A-B or A-B/STEP joined by commas; empty = any core. \"timed topology\" shows the effect.",
    ),
    (
        "sync",
        "Catching up with the chain, and what is trusted on the way.",
    ),
    ("wallet", "The wallets of this node."),
    ("log", "What is written to standard error."),
    ("limits", "Bounds of this process as a whole."),
];

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// true or false.
    Bool,
    /// A whole number within the range, both ends included.
    Integer {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file or directory. Relative to the file's own directory in a file, to the working directory elsewhere.
    Path,
    /// A wallet name: letters, digits, `-`, `_` and `.`, not beginning with a dot; may be empty.
    Name,
    /// `HEIGHT:ID` of a block; may be empty.
    Block,
    /// `HOST:PORT` that others can reach; may be empty.
    Endpoint,
    /// List of `HOST:PORT`.
    Endpoints,
    /// List of `IP:PORT` to listen on.
    Addresses,
    /// List of `NAME:SALT$HASH`, as `time-cli rpcauth` prints them.
    Users,
    /// List of `NAME:METHOD,METHOD`.
    UserMethods,
    /// Cores, in the affinity grammar.
    Cores,
    /// Log filter: a level, or `MODULE=LEVEL` parts joined by commas.
    LogFilter,
}

/// What holds when nobody set the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// A TOML value.
    Value(&'static str),
    /// Follows from other keys; the text says how.
    Derived(&'static str),
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// Section, without brackets.
    pub section: &'static str,
    /// Name within the section.
    pub name: &'static str,
    /// Form of the value.
    pub kind: Kind,
    /// Default.
    pub fallback: Fallback,
    /// Unit of a number, or empty.
    pub unit: &'static str,
    /// True if SIGHUP takes up a new value; otherwise a restart does.
    pub reloadable: bool,
    /// One or two sentences.
    pub help: &'static str,
}

impl KeySpec {
    const fn new(
        section: &'static str,
        name: &'static str,
        kind: Kind,
        fallback: Fallback,
    ) -> Self {
        KeySpec {
            section,
            name,
            kind,
            fallback,
            unit: "",
            reloadable: false,
            help: "",
        }
    }

    const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    const fn reloads(mut self) -> Self {
        self.reloadable = true;
        self
    }

    const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    /// `section.name`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets this key.
    pub fn variable(&self) -> String {
        format!(
            "TIMED_{}__{}",
            self.section.to_uppercase(),
            self.name.to_uppercase()
        )
    }

    /// The form of the value, in words.
    pub fn form(&self) -> String {
        match self.kind {
            Kind::Bool => "true or false".into(),
            Kind::Integer { min, max } if self.unit.is_empty() => {
                format!("whole number, {min} to {max}")
            }
            Kind::Integer { min, max } => format!("whole number, {min} to {max} {}", self.unit),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Path => "path".into(),
            Kind::Name => "wallet name".into(),
            Kind::Block => "\"HEIGHT:ID\"".into(),
            Kind::Endpoint => "\"HOST:PORT\"".into(),
            Kind::Endpoints => "list of \"HOST:PORT\"".into(),
            Kind::Addresses => "list of \"IP:PORT\"".into(),
            Kind::Users => "list of \"NAME:SALT$HASH\"".into(),
            Kind::UserMethods => "list of \"NAME:METHOD,METHOD\"".into(),
            Kind::Cores => "cores, as \"0\", \"2-5\" or \"0-6/2,9\"".into(),
            Kind::LogFilter => {
                "off, error, warn, info, debug, trace, or \"MODULE=LEVEL\" parts joined by commas"
                    .into()
            }
        }
    }
}

const fn number(
    section: &'static str,
    name: &'static str,
    (min, max): (u64, u64),
    default: &'static str,
    unit: &'static str,
) -> KeySpec {
    KeySpec::new(
        section,
        name,
        Kind::Integer { min, max },
        Fallback::Value(default),
    )
    .unit(unit)
}

const fn derived(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    from: &'static str,
) -> KeySpec {
    KeySpec::new(section, name, kind, Fallback::Derived(from))
}

const fn value(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
) -> KeySpec {
    KeySpec::new(section, name, kind, Fallback::Value(default))
}

const fn cores(name: &'static str, help: &'static str) -> KeySpec {
    value("threads", name, Kind::Cores, "\"\"").help(help)
}

/// Every key, grouped by section in the order of [`SECTIONS`].
pub fn keys() -> &'static [KeySpec] {
    &KEYS
}

static KEYS: [KeySpec; 53] = [
    value("node", "network", Kind::Choice(&["main", "test", "dev"]), "\"main\"")
        .help("The network. main and test need a genesis file; dev makes its own when the data directory is empty."),
    derived("node", "datadir", Kind::Path, "~/.timecoin/NETWORK")
        .help("Directory of everything this node keeps: ledger, keys, wallets. Only one timed may use it at a time."),
    derived("node", "genesis", Kind::Path, "DATADIR/genesis.toml")
        .help("The genesis file. Its hash is the identity of the chain."),
    derived("p2p", "bind", Kind::Addresses, "the network's P2P port: on all addresses; on dev on 127.0.0.1 only")
        .help("Addresses to accept peers on. An empty list accepts none."),
    value("p2p", "external", Kind::Endpoint, "\"\"")
        .help("The address under which others reach this node, told to peers; empty = not told."),
    value("p2p", "peers", Kind::Endpoints, "[]").reloads()
        .help("Nodes to stay connected to. A reload connects to the ones added."),
    value("p2p", "seeds", Kind::Endpoints, "[]")
        .help("Nodes that are asked for addresses of others while few are known. They are not stayed connected to."),
    number("p2p", "max_outbound", (0, 64), "16", "connections")
        .help("Connections to nodes that this one has heard of, at most one in each network (/24 or /48), beside p2p.peers and the other masternodes of the set."),
    value("p2p", "require_stake", Kind::Bool, "false")
        .help("Whether only masternodes are admitted: a peer that does not prove a registered operator key within 5 s is turned away, dialled ones too."),
    number("p2p", "max_inbound", (0, 4_096), "61", "connections")
        .help("Accepted connections that are not from masternodes of the set."),
    number("p2p", "handshake_timeout_ms", (100, 60_000), "5000", "ms")
        .help("A handshake that takes longer is closed."),
    derived("p2p", "ping_interval_ms", Kind::Integer { min: 100, max: 60_000 }, "5000; on dev 1000").unit("ms")
        .help("Time between pings. A peer that misses three is taken for dead."),
    derived("rpc", "bind", Kind::Addresses, "127.0.0.1 and the network's HTTP port")
        .help("Addresses of the HTTP port. It speaks plain HTTP: put a TLS proxy before it rather than open it to a network."),
    value("rpc", "users", Kind::Users, "[]").reloads()
        .help("Users beside the cookie file, one line of \"time-cli rpcauth NAME\" each."),
    value("rpc", "methods", Kind::UserMethods, "[]").reloads()
        .help("Restricts a user to the methods listed; a user who is not named here may call all."),
    number("rpc", "workers", (1, 64), "2", "threads")
        .help("Threads that answer reads, so that a heavy query never delays a vote."),
    number("rpc", "max_connections", (1, 4_096), "256", "connections")
        .help("Open HTTP connections; more are closed."),
    number("rpc", "max_batch", (1, 1_000), "1000", "calls")
        .help("Most calls in one batch."),
    derived("rpc", "rate_anonymous", Kind::Integer { min: 0, max: 1_000_000 }, "100; on dev 0").unit("requests/s").reloads()
        .help("Requests per second from one address without credentials; beyond it 429. 0 = no limit."),
    derived("rpc", "rate_user", Kind::Integer { min: 0, max: 10_000_000 }, "10000; on dev 0").unit("calls/s").reloads()
        .help("Calls per second by one user, a batch counting each of its calls; beyond it 429. 0 = no limit."),
    number("storage", "map_size_gib", (1, 16_384), "64", "GiB")
        .help("Address space reserved for the ledger. The file is sparse and grows only with its content; when it is full the node stops signing and tries again every second."),
    number("storage", "prune", (0, 1_000_000_000), "0", "blocks")
        .help("Blocks kept; older ones go, but for headers and certificates of slot blocks. At least the last max_reorg (1000) blocks and those above the snapshots that are served always stay. 0 = all."),
    number("storage", "prune_mb", (0, 100_000_000), "0", "MB")
        .help("Bytes of blocks kept; beyond it the oldest go, within the same bounds. 0 = no bound."),
    number("storage", "snapshot_interval", (0, 1_000_000), "144", "slot blocks")
        .help("A snapshot for nodes that join is made in the background every so many slot blocks; the newest two are kept and served. 0 = none."),
    number("mempool", "max_mb", (8, 1_024), "64", "MB")
        .help("Bytes of waiting transactions. Beyond it those with the lowest fee rate leave first."),
    number("mempool", "max_count", (100, 1_000_000), "50000", "transactions")
        .help("Number of waiting transactions. Beyond it those with the lowest fee rate leave first."),
    derived("masternode", "operator_key", Kind::Path, "DATADIR/keys/operator.key, if it is there")
        .help("The key that votes. Without one the node follows the chain and signs nothing. The key must run nowhere else."),
    cores("net", "Thread of all sockets."),
    cores("consensus", "Thread of the consensus machine and the mempool."),
    cores("storage", "Thread that writes the ledger."),
    cores("signer", "Thread that records what is signed before it is said."),
    cores("sync", "Thread that catches up with the chain."),
    cores("rpc", "Threads that answer reads."),
    number("threads", "pool", (0, 256), "0", "threads")
        .help("Threads that check signatures; 0 = one per core that the pool may use."),
    cores("pool_cores", "Threads that check signatures."),
    value("sync", "verify", Kind::Choice(&["full", "certified"]), "\"full\"")
        .help("full checks every signature of every block. certified leaves out those of transactions at or below the newest slot header that a quorum of a trusted set stands behind, and nothing else."),
    value("sync", "trusted", Kind::Block, "\"\"")
        .help("A block that you vouch for: no other one of its height is taken, no snapshot above it unless it is a slot block and on the way there, and if it is young enough a node that was away for longer than the trusting period signs again once it has reached it. \"timed trust\" does the same for a block whose network stood still."),
    value("sync", "snapshot", Kind::Bool, "false")
        .help("A node without a ledger fetches a snapshot of the newest slot block that its peers offer, every piece checked against certified headers, instead of all blocks; so does one that is behind the blocks its peers keep."),
    value("wallet", "enable", Kind::Bool, "true")
        .help("Whether this node holds wallets. Without, the wallet methods are not there."),
    derived("wallet", "default", Kind::Name, "\"default\" on dev, else empty")
        .help("The wallet loaded at start, made if it is not there; empty = none."),
    value("wallet", "passphrase_file", Kind::Path, "\"\"")
        .help("File (mode 0600) with the passphrase that unlocks the default wallet at start; empty = it stays locked."),
    value("log", "level", Kind::LogFilter, "\"info\"").reloads()
        .help("What is logged."),
    value("log", "format", Kind::Choice(&["auto", "plain", "journal"]), "\"auto\"")
        .help("plain begins each line with the time; journal with the priority that systemd reads; auto looks at standard error."),
    number("limits", "connections", (16, 10_000), "1024", "connections")
        .help("Peer connections of all kinds together, those of masternodes and those in their handshake included."),
    number("limits", "tx_frames", (0, 1_000_000), "100", "frames/s").reloads()
        .help("Frames of transactions that one peer may send; beyond it they wait and then its stream is not read. A proved masternode has ten times that. 0 = no limit."),
    number("limits", "tx_kb", (0, 10_000_000), "10000", "kB/s").reloads()
        .help("Bytes of transactions that one peer may send; a proved masternode ten times that. 0 = no limit."),
    number("limits", "consensus_frames", (0, 1_000_000), "1000", "frames/s").reloads()
        .help("Frames of consensus (votes, proposals) that one peer may send. 0 = no limit."),
    number("limits", "consensus_kb", (0, 10_000_000), "32000", "kB/s").reloads()
        .help("Bytes of consensus frames that one peer may send. 0 = no limit."),
    number("limits", "sync_frames", (0, 1_000_000), "64", "frames/s").reloads()
        .help("Requests for blocks, headers and snapshots that one peer may send. 0 = no limit."),
    number("limits", "other_frames", (0, 1_000_000), "400", "frames/s").reloads()
        .help("All other frames (pings, peer exchange, heartbeats) that one peer may send. 0 = no limit."),
    number("limits", "strangers", (0, 1_000_000), "100", "transactions/s").reloads()
        .help("Transactions that all peers together may hand in which dialled this node and proved no masternode key, served in turn. 0 = no limit."),
    number("limits", "handshakes", (0, 1_000_000), "60", "handshakes/min").reloads()
        .help("TLS handshakes that one address (of IPv6 one /64) may begin, a third of it at once. Configured peers, registered endpoints and this host itself are not counted. 0 = no limit."),
    number("limits", "group_handshakes", (0, 1_000_000), "240", "handshakes/min").reloads()
        .help("The same for one network (/24 or /48). 0 = no limit."),
];

#[cfg(test)]
mod tests {
    use super::{SECTIONS, keys};
    use std::collections::BTreeSet;

    #[test]
    fn every_key_is_named_once_and_explained() {
        let names: BTreeSet<String> = keys().iter().map(|key| key.full_name()).collect();
        assert_eq!(names.len(), keys().len(), "no key twice");
        for key in keys() {
            assert!(
                !key.help.is_empty() && key.help.ends_with('.'),
                "{} has a help sentence",
                key.full_name()
            );
        }
    }

    #[test]
    fn keys_stand_in_the_order_of_the_sections() {
        let mut order: Vec<&str> = keys().iter().map(|key| key.section).collect();
        order.dedup();
        let sections: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(order, sections, "each section once, in order, none empty");
    }
}
