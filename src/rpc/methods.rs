//! The methods, by category. Each file holds the rows of its category and the functions behind them.

pub mod chain;
pub mod coins;
pub mod control;
mod forks;
pub mod masternodes;
pub mod mempool;
pub mod network;
pub mod peers;
pub mod protx;
mod protx_make;
pub mod rewards;
pub mod transactions;
pub mod util;
pub mod wallet;

use crate::rpc::registry::MethodSpec;

/// The rows of all categories.
pub const GROUPS: &[&[MethodSpec]] = &[
    chain::METHODS,
    coins::METHODS,
    control::METHODS,
    forks::METHODS,
    masternodes::METHODS,
    mempool::METHODS,
    network::METHODS,
    peers::METHODS,
    protx::METHODS,
    rewards::METHODS,
    transactions::METHODS,
    util::METHODS,
    wallet::METHODS,
];
