//! Keys, genesis and configuration files of new networks and nodes: `timed init`, `timed testnet`, the networks that
//! `timed devnet` runs, and the one-masternode network that `timed --network dev` makes for itself.
//!
//! A network's directory holds genesis.toml, faucet.json and node0 ... node(N-1), each a complete data directory. The
//! signer store of an operator key is made before the key (B7 step 0): a key without its store would have to abstain.

use crate::crypto::keys::SecretKey;
use crate::node::config::{self, Config, Endpoint};
use crate::node::datadir::{DataDir, DataDirError};
use crate::node::exit::Exit;
use crate::node::files::{self, FileError};
use crate::node::keys::{self, KeyError, KeyKind, Seed};
use crate::storage::{KvStore, StorageError};
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::genesis::{Genesis, GenesisMasternode};
use crate::types::ids::ChainId;
use crate::types::params::{ConsensusLimits, Params};
use crate::types::transaction::TxOutput;
use crate::wallet::{self, Wallet, WalletError};
use std::path::{Path, PathBuf};

/// Coins of the faucet in a new genesis: many, so that many payments can be made at once.
const FAUCET_COIN_COUNT: usize = 100;
/// Value of each, TIME.
const FAUCET_COIN_TIME: u64 = 100_000;
/// Collateral of each masternode of a new network, TIME.
const COLLATERAL_TIME: u64 = 1_000;

/// Why files of a network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The signer store.
    #[error(transparent)]
    Signer(#[from] StorageError),
    /// A wallet.
    #[error("wallet: {0}")]
    Wallet(#[from] WalletError),
    /// What was asked for cannot be.
    #[error("{0}")]
    Request(String),
}

impl ProvisionError {
    /// The exit code of a program that stops because of this.
    pub fn exit(&self) -> Exit {
        match self {
            ProvisionError::DataDir(error) => error.exit(),
            ProvisionError::Key(error) => error.exit(),
            ProvisionError::File(_) | ProvisionError::Signer(_) | ProvisionError::Wallet(_) => {
                Exit::Io
            }
            ProvisionError::Request(_) => Exit::Usage,
        }
    }
}

/// A network to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which kind.
    pub network: Network,
    /// Where.
    pub dir: PathBuf,
    /// P2P address of each node; its HTTP port is the next one.
    pub nodes: Vec<Endpoint>,
    /// Length of a slot, seconds; the network's own if `None`.
    pub slot_interval_s: Option<u32>,
    /// Makes keys repeatable.
    pub seed: Option<u64>,
    /// Wall clock, ms.
    pub now_ms: u64,
}

fn seed_of(plan: &Plan, name: &str) -> Result<Seed, KeyError> {
    match plan.seed {
        None => keys::random_seed(),
        Some(seed) => {
            let mut hasher = blake3::Hasher::new_derive_key("TimeCoin devnet keys of a seed");
            hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
            Ok(Seed::new(*hasher.finalize().as_bytes()))
        }
    }
}

/// Parameters of a network whose slots are `slot_s` seconds long.
fn params_of(network: Network, slot_s: Option<u32>) -> Params {
    let mut params = Params::of(network);
    if let Some(seconds) = slot_s {
        params.slot_ms = u64::from(seconds) * 1_000;
        params.heartbeat_interval_ms = params.slot_ms / 10;
        params.attest_lead_ms = params.attest_lead_ms.min(params.heartbeat_interval_ms);
        if params.slot_ms <= 4 * params.timeout_propose_ms {
            // Short slots are for tests on one host: what must fit into a slot shrinks with it (checks of B1).
            params.timeout_propose_ms = (params.slot_ms / 5).max(1);
            params.precision_ms = params
                .precision_ms
                .min(params.timeout_propose_ms.saturating_sub(100) / 2)
                .max(1);
        }
    }
    params
}

/// Makes the keys of a node; the operator's public key.
fn make_keys(
    plan: &Plan,
    datadir: &DataDir,
    i: usize,
) -> Result<(SecretKey, SecretKey), ProvisionError> {
    datadir.create()?;
    let node = seed_of(plan, &format!("node {i}"))?;
    let operator = seed_of(plan, &format!("operator {i}"))?;
    let owner = seed_of(plan, &format!("owner {i}"))?;
    KvStore::create(&datadir.signer(), keys::operator_name(&operator))?;
    keys::save_new(&datadir.node_key(), KeyKind::Node, &node)?;
    keys::save_new(&datadir.operator_key(), KeyKind::Operator, &operator)?;
    Ok((
        SecretKey::from_seed(&owner),
        SecretKey::from_seed(&operator),
    ))
}

/// A wallet in `datadir`; its first address' program. The chain it belongs to is learnt when a node opens it.
fn make_wallet(plan: &Plan, datadir: &DataDir, i: usize) -> Result<Program, ProvisionError> {
    let dir = wallet::directory(&datadir.wallets(), "default")?;
    let seed = wallet::Seed::from_entropy(&*seed_of(plan, &format!("wallet {i}"))?)?;
    let mut wallet = Wallet::create(&dir, &seed, "", plan.network, ChainId::default())?;
    let address = wallet.new_address("first")?;
    wallet.flush()?;
    Program::from_address(&address, plan.network)
        .map_err(|e| ProvisionError::Request(e.to_string()))
}

/// Makes a whole network. Fails if there is one in the directory.
pub fn make_network(plan: &Plan) -> Result<Genesis, ProvisionError> {
    if plan.dir.join("genesis.toml").exists() {
        let text = format!(
            "{} holds a network already; name an empty directory",
            plan.dir.display()
        );
        return Err(ProvisionError::Request(text));
    }
    let params = params_of(plan.network, plan.slot_interval_s);
    let collateral = Amount::from_time(COLLATERAL_TIME).unwrap_or_default();
    let mut masternodes = Vec::new();
    let mut owners = Vec::new();
    let mut faucet = None;
    for (i, endpoint) in plan.nodes.iter().enumerate() {
        let datadir = DataDir::new(node_dir(&plan.dir, i));
        let (owner, operator) = make_keys(plan, &datadir, i)?;
        let program = make_wallet(plan, &datadir, i)?;
        faucet.get_or_insert(program);
        let endpoint = endpoint.to_string().into_bytes();
        let endpoint = endpoint
            .try_into()
            .map_err(|_| ProvisionError::Request("a host name is too long".into()))?;
        owners.push(crate::base::hex::encode(&owner.seed()));
        masternodes.push(GenesisMasternode {
            owner: owner.public(),
            operator: operator.public(),
            payout: program,
            collateral: TxOutput {
                value: collateral,
                program,
            },
            endpoint,
        });
    }
    let program = faucet.ok_or_else(|| ProvisionError::Request("a network needs a node".into()))?;
    let value = Amount::from_time(FAUCET_COIN_TIME).unwrap_or_default();
    let genesis = Genesis {
        version: 1,
        network: plan.network,
        time: crate::base::time::WallMs(plan.now_ms - plan.now_ms % params.slot_ms),
        limits: ConsensusLimits::of(plan.network),
        params,
        balances: vec![TxOutput { value, program }; FAUCET_COIN_COUNT],
        masternodes,
    };
    genesis
        .check()
        .map_err(|e| ProvisionError::Request(e.to_string()))?;
    let text = genesis.to_toml();
    for i in 0..plan.nodes.len() {
        let datadir = DataDir::new(node_dir(&plan.dir, i));
        files::write_private(&datadir.genesis(), text.as_bytes())?;
        files::write_private(&datadir.config(), node_config(plan, i).as_bytes())?;
    }
    let faucet = serde_json::json!({
        "address": program.address(plan.network),
        "wallet": node_dir(&plan.dir, 0).join("wallets/default"),
        "owner_seeds": owners,
    });
    files::write_private(
        &plan.dir.join("faucet.json"),
        format!("{faucet:#}\n").as_bytes(),
    )?;
    // Last: a directory with this file is complete.
    files::write_private(&plan.dir.join("genesis.toml"), text.as_bytes())?;
    Ok(genesis)
}

/// Data directory of node `i` of a network.
pub fn node_dir(dir: &Path, i: usize) -> PathBuf {
    dir.join(format!("node{i}"))
}

fn node_config(plan: &Plan, i: usize) -> String {
    let own = &plan.nodes[i];
    let others = plan.nodes.iter().enumerate().filter(|(j, _)| *j != i);
    let peers: Vec<String> = others.map(|(_, e)| format!("\"{e}\"")).collect();
    let local = own.host == "127.0.0.1" || own.host == "::1" || own.host == "localhost";
    let bind = if local {
        own.to_string()
    } else {
        format!("0.0.0.0:{}", own.port)
    };
    let text = |value: &str| format!("\"{value}\"");
    let mut set = vec![
        ("node", "network", text(plan.network.name())),
        ("node", "datadir", text(".")),
        ("p2p", "bind", format!("[{}]", text(&bind))),
        ("p2p", "peers", format!("[{}]", peers.join(", "))),
        (
            "rpc",
            "bind",
            format!("[{}]", text(&format!("127.0.0.1:{}", own.port + 1))),
        ),
        ("rpc", "rate_anonymous", "0".into()),
        ("rpc", "rate_user", "0".into()),
    ];
    if !local {
        set.push(("p2p", "external", text(&own.to_string())));
    }
    config::example(
        &format!(
            "Node {i} of a {} network of {} masternodes.",
            plan.network,
            plan.nodes.len()
        ),
        &set,
    )
}

/// `timed --network dev` in an empty data directory: a network of one masternode, this node.
pub fn ensure_dev_genesis(config: &Config) -> Result<(), ProvisionError> {
    let datadir = DataDir::new(&config.node.datadir);
    let fresh = !config.node.genesis.exists() && !datadir.ledger().exists();
    if config.node.network != Network::Dev || !fresh || datadir.operator_key().exists() {
        return Ok(());
    }
    let port = config
        .p2p
        .bind
        .first()
        .map_or(config::p2p_port(Network::Dev), |address| address.port());
    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        port,
    };
    let plan = Plan {
        network: Network::Dev,
        dir: config.node.datadir.clone(),
        nodes: vec![endpoint.clone()],
        slot_interval_s: None,
        seed: None,
        now_ms: crate::node::clock::Clock::default().now().wall.0,
    };
    let (owner, operator) = make_keys(&plan, &datadir, 0)?;
    let program = make_wallet(&plan, &datadir, 0)?;
    let params = Params::of(Network::Dev);
    let value = |time| Amount::from_time(time).unwrap_or_default();
    let genesis = Genesis {
        version: 1,
        network: Network::Dev,
        time: crate::base::time::WallMs(plan.now_ms - plan.now_ms % params.slot_ms),
        limits: ConsensusLimits::of(Network::Dev),
        params,
        balances: vec![
            TxOutput {
                value: value(FAUCET_COIN_TIME),
                program
            };
            FAUCET_COIN_COUNT
        ],
        masternodes: vec![GenesisMasternode {
            owner: owner.public(),
            operator: operator.public(),
            payout: program,
            collateral: TxOutput {
                value: value(COLLATERAL_TIME),
                program,
            },
            endpoint: endpoint
                .to_string()
                .into_bytes()
                .try_into()
                .unwrap_or_default(),
        }],
    };
    files::write_private(&config.node.genesis, genesis.to_toml().as_bytes())?;
    Ok(())
}
