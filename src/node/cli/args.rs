//! The registry of commands and options of `timed`: each stands here once, with its help.

use argh::{ArgsInfo, FromArgs};

/// A TimeCoin node. Without a command it runs in the foreground and logs to standard error.
#[derive(FromArgs, ArgsInfo)]
#[argh(help_triggers("-h", "--help"))]
pub(super) struct Timed {
    /// configuration file; without it, timed.toml of the data directory, if it is there
    #[argh(option, arg_name = "file")]
    pub(super) config: Option<String>,
    /// network: main, test or dev
    #[argh(option, arg_name = "network")]
    pub(super) network: Option<String>,
    /// data directory
    #[argh(option, arg_name = "dir")]
    pub(super) datadir: Option<String>,
    /// log filter: off, error, warn, info, debug, trace, or MODULE=LEVEL parts joined by commas
    #[argh(option, arg_name = "level")]
    pub(super) log: Option<String>,
    /// say whether the configuration is valid, and end
    #[argh(switch)]
    pub(super) check_config: bool,
    /// print the configuration in force, with the source of each value, and end
    #[argh(switch)]
    pub(super) print_config: bool,
    /// print the version, and end
    #[argh(switch)]
    pub(super) version: bool,
    #[argh(subcommand)]
    pub(super) sub: Option<Sub>,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum Sub {
    Init(Init),
    Testnet(Testnet),
    Devnet(Devnet),
    Signer(Signer),
    Topology(Topology),
    Db(Db),
    Trust(Trust),
    Snapshot(Snapshot),
    Recover(Recover),
}

/// Make a snapshot of the ledger, or the ledger of a snapshot. The node must not run; a running one makes and fetches them by itself.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "snapshot", help_triggers("-h", "--help"))]
pub(super) struct Snapshot {
    #[argh(subcommand)]
    pub(super) sub: SnapshotSub,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum SnapshotSub {
    Create(SnapshotCreate),
    Load(SnapshotLoad),
}

/// Make a snapshot of the newest slot block in a new directory.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "create", help_triggers("-h", "--help"))]
pub(super) struct SnapshotCreate {
    /// directory to make (default: DATADIR/snapshots/HEIGHT, from where the node serves it)
    #[argh(positional)]
    pub(super) dir: Option<std::path::PathBuf>,
}

/// Make the ledger of a snapshot, after checking all of it against certified headers from the genesis on. A ledger that is there is removed.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "load", help_triggers("-h", "--help"))]
pub(super) struct SnapshotLoad {
    /// directory of the snapshot
    #[argh(positional)]
    pub(super) dir: std::path::PathBuf,
}

/// Vouch for a block that you have compared with other operators: a node that was away for too long trusts the chain again from there. The node must not run.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "trust", help_triggers("-h", "--help"))]
pub(super) struct Trust {
    /// height and id of the block, as HEIGHT:ID
    #[argh(positional)]
    pub(super) block: String,
}

/// State which branch of a fork stays, by the running node of the data directory, after operators have agreed (see getforkinfo).
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "recover", help_triggers("-h", "--help"))]
pub(super) struct Recover {
    /// block of the branch that stays, as getforkinfo shows it
    #[argh(option, arg_name = "id")]
    pub(super) branch: String,
    /// the conditions are known and hold; without this they are shown and nothing is done
    #[argh(switch)]
    pub(super) i_know: bool,
}

/// Make keys and a commented configuration file in the data directory. Takes --network and --datadir.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "init", help_triggers("-h", "--help"))]
pub(super) struct Init {}

/// Make genesis, keys and configurations for N masternodes, to be started by hand here or copied to their hosts. --network is dev (default) or test.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "testnet", help_triggers("-h", "--help"))]
pub(super) struct Testnet {
    /// number of masternodes, 1 to 64 (default 4, or the number of hosts)
    #[argh(option, arg_name = "n")]
    pub(super) nodes: Option<u16>,
    /// directory to write; it must not exist or be empty
    #[argh(option, arg_name = "dir")]
    pub(super) out: String,
    /// hosts of the nodes, separated by commas (default: all on 127.0.0.1)
    #[argh(option, arg_name = "hosts")]
    pub(super) hosts: Option<String>,
    /// P2P port of node 0; node I on the same host has 10 I more, its HTTP port is one above
    #[argh(option, arg_name = "port")]
    pub(super) base_port: Option<u16>,
    /// seconds per slot, 2 to 3600
    #[argh(option, arg_name = "seconds")]
    pub(super) slot_interval: Option<u32>,
}

/// Run a network of real timed processes on loopback, with a funded faucet wallet, until Ctrl-C. With a command: act on one that runs.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "devnet", help_triggers("-h", "--help"))]
pub(super) struct Devnet {
    /// number of masternodes, 1 to 64 (default 4)
    #[argh(option, arg_name = "n")]
    pub(super) nodes: Option<u16>,
    /// directory of the network (default: a fresh temporary one; to act on a network: the newest of this user)
    #[argh(option, arg_name = "dir")]
    pub(super) dir: Option<String>,
    /// P2P port of node 0 (default 24300, or any that are free; 0: any that are free); node I has 10 I more, its HTTP port is one above
    #[argh(option, arg_name = "port")]
    pub(super) base_port: Option<u16>,
    /// make the same keys and genesis every time (default: random)
    #[argh(option, arg_name = "number")]
    pub(super) seed: Option<u64>,
    /// seconds per slot, 2 to 3600 (default 5)
    #[argh(option, arg_name = "seconds")]
    pub(super) slot_interval: Option<u32>,
    #[argh(subcommand)]
    pub(super) sub: Option<DevnetSub>,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum DevnetSub {
    Status(DevnetStatus),
    Kill(DevnetKill),
    Start(DevnetStart),
    Pause(DevnetPause),
    Resume(DevnetResume),
    Faucet(DevnetFaucet),
}

/// Show the nodes of a running devnet.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "status", help_triggers("-h", "--help"))]
pub(super) struct DevnetStatus {}

/// End a node at once (SIGKILL). It is not started again by itself.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "kill", help_triggers("-h", "--help"))]
pub(super) struct DevnetKill {
    /// which node, from 0
    #[argh(positional, arg_name = "node")]
    pub(super) node: u16,
}

/// Start a node that was ended.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "start", help_triggers("-h", "--help"))]
pub(super) struct DevnetStart {
    /// which node, from 0
    #[argh(positional, arg_name = "node")]
    pub(super) node: u16,
}

/// Halt a node without ending it (SIGSTOP).
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "pause", help_triggers("-h", "--help"))]
pub(super) struct DevnetPause {
    /// which node, from 0
    #[argh(positional, arg_name = "node")]
    pub(super) node: u16,
}

/// Let a halted node go on (SIGCONT).
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "resume", help_triggers("-h", "--help"))]
pub(super) struct DevnetResume {
    /// which node, from 0
    #[argh(positional, arg_name = "node")]
    pub(super) node: u16,
}

/// Pay from the faucet.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "faucet", help_triggers("-h", "--help"))]
pub(super) struct DevnetFaucet {
    /// who is paid
    #[argh(positional, arg_name = "address")]
    pub(super) address: String,
    /// how much, in TIME
    #[argh(positional, arg_name = "amount")]
    pub(super) amount: String,
}

/// Care of the store that keeps this masternode from signing twice.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "signer", help_triggers("-h", "--help"))]
pub(super) struct Signer {
    #[argh(subcommand)]
    pub(super) sub: SignerSub,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum SignerSub {
    Status(SignerStatus),
    Init(SignerInit),
}

/// Show what the signer store holds, and whether this masternode may sign.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "status", help_triggers("-h", "--help"))]
pub(super) struct SignerStatus {}

/// Make a new signer store that signs only above a height. Only if no copy of the old one runs anywhere and all other masternodes can be reached: wrong use is punished.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "init", help_triggers("-h", "--help"))]
pub(super) struct SignerInit {
    /// sign nothing at or below this height
    #[argh(option, arg_name = "height")]
    pub(super) above: u64,
    /// confirm that the conditions hold
    #[argh(switch)]
    pub(super) i_know: bool,
}

/// Show threads, the cores each may use, and the queues between them; of the running node if there is one.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "topology", help_triggers("-h", "--help"))]
pub(super) struct Topology {}

/// Care of the ledger database.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "db", help_triggers("-h", "--help"))]
pub(super) struct Db {
    #[argh(subcommand)]
    pub(super) sub: DbSub,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum DbSub {
    Verify(DbVerify),
    Rebuild(DbRebuild),
    Prune(DbPrune),
}

/// Remove old blocks, but for headers and certificates of slot blocks. The node must not run; a running one does it in pieces.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "prune", help_triggers("-h", "--help"))]
pub(super) struct DbPrune {
    /// blocks to keep (default: as storage.prune and storage.prune_mb say; never fewer than 1000)
    #[argh(option, arg_name = "number")]
    pub(super) blocks: Option<u64>,
}

/// Move a damaged ledger aside, so that the next start fetches it from peers and verifies it. The node must not run.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "rebuild", help_triggers("-h", "--help"))]
pub(super) struct DbRebuild {}

/// Check the ledger on disk: every block, certificate and the state against its root. The node must not run.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "verify", help_triggers("-h", "--help"))]
pub(super) struct DbVerify {}
