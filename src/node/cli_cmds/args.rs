//! The registry of commands and options of `time-cli`: each stands here once, with its help.

use argh::{ArgsInfo, FromArgs};

/// Talk to a TimeCoin node: time-cli METHOD [ARGS] calls any method of its JSON-RPC (time-cli help lists them); the commands below are for people.
#[derive(FromArgs, ArgsInfo)]
#[argh(help_triggers("-h", "--help"))]
pub(super) struct TimeCli {
    /// address of the node, as http://127.0.0.1:24301/ (default: that of the data directory); bench takes several
    #[argh(option, arg_name = "url")]
    pub(super) rpc_url: Vec<String>,
    /// data directory of the node (default: that of the network)
    #[argh(option, arg_name = "dir")]
    pub(super) datadir: Option<String>,
    /// network: main (default), test or dev
    #[argh(option, arg_name = "network")]
    pub(super) network: Option<String>,
    /// file that holds user:password (default: the cookie of the data directory)
    #[argh(option, arg_name = "file")]
    pub(super) rpc_cookie: Option<String>,
    /// print JSON also on a terminal, and texts with quotes
    #[argh(switch)]
    pub(super) json: bool,
    /// wallet to use, if the node has loaded several
    #[argh(option, arg_name = "name")]
    pub(super) rpcwallet: Option<String>,
    /// wait until the node answers
    #[argh(switch)]
    pub(super) rpcwait: bool,
    /// give up --rpcwait after so many seconds (default: never)
    #[argh(option, arg_name = "seconds")]
    pub(super) rpcwaittimeout: Option<u64>,
    /// arguments of the method are given as name=value
    #[argh(switch)]
    pub(super) named: bool,
    /// the most important figures of the node
    #[argh(switch)]
    pub(super) getinfo: bool,
    /// print the version, and end
    #[argh(switch)]
    pub(super) version: bool,
    #[argh(subcommand)]
    pub(super) sub: Option<Sub>,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum Sub {
    Status(Status),
    Peers(Peers),
    Wait(Wait),
    Proof(Proof),
    Rpcauth(Rpcauth),
    Bench(Bench),
    Masternode(super::mn_args::Masternode),
}

/// How the node and its network are: height, finality, peers, what consensus waits for, health. Ends with 1 if the node is unhealthy.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "status", help_triggers("-h", "--help"))]
pub(super) struct Status {}

/// The connections of the node, and who is banned.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "peers", help_triggers("-h", "--help"))]
pub(super) struct Peers {}

/// Wait until a transaction is final. Ends with 124 when the time is over.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "wait", help_triggers("-h", "--help"))]
pub(super) struct Wait {
    /// transaction id
    #[argh(positional)]
    pub(super) txid: String,
    /// seconds to wait (default 60)
    #[argh(option, arg_name = "seconds", default = "60")]
    pub(super) timeout: u64,
}

/// Proofs that a payment is final, which anyone can check without a node.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "proof", help_triggers("-h", "--help"))]
pub(super) struct Proof {
    #[argh(subcommand)]
    pub(super) sub: ProofSub,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum ProofSub {
    Export(ProofExport),
    Verify(ProofVerify),
}

/// Fetch the finality proof of a transaction from the node.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "export", help_triggers("-h", "--help"))]
pub(super) struct ProofExport {
    /// transaction id
    #[argh(positional)]
    pub(super) txid: String,
    /// file to write (default: standard output)
    #[argh(option, arg_name = "file")]
    pub(super) out: Option<String>,
    /// begin at this block instead of the genesis, as HEIGHT:ID; it must not be above that of the transaction
    #[argh(option, arg_name = "block")]
    pub(super) trusted: Option<String>,
    /// also of a transaction that an open fork may still take back: the proof shows what was decided here, not that it stays
    #[argh(switch)]
    pub(super) contested: bool,
}

/// Check a finality proof without any node. Ends with 1 if it proves nothing.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "verify", help_triggers("-h", "--help"))]
pub(super) struct ProofVerify {
    /// proof file; - is standard input
    #[argh(positional)]
    pub(super) file: String,
    /// genesis file of the network (default: that of the data directory)
    #[argh(option, arg_name = "file")]
    pub(super) genesis: Option<String>,
    /// trust this block instead of the genesis, as HEIGHT:ID: one that you know to be final from elsewhere. It must stand in the proof
    #[argh(option, arg_name = "block")]
    pub(super) trusted: Option<String>,
}

/// Make the line of [rpc] users for a new user, with a new password. Both are printed, nothing is kept.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "rpcauth", help_triggers("-h", "--help"))]
pub(super) struct Rpcauth {
    /// user name
    #[argh(positional)]
    pub(super) user: String,
}

/// Measure how fast payments become final: makes coins from the node's wallet, signs every payment beforehand, sends them at a constant rate whatever the network does, and gives the money back. Latencies count from the moment a payment was due.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "bench", help_triggers("-h", "--help"))]
pub(super) struct Bench {
    /// payments per second (default 100)
    #[argh(option, arg_name = "n", default = "100")]
    pub(super) rate: u32,
    /// seconds of sending (default 10)
    #[argh(option, arg_name = "seconds", default = "10")]
    pub(super) duration: u32,
    /// instead: N payments one at a time on an idle network
    #[argh(option, arg_name = "n")]
    pub(super) latency: Option<u32>,
    /// with --latency: milliseconds between the end of a payment and the next one (default 100)
    #[argh(option, arg_name = "ms", default = "100")]
    pub(super) pause: u64,
    /// outputs of each payment, 1 to 100 (default 2)
    #[argh(option, arg_name = "n", default = "2")]
    pub(super) outputs: u32,
    /// directory of a devnet or testnet on this machine: all its nodes get payments
    #[argh(option, arg_name = "dir")]
    pub(super) dir: Option<String>,
    /// connections that send and that wait, for each node (default 8 and 32)
    #[argh(option, arg_name = "n")]
    pub(super) connections: Option<u32>,
    /// seconds after which a payment that is not final counts as failed (default 60)
    #[argh(option, arg_name = "seconds", default = "60")]
    pub(super) timeout: u64,
    /// directory on the disk whose sync time is printed beside (default: the data directory)
    #[argh(option, arg_name = "dir")]
    pub(super) disk: Option<String>,
    /// leave the small coins behind instead of giving them back to the wallet
    #[argh(switch)]
    pub(super) keep: bool,
}
