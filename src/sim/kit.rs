//! Keys and a genesis for simulated networks: everything follows from small numbers, nothing is secret.

use crate::base::time::WallMs;
use crate::crypto::keys::SecretKey;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::genesis::{Genesis, GenesisMasternode};
use crate::types::params::{ConsensusLimits, Params};
use crate::types::transaction::{Endpoint, TxOutput};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Owner of masternode i.
    Owner = 1,
    /// Operator of masternode i.
    Operator = 2,
    /// Node i's connections.
    Node = 3,
    /// Holder of money.
    Holder = 4,
}

/// The key number `i` of a role.
pub fn key(role: Role, i: usize) -> SecretKey {
    let mut seed = [role as u8; 32];
    seed[..8].copy_from_slice(&(i as u64).to_le_bytes());
    SecretKey::from_seed(&seed)
}

/// The program of a key.
pub fn program(role: Role, i: usize) -> Program {
    Program::Key(key(role, i).public())
}

/// Where node `i` can be dialled.
pub fn endpoint(i: usize) -> String {
    format!("node-{i}:1")
}

/// The node that can be dialled at an address.
pub fn node_at(address: &str) -> Option<usize> {
    let number = address.strip_prefix("node-")?.strip_suffix(":1")?;
    number.parse().ok()
}

/// Genesis time: a multiple of every network's slot.
pub const GENESIS_TIME: WallMs = WallMs(1_700_000_400_000);

/// What each holder has at genesis, 10^-8 TIME.
pub const HOLDING: u64 = 1_000 * 100_000_000;

/// A network of masternodes with these collaterals in TIME, and `holders` with money.
pub fn genesis(network: Network, collaterals: &[u64], holders: usize) -> Genesis {
    let masternode = |(i, time): (usize, &u64)| GenesisMasternode {
        owner: key(Role::Owner, i).public(),
        operator: key(Role::Operator, i).public(),
        payout: program(Role::Owner, i),
        collateral: TxOutput {
            value: Amount::from_time(*time).unwrap_or_default(),
            program: program(Role::Owner, i),
        },
        endpoint: Endpoint::try_from(endpoint(i).into_bytes()).unwrap_or_default(),
    };
    let balance = |i| TxOutput {
        value: Amount(HOLDING),
        program: program(Role::Holder, i),
    };
    Genesis {
        version: 1,
        network: Network::Dev,
        time: GENESIS_TIME,
        params: Params::of(network),
        limits: ConsensusLimits::of(network),
        balances: (0..holders).map(balance).collect(),
        masternodes: collaterals.iter().enumerate().map(masternode).collect(),
    }
}
