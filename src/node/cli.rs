//! The command line of `timed`.
//!
//! Job: turn arguments into an [`Invocation`]. The argument structs in `cli/args.rs` are the one registry: argh parses by them, and help and
//! timed(8) are rendered from them. Inputs: the arguments. Outputs: [`Parsed`], or a [`UsageError`] (exit 64).
//! Never: executes anything.

mod args;
mod normalise;

pub use normalise::normalise;

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use super::config::Flags;
use super::exit::Exit;

/// Fewest and most seconds of `--slot-interval`.
pub const SLOT_INTERVAL_S: std::ops::RangeInclusive<u32> = 2..=3_600;
/// Fewest and most `--nodes`: max_validators of a devnet.
pub const NODES: std::ops::RangeInclusive<u16> = 1..=64;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Print this on standard output and end with 0 (help, version).
    Text(String),
    /// Do this.
    Run(Invocation),
}

/// A command and the options that hold for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Options that override the configuration.
    pub flags: Flags,
    /// What to do.
    pub command: Command,
}

/// What `timed` can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the node.
    Node,
    /// Say whether the configuration is valid.
    CheckConfig,
    /// Print the configuration in force.
    PrintConfig,
    /// Make keys and a commented configuration file in the data directory.
    Init,
    /// Make genesis, keys and configurations for a network to be started by hand.
    Testnet(TestnetOptions),
    /// Run a network of real processes on loopback.
    Devnet(DevnetOptions),
    /// Act on a devnet that runs.
    DevnetControl {
        /// Its directory; the newest of this user if None.
        dir: Option<PathBuf>,
        /// What to do with it.
        action: DevnetAction,
    },
    /// Show the state of the signer store.
    SignerStatus,
    /// Make a new signer store that signs only above a height (B7).
    SignerInit {
        /// Signs nothing at or below this height.
        above: u64,
        /// The operator has read what can go wrong.
        i_know: bool,
    },
    /// Show threads, their cores, and the queues between them.
    Topology,
    /// State which branch of a fork stays.
    Recover {
        /// Its block.
        branch: String,
        /// Whether the conditions are known.
        i_know: bool,
    },
    /// Vouch for a block (F2).
    Trust {
        /// `HEIGHT:ID`.
        block: String,
    },
    /// Check the ledger on disk.
    DbVerify,
    /// Move the ledger aside, to be fetched again.
    DbRebuild,
    /// Remove old blocks (F6).
    DbPrune {
        /// Blocks to keep.
        blocks: Option<u64>,
    },
    /// Make a snapshot of the ledger (F4).
    SnapshotCreate {
        /// Where; beside the others if None.
        dir: Option<PathBuf>,
    },
    /// Make the ledger of a snapshot.
    SnapshotLoad {
        /// The snapshot's directory.
        dir: PathBuf,
    },
}

/// `timed testnet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestnetOptions {
    /// Masternodes.
    pub nodes: u16,
    /// Directory to write.
    pub out: PathBuf,
    /// Host of each node, in order; all on 127.0.0.1 if empty.
    pub hosts: Vec<String>,
    /// P2P port of node 0.
    pub base_port: Option<u16>,
    /// Seconds per slot.
    pub slot_interval_s: Option<u32>,
}

/// `timed devnet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevnetOptions {
    /// Masternodes.
    pub nodes: u16,
    /// Directory; a fresh temporary one if None.
    pub dir: Option<PathBuf>,
    /// P2P port of node 0.
    pub base_port: Option<u16>,
    /// Makes keys and genesis repeatable.
    pub seed: Option<u64>,
    /// Seconds per slot.
    pub slot_interval_s: Option<u32>,
}

/// What to do with a running devnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevnetAction {
    /// Show its nodes.
    Status,
    /// SIGKILL node I.
    Kill(u16),
    /// Start node I again.
    Start(u16),
    /// SIGSTOP node I.
    Pause(u16),
    /// SIGCONT node I.
    Resume(u16),
    /// Pay from the faucet.
    Faucet {
        /// Address.
        address: String,
        /// Amount in TIME, as typed.
        amount: String,
    },
}

/// Why the command line could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}\nRun timed --help for the commands and options.")]
pub struct UsageError(String);

impl UsageError {
    /// The exit code of a program that stops because of this: 64.
    pub fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// One option of a command, for help and man page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionRow {
    /// With its dashes.
    pub name: String,
    /// Name of its value; None for a switch.
    pub value: Option<String>,
    /// What it does.
    pub help: String,
}

/// One command, for help and man page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRow {
    /// Words after `timed`; empty for the node itself.
    pub name: String,
    /// Names of its positional arguments.
    pub positionals: Vec<String>,
    /// What it does.
    pub help: String,
    /// Its own options.
    pub options: Vec<OptionRow>,
}

/// Every command with its options, in the order of help. The first row is `timed` itself and its options.
pub fn commands() -> Vec<CommandRow> {
    rows_of(args::Timed::get_args_info())
}

/// The rows of a program: its own, then those of its commands.
pub fn rows_of(info: argh::CommandInfoWithArgs) -> Vec<CommandRow> {
    let mut rows = Vec::new();
    collect(String::new(), info, &mut rows);
    rows
}

fn collect(name: String, info: argh::CommandInfoWithArgs, rows: &mut Vec<CommandRow>) {
    let option = |flag: &argh::FlagInfo| OptionRow {
        name: flag.long.to_owned(),
        value: match flag.kind {
            argh::FlagInfoKind::Switch => None,
            argh::FlagInfoKind::Option { arg_name } => Some(arg_name.to_uppercase()),
        },
        help: flag.description.to_owned(),
    };
    rows.push(CommandRow {
        positionals: info
            .positionals
            .iter()
            .map(|positional| positional.name.to_uppercase())
            .collect(),
        help: info.description.to_owned(),
        // argh lists its own --help with every command; once is enough.
        options: info
            .flags
            .iter()
            .filter(|flag| flag.long != "--help" || name.is_empty())
            .map(option)
            .collect(),
        name: name.clone(),
    });
    for sub in info.commands {
        collect(
            format!("{name} {}", sub.name).trim_start().to_owned(),
            sub.command,
            rows,
        );
    }
}

/// Understands the arguments that follow the program name.
pub fn parse(arguments: &[String]) -> Result<Parsed, UsageError> {
    let rows = commands();
    let arguments = normalise(arguments, &rows).map_err(UsageError)?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let timed = match args::Timed::from_args(&["timed"], &words) {
        Ok(timed) => timed,
        Err(exit) if exit.status.is_ok() => return Ok(Parsed::Text(exit.output)),
        Err(exit) => return Err(UsageError(exit.output.trim_end().to_owned())),
    };
    if timed.version {
        return Ok(Parsed::Text(version()));
    }
    let flags = Flags {
        config: timed.config.clone().map(PathBuf::from),
        network: timed.network.clone(),
        datadir: timed.datadir.clone().map(PathBuf::from),
        log: timed.log.clone(),
    };
    let command = command(timed).map_err(UsageError)?;
    Ok(Parsed::Run(Invocation { flags, command }))
}

/// `timed 0.1.0`, for `--version`.
fn version() -> String {
    format!("timed {}\n", env!("CARGO_PKG_VERSION"))
}

fn command(timed: args::Timed) -> Result<Command, String> {
    use args::Sub;
    if timed.check_config || timed.print_config {
        return match (timed.sub, timed.check_config) {
            (Some(_), _) => Err("--check-config and --print-config go without a command".into()),
            (None, true) => Ok(Command::CheckConfig),
            (None, false) => Ok(Command::PrintConfig),
        };
    }
    Ok(match timed.sub {
        None => Command::Node,
        Some(Sub::Init(args::Init {})) => Command::Init,
        Some(Sub::Testnet(given)) => Command::Testnet(testnet(given)?),
        Some(Sub::Devnet(given)) => devnet(given)?,
        Some(Sub::Signer(args::Signer { sub })) => match sub {
            args::SignerSub::Status(args::SignerStatus {}) => Command::SignerStatus,
            args::SignerSub::Init(args::SignerInit { above, i_know }) => {
                Command::SignerInit { above, i_know }
            }
        },
        Some(Sub::Topology(args::Topology {})) => Command::Topology,
        Some(Sub::Trust(args::Trust { block })) => Command::Trust { block },
        Some(Sub::Snapshot(args::Snapshot { sub })) => match sub {
            args::SnapshotSub::Create(args::SnapshotCreate { dir }) => {
                Command::SnapshotCreate { dir }
            }
            args::SnapshotSub::Load(args::SnapshotLoad { dir }) => Command::SnapshotLoad { dir },
        },
        Some(Sub::Recover(args::Recover { branch, i_know })) => Command::Recover { branch, i_know },
        Some(Sub::Db(args::Db { sub })) => match sub {
            args::DbSub::Verify(args::DbVerify {}) => Command::DbVerify,
            args::DbSub::Rebuild(args::DbRebuild {}) => Command::DbRebuild,
            args::DbSub::Prune(args::DbPrune { blocks }) => Command::DbPrune { blocks },
        },
    })
}

fn testnet(given: args::Testnet) -> Result<TestnetOptions, String> {
    let hosts: Vec<String> = given
        .hosts
        .iter()
        .flat_map(|hosts| hosts.split(','))
        .map(str::to_owned)
        .collect();
    let nodes = match given.nodes {
        Some(nodes) => nodes,
        None if hosts.is_empty() => 4,
        None => u16::try_from(hosts.len()).unwrap_or(u16::MAX),
    };
    if !hosts.is_empty() && hosts.len() != usize::from(nodes) {
        return Err(format!(
            "--hosts names {} hosts for {nodes} nodes; name one for each",
            hosts.len()
        ));
    }
    if hosts.iter().any(|host| host.trim().is_empty()) {
        return Err("--hosts has an empty element; separate hosts by single commas".into());
    }
    Ok(TestnetOptions {
        nodes: in_range("--nodes", nodes, &NODES)?,
        out: PathBuf::from(given.out),
        hosts,
        base_port: given.base_port,
        slot_interval_s: slot_interval(given.slot_interval)?,
    })
}

fn devnet(given: args::Devnet) -> Result<Command, String> {
    use args::DevnetSub;
    let dir = given.dir.map(PathBuf::from);
    let Some(sub) = given.sub else {
        return Ok(Command::Devnet(DevnetOptions {
            nodes: in_range("--nodes", given.nodes.unwrap_or(4), &NODES)?,
            dir,
            base_port: given.base_port,
            seed: given.seed,
            slot_interval_s: slot_interval(given.slot_interval)?,
        }));
    };
    if given.nodes.is_some()
        || given.base_port.is_some()
        || given.seed.is_some()
        || given.slot_interval.is_some()
    {
        return Err("--nodes, --base-port, --seed and --slot-interval belong to starting a devnet, not to acting on one".into());
    }
    let action = match sub {
        DevnetSub::Status(args::DevnetStatus {}) => DevnetAction::Status,
        DevnetSub::Kill(args::DevnetKill { node }) => DevnetAction::Kill(node),
        DevnetSub::Start(args::DevnetStart { node }) => DevnetAction::Start(node),
        DevnetSub::Pause(args::DevnetPause { node }) => DevnetAction::Pause(node),
        DevnetSub::Resume(args::DevnetResume { node }) => DevnetAction::Resume(node),
        DevnetSub::Faucet(args::DevnetFaucet { address, amount }) => {
            DevnetAction::Faucet { address, amount }
        }
    };
    Ok(Command::DevnetControl { dir, action })
}

fn slot_interval(seconds: Option<u32>) -> Result<Option<u32>, String> {
    seconds
        .map(|seconds| in_range("--slot-interval", seconds, &SLOT_INTERVAL_S))
        .transpose()
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    option: &str,
    value: T,
    range: &std::ops::RangeInclusive<T>,
) -> Result<T, String> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(format!(
            "{option} {value} is out of range; give {} to {}",
            range.start(),
            range.end()
        ))
    }
}

#[cfg(test)]
mod tests;
