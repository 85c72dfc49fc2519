//! L3: may this coin move, and what is the ledger after this block? Pure functions of coins, state and block: no clock, no
//! local configuration, no order that is not in the data (L12). Signatures are never verified here: the checks that
//! remain are returned to the caller.
//!
//! Inputs: a [`coins::CoinView`], a [`state::State`], a block or transaction. Outputs: [`apply::Applied`], which changes
//! nothing until somebody commits it.

pub mod apply;
pub mod check;
pub(crate) mod churn;
pub mod coins;
pub mod decided;
pub mod era;
pub mod evidence;
pub mod fork;
pub mod leader;
pub mod mempool;
pub(crate) mod registration;
pub mod registry;
pub mod report;
pub mod rewards;
pub(crate) mod slot;
pub mod slots;
pub mod snapshot;
pub mod state;
pub mod undo;
pub mod utxo;
pub(crate) mod work;

#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_churn;
#[cfg(test)]
mod tests_fork;
#[cfg(test)]
mod tests_golden;
#[cfg(test)]
mod tests_masternodes;
#[cfg(test)]
mod tests_prop;
#[cfg(test)]
mod tests_signed;
#[cfg(test)]
mod tests_slot;
