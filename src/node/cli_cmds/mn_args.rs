//! Commands and options of `time-cli masternode`: each stands here once, with its help.

use argh::{ArgsInfo, FromArgs};

/// Run, register and look after masternodes. What is prepared with --out can be signed on hosts without a node.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "masternode", help_triggers("-h", "--help"))]
pub(in crate::node) struct Masternode {
    #[argh(subcommand)]
    pub(super) sub: MasternodeSub,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum MasternodeSub {
    Status(Status),
    List(List),
    Count(Count),
    Register(Register),
    Update(Update),
    Unregister(Unregister),
    Sign(Sign),
    Submit(Submit),
    Keygen(Keygen),
}

/// The masternode run here, and in plain words why it does not earn. Ends with 0 while it earns and with 1 while it does not: a line for cron.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "status", help_triggers("-h", "--help"))]
pub(super) struct Status {}

/// All masternodes: standing, power, money, and why one does not earn.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "list", help_triggers("-h", "--help"))]
pub(super) struct List {}

/// How many masternodes there are.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "count", help_triggers("-h", "--help"))]
pub(super) struct Count {}

/// Register a masternode with money of the node's wallet, or with a coin of it. The operator key is that of the data directory. The registration is in force with the next slot block.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "register", help_triggers("-h", "--help"))]
pub(super) struct Register {
    /// where peers reach the masternode, host:port
    #[argh(option, arg_name = "endpoint")]
    pub(super) endpoint: Option<String>,
    /// coin that becomes the collateral, TXID:N; its key may be elsewhere (default: money of the wallet)
    #[argh(option, arg_name = "coin")]
    pub(super) collateral: Option<String>,
    /// collateral in TIME, if the wallet pays it (default: the least)
    #[argh(option, arg_name = "time")]
    pub(super) amount: Option<String>,
    /// where the collateral returns to, if the wallet pays it (default: a new address of the wallet)
    #[argh(option, arg_name = "address")]
    pub(super) collateral_address: Option<String>,
    /// address of the owner's key, which signs changes (default: a new address of the wallet)
    #[argh(option, arg_name = "address")]
    pub(super) owner: Option<String>,
    /// where rewards are paid to (default: a new address of the wallet)
    #[argh(option, arg_name = "address")]
    pub(super) payout: Option<String>,
    /// public operator key (default: that of the key file, else that of the node)
    #[argh(option, arg_name = "key")]
    pub(super) operator: Option<String>,
    /// file of the operator key (default: that of the data directory)
    #[argh(option, arg_name = "file")]
    pub(super) operator_key: Option<String>,
    /// pay the fee from coins of this address only
    #[argh(option, arg_name = "address")]
    pub(super) fee_from: Option<String>,
    /// with prepare: file to write (default: standard output)
    #[argh(option, arg_name = "file")]
    pub(super) out: Option<String>,
    #[argh(subcommand)]
    pub(super) sub: Option<RegisterSub>,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum RegisterSub {
    Prepare(RegisterPrepare),
    Submit(RegisterSubmit),
}

/// Make the registration without signing or sending it; takes the options of register. The answer names each key that has to sign; masternode sign makes the signatures.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "prepare", help_triggers("-h", "--help"))]
pub(super) struct RegisterPrepare {}

/// Send a prepared registration. The node's wallet adds the signatures of its own keys.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "submit", help_triggers("-h", "--help"))]
pub(super) struct RegisterSubmit {
    /// prepared and signed file; - is standard input
    #[argh(positional)]
    pub(super) file: String,
}

/// Change endpoint, payout address or operator key. The owner's key signs: that of the wallet, or one elsewhere with --out.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "update", help_triggers("-h", "--help"))]
pub(super) struct Update {
    /// the masternode's id (default: the one run here)
    #[argh(positional)]
    pub(super) id: Option<String>,
    /// new endpoint, host:port
    #[argh(option, arg_name = "endpoint")]
    pub(super) endpoint: Option<String>,
    /// new payout address
    #[argh(option, arg_name = "address")]
    pub(super) payout: Option<String>,
    /// new public operator key
    #[argh(option, arg_name = "key")]
    pub(super) operator: Option<String>,
    /// file of the new operator key
    #[argh(option, arg_name = "file")]
    pub(super) operator_key: Option<String>,
    /// pay the fee from coins of this address only
    #[argh(option, arg_name = "address")]
    pub(super) fee_from: Option<String>,
    /// write the unsigned change to this file and send nothing; - is standard output
    #[argh(option, arg_name = "file")]
    pub(super) out: Option<String>,
}

/// Let a masternode go. It cannot be taken back; the collateral returns after the unbonding. The owner's key signs.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "unregister", help_triggers("-h", "--help"))]
pub(super) struct Unregister {
    /// the masternode's id (default: the one run here)
    #[argh(positional)]
    pub(super) id: Option<String>,
    /// pay the fee from coins of this address only
    #[argh(option, arg_name = "address")]
    pub(super) fee_from: Option<String>,
    /// write the unsigned wish to this file and send nothing; - is standard output
    #[argh(option, arg_name = "file")]
    pub(super) out: Option<String>,
}

/// Sign a prepared registration, change or wish with key files, without any node. What is signed is told on standard error.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "sign", help_triggers("-h", "--help"))]
pub(super) struct Sign {
    /// prepared file; - is standard input
    #[argh(positional)]
    pub(super) file: String,
    /// key file: a cold key, or an operator key (default: the operator key of the data directory); may be given again
    #[argh(option, arg_name = "file")]
    pub(super) key: Vec<String>,
    /// sign with the keys of the node's wallet instead
    #[argh(switch)]
    pub(super) wallet: bool,
    /// file to write (default: standard output)
    #[argh(option, arg_name = "file")]
    pub(super) out: Option<String>,
}

/// Send a prepared change or wish, as register submit does a registration.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "submit", help_triggers("-h", "--help"))]
pub(super) struct Submit {
    /// prepared and signed file; - is standard input
    #[argh(positional)]
    pub(super) file: String,
}

/// Make a cold key for collateral or owner, without any node, and show its address.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "keygen", help_triggers("-h", "--help"))]
pub(super) struct Keygen {
    /// key file to write, mode 0600; never overwritten
    #[argh(option, arg_name = "file")]
    pub(super) out: String,
}
