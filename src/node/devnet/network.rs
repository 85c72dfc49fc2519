//! The directory of a devnet: made when it is not there, taken as it is when it is complete, and the ports of its nodes.

use crate::node::cli::DevnetOptions;
use crate::node::client::{Client, Credentials, Url};
use crate::node::clock::Clock;
use crate::node::commands::CommandError;
use crate::node::config::{Config, Endpoint, Flags, Inputs, p2p_port};
use crate::node::datadir::DataDir;
use crate::node::exit::Exit;
use crate::node::files::private_directory;
use crate::node::keys::random_seed;
use crate::node::provision::{Plan, make_network, node_dir};
use crate::node::testnet::PORT_STEP;
use crate::types::address::Network;
use crate::types::genesis::Genesis;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// Genesis time of a network made with `--seed`, ms: such a genesis is the same every time.
const SEEDED_GENESIS_MS: u64 = 1_767_225_600_000;
/// Ports to choose from when the usual ones are taken: below those that systems give to outgoing connections.
const CHOSEN_PORTS: std::ops::Range<u32> = 10_000..32_000;
/// How often other ports are tried.
const CHOICE_COUNT_MAX: usize = 200;

/// A network on disk, not necessarily running.
pub(super) struct Devnet {
    /// Its directory, absolute.
    pub(super) dir: PathBuf,
    /// Nobody named the directory.
    pub(super) is_temporary: bool,
    /// Its genesis.
    pub(super) genesis: Genesis,
    /// Its nodes, in order.
    pub(super) sites: Vec<Site>,
}

/// Where a node is.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// From 0.
    pub(super) index: u16,
    /// Its files.
    pub(super) datadir: DataDir,
    /// Where it listens for peers.
    pub(super) p2p: SocketAddr,
    /// Where it answers.
    pub(super) url: Url,
}

impl Site {
    /// Reads the configuration of node `index` of the network in `dir`.
    fn read(dir: &Path, index: u16) -> Result<Site, CommandError> {
        let datadir = DataDir::new(node_dir(dir, usize::from(index)));
        let flags = Flags {
            config: Some(datadir.config()),
            ..Flags::default()
        };
        // Not of the environment: what stands there for this process is not meant for each of its nodes.
        let config = Config::load(&Inputs {
            flags,
            ..Inputs::default()
        })?;
        let (Some(p2p), Some(http)) = (config.p2p.bind.first(), config.rpc.bind.first()) else {
            let text = format!(
                "{} names no p2p.bind or no rpc.bind; a devnet needs both",
                datadir.config().display()
            );
            return Err(CommandError::new(Exit::Config, text));
        };
        let url = Url {
            host: http.ip().to_string(),
            port: http.port(),
            path: "/".to_owned(),
        };
        Ok(Site {
            index,
            datadir,
            p2p: *p2p,
            url,
        })
    }

    /// A new connection to the node.
    pub(super) fn client(&self) -> Client {
        let credentials = Credentials::File(self.datadir.cookie());
        Client::new(self.url.clone(), credentials)
    }

    /// The file that gets what the node says.
    pub(super) fn log_file(&self) -> PathBuf {
        self.datadir.path().join("timed.log")
    }
}

/// Makes the network that `options` ask for, or takes the one that is there.
pub(super) fn open(options: &DevnetOptions) -> Result<Devnet, CommandError> {
    let dir = match &options.dir {
        Some(dir) => dir.clone(),
        None => temporary_directory()?,
    };
    private_directory(&dir, 0o022)?;
    let io = |error| CommandError::io("find", &dir, &error);
    let dir = dir.canonicalize().map_err(io)?;
    if !dir.join("genesis.toml").exists() {
        make(&dir, options)?;
    }
    let file = dir.join("genesis.toml");
    let text =
        std::fs::read_to_string(&file).map_err(|error| CommandError::io("read", &file, &error))?;
    let genesis = Genesis::from_toml(&text)
        .map_err(|error| CommandError::new(Exit::Config, format!("{}: {error}", file.display())))?;
    let mut sites = Vec::new();
    for index in 0..u16::try_from(genesis.masternodes.len()).unwrap_or(u16::MAX) {
        sites.push(Site::read(&dir, index)?);
    }
    Ok(Devnet {
        dir,
        is_temporary: options.dir.is_none(),
        genesis,
        sites,
    })
}

fn make(dir: &Path, options: &DevnetOptions) -> Result<(), CommandError> {
    if node_dir(dir, 0).exists() {
        let text = format!(
            "{} holds nodes but no genesis.toml: the network was never finished; delete it, or name another --dir",
            dir.display()
        );
        return Err(CommandError::new(Exit::Config, text));
    }
    let base = base_port(options)?;
    let nodes = (0..options.nodes).map(|i| Endpoint {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port: base.saturating_add(i.saturating_mul(PORT_STEP)),
    });
    make_network(&Plan {
        network: Network::Dev,
        dir: dir.to_owned(),
        nodes: nodes.collect(),
        slot_interval_s: options.slot_interval_s,
        seed: options.seed,
        now_ms: match options.seed {
            Some(_) => SEEDED_GENESIS_MS,
            None => Clock::default().now().wall.0,
        },
    })?;
    Ok(())
}

fn temporary_directory() -> Result<PathBuf, CommandError> {
    let random = random_seed()?;
    let name = crate::base::hex::encode(random.get(..4).unwrap_or_default());
    Ok(std::env::temp_dir().join(format!("timecoin-devnet-{name}")))
}

/// The P2P port of node 0: the one asked for, or the usual one, or one that the system says is free.
fn base_port(options: &DevnetOptions) -> Result<u16, CommandError> {
    let usual = p2p_port(Network::Dev);
    match options.base_port {
        Some(0) => choose(options.nodes),
        Some(base) => match taken(base, options.nodes) {
            None => Ok(base),
            Some(port) => {
                let text = format!(
                    "port {port} is not free; give another --base-port, or 0 to have ports chosen"
                );
                Err(CommandError::new(Exit::Unavailable, text))
            }
        },
        None => match taken(usual, options.nodes) {
            None => Ok(usual),
            Some(port) => {
                let base = choose(options.nodes)?;
                eprintln!("timed: port {port} is taken (another devnet?): using {base} and above");
                Ok(base)
            }
        },
    }
}

/// The first port of the ladder from `base` that cannot be had.
fn taken(base: u16, nodes: u16) -> Option<u32> {
    let all = (0..u32::from(nodes)).map(|i| u32::from(base) + i * u32::from(PORT_STEP));
    all.flat_map(|p2p| [p2p, p2p + 1]).find(|port| {
        let port = u16::try_from(*port).ok().filter(|port| *port != 0);
        port.is_none_or(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err())
    })
}

fn choose(nodes: u16) -> Result<u16, CommandError> {
    let width = u32::from(nodes) * u32::from(PORT_STEP);
    for _ in 0..CHOICE_COUNT_MAX {
        let random = random_seed()?;
        let number = u32::from(random[0]) << 8 | u32::from(random[1]);
        let range = CHOSEN_PORTS.end - CHOSEN_PORTS.start - width;
        let base = u16::try_from(CHOSEN_PORTS.start + number % range).unwrap_or_default();
        if taken(base, nodes).is_none() {
            return Ok(base);
        }
    }
    let text = "no free ports were found; name some with --base-port";
    Err(CommandError::new(Exit::Unavailable, text))
}
