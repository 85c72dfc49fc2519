//! The genesis of a network (L14): parameters, limits, balances and first masternodes. A TOML file for people; its
//! canonical encoding, never the file's bytes, is hashed into the chain id.

use crate::base::limits::{GENESIS_BALANCE_COUNT_MAX, GENESIS_BYTES_MAX, REGISTERED_COUNT_MAX};
use crate::base::time::WallMs;
use crate::crypto::hash::{Domain, hash};
use crate::crypto::keys::PublicKey;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::params::{ConsensusLimits, Params, ParamsError};
use crate::types::transaction::{Endpoint, TxOutput};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// A masternode that is there from the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenesisMasternode {
    /// Cold key.
    pub owner: PublicKey,
    /// Hot key.
    pub operator: PublicKey,
    /// Where rewards go.
    pub payout: Program,
    /// Locked money, and where it goes when the masternode has left.
    pub collateral: TxOutput,
    /// Where the node is reached.
    pub endpoint: Endpoint,
}

impl GenesisMasternode {
    /// Its masternode id (L14).
    pub fn id(&self) -> MasternodeId {
        MasternodeId(hash(Domain::GenesisMasternode, &[&self.owner.0]))
    }
}

/// A parsed genesis. Balances and masternodes keep the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// Format: 1.
    pub version: u16,
    /// Network: fixes the address prefix.
    pub network: Network,
    /// Time of height 0, a multiple of slot_ms.
    pub time: WallMs,
    /// Consensus parameters.
    pub params: Params,
    /// Consensus limits.
    pub limits: ConsensusLimits,
    /// First coins: coin i is output i of the transaction id H(genesis-balance, chain id).
    pub balances: Vec<TxOutput>,
    /// First masternodes.
    pub masternodes: Vec<GenesisMasternode>,
}

/// Why a genesis is refused.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// Not TOML, or keys and types are not those of a genesis.
    #[error("genesis file: {0}")]
    Syntax(String),
    /// A parameter or limit out of its range.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Another rule of L14.
    #[error("genesis refused: {0}")]
    Rule(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Doc {
    version: u16,
    network: String,
    time_ms: u64,
    #[serde(default)]
    params: BTreeMap<String, u64>,
    #[serde(default)]
    limits: BTreeMap<String, u64>,
    #[serde(default)]
    balance: Vec<DocOutput>,
    #[serde(default)]
    masternode: Vec<DocMasternode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocOutput {
    address: String,
    amount: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocMasternode {
    owner: String,
    operator: String,
    payout: String,
    endpoint: String,
    collateral: String,
    collateral_address: String,
}

fn rule(text: impl Into<String>) -> GenesisError {
    GenesisError::Rule(text.into())
}

impl Genesis {
    /// The chain id: hash of the canonical encoding.
    pub fn chain_id(&self) -> ChainId {
        ChainId(codec::hash_of(Domain::Genesis, self))
    }

    /// The block id of height 0, equal to the chain id.
    pub fn block_id(&self) -> BlockId {
        BlockId(self.chain_id().0)
    }

    /// First coins with their outpoints.
    pub fn coins(&self) -> Vec<(OutPoint, TxOutput)> {
        let txid = Txid(hash(Domain::GenesisBalance, &[&self.chain_id().0.0]));
        let numbered = self.balances.iter().zip(0u32..);
        numbered
            .map(|(output, vout)| (OutPoint { txid, vout }, *output))
            .collect()
    }

    /// Reads and checks a genesis file.
    pub fn from_toml(text: &str) -> Result<Genesis, GenesisError> {
        if text.len() > GENESIS_BYTES_MAX {
            return Err(rule(format!(
                "the file is larger than {GENESIS_BYTES_MAX} bytes"
            )));
        }
        let doc: Doc = toml::from_str(text).map_err(|e| GenesisError::Syntax(e.to_string()))?;
        let network: Network = doc.network.parse().map_err(GenesisError::Syntax)?;
        let mut params = Params::of(network);
        for (name, value) in &doc.params {
            if !params.set(name, *value) {
                return Err(GenesisError::Syntax(format!(
                    "unknown parameter '{name}' in [params]"
                )));
            }
        }
        let mut limits = ConsensusLimits::of(network);
        for (name, value) in &doc.limits {
            if !limits.set(name, *value) {
                return Err(GenesisError::Syntax(format!(
                    "unknown limit '{name}' in [limits]"
                )));
            }
        }
        let balances = doc
            .balance
            .iter()
            .map(|b| output(&b.address, &b.amount, network))
            .collect::<Result<_, _>>()?;
        let masternodes = doc
            .masternode
            .iter()
            .map(|m| masternode(m, network))
            .collect::<Result<_, _>>()?;
        let version = doc.version;
        let genesis = Genesis {
            version,
            network,
            time: WallMs(doc.time_ms),
            params,
            limits,
            balances,
            masternodes,
        };
        genesis.check()?;
        Ok(genesis)
    }

    /// The rules of L14 and the checks of B1.
    pub fn check(&self) -> Result<(), GenesisError> {
        if self.version != 1 {
            return Err(rule(format!(
                "version {} is not known to this software",
                self.version
            )));
        }
        self.params.check()?;
        self.limits.check()?;
        if !self.time.0.is_multiple_of(self.params.slot_ms) {
            return Err(rule("time_ms must be a multiple of slot_ms"));
        }
        let most = REGISTERED_COUNT_MAX.min(self.params.max_registered as usize);
        if self.masternodes.is_empty() || self.masternodes.len() > most {
            return Err(rule(format!("it needs between 1 and {most} masternodes")));
        }
        if self.masternodes.len() as u64 > self.params.max_validators {
            return Err(rule("more masternodes than max_validators"));
        }
        if self.balances.len() > GENESIS_BALANCE_COUNT_MAX {
            return Err(rule(format!(
                "more than {GENESIS_BALANCE_COUNT_MAX} balances"
            )));
        }
        let mut keys = BTreeSet::new();
        for m in &self.masternodes {
            for key in [m.owner, m.operator] {
                if !key.is_canonical_prime_order() {
                    return Err(rule(format!(
                        "key {key} is not a canonical key of prime order"
                    )));
                }
                if !keys.insert(key) {
                    return Err(rule(format!("key {key} is used twice")));
                }
            }
            let whole = m.collateral.value.whole_time();
            if whole < self.params.min_collateral_time || whole > crate::base::limits::POWER_MAX {
                return Err(rule(format!(
                    "collateral {} is out of range",
                    m.collateral.value
                )));
            }
        }
        if self.balances.iter().any(|b| b.value.0 < self.params.dust) {
            return Err(rule("a balance is below dust"));
        }
        let collateral = self.masternodes.iter().map(|m| m.collateral.value);
        match Amount::sum(self.balances.iter().map(|b| b.value).chain(collateral)) {
            // Half the range is left for what rewards will issue.
            Some(total) if total.0 <= u64::MAX / 2 => Ok(()),
            _ => Err(rule(
                "balances and collateral exceed half of the range of amounts",
            )),
        }
    }

    /// The file that [`Genesis::from_toml`] reads back to the same genesis.
    pub fn to_toml(&self) -> String {
        let mut out = format!(
            "# TimeCoin genesis. Chain id {}\nversion = {}\nnetwork = \"{}\"\ntime_ms = {}\n",
            self.chain_id(),
            self.version,
            self.network,
            self.time.0
        );
        for (title, entries) in [
            ("params", self.params.entries()),
            ("limits", self.limits.entries()),
        ] {
            out.push_str(&format!("\n[{title}]\n"));
            for (name, help, value) in entries {
                out.push_str(&format!("{name} = {value} # {help}\n"));
            }
        }
        for m in &self.masternodes {
            out.push_str(&format!(
                "\n[[masternode]]\nowner = \"{}\"\noperator = \"{}\"\npayout = \"{}\"\nendpoint = \"{}\"\ncollateral = \"{}\"\ncollateral_address = \"{}\"\n",
                m.owner,
                m.operator,
                m.payout.address(self.network),
                String::from_utf8_lossy(&m.endpoint),
                m.collateral.value,
                m.collateral.program.address(self.network)
            ));
        }
        for b in &self.balances {
            let address = b.program.address(self.network);
            out.push_str(&format!(
                "\n[[balance]]\naddress = \"{address}\"\namount = \"{}\"\n",
                b.value
            ));
        }
        out
    }
}

fn output(address: &str, amount: &str, network: Network) -> Result<TxOutput, GenesisError> {
    let program = Program::from_address(address, network);
    let program = program.map_err(|e| GenesisError::Syntax(format!("address '{address}': {e}")))?;
    let value = amount
        .parse()
        .map_err(|e| GenesisError::Syntax(format!("amount '{amount}': {e}")))?;
    Ok(TxOutput { value, program })
}

fn masternode(doc: &DocMasternode, network: Network) -> Result<GenesisMasternode, GenesisError> {
    let key = |text: &str| {
        let parsed = text.parse::<PublicKey>();
        parsed.map_err(|e| GenesisError::Syntax(format!("key '{text}': {e}")))
    };
    let collateral = output(&doc.collateral_address, &doc.collateral, network)?;
    let payout = output(&doc.payout, "0", network)?.program;
    if !doc
        .endpoint
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    {
        return Err(GenesisError::Syntax(format!(
            "endpoint '{}' is not host:port",
            doc.endpoint
        )));
    }
    let endpoint = Endpoint::try_from(doc.endpoint.clone().into_bytes());
    let endpoint =
        endpoint.map_err(|e| GenesisError::Syntax(format!("endpoint '{}': {e}", doc.endpoint)))?;
    Ok(GenesisMasternode {
        owner: key(&doc.owner)?,
        operator: key(&doc.operator)?,
        payout,
        collateral,
        endpoint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::SecretKey;

    fn sample() -> Genesis {
        let key = |i| SecretKey::from_seed(&[i; 32]).public();
        let network = Network::Dev;
        let masternode = |i: u8| GenesisMasternode {
            owner: key(i),
            operator: key(i + 100),
            payout: Program::Key(key(i)),
            collateral: TxOutput {
                value: Amount::from_time(1_000).unwrap(),
                program: Program::Key(key(i)),
            },
            endpoint: Endpoint::try_from(b"127.0.0.1:24300".to_vec()).unwrap(),
        };
        Genesis {
            version: 1,
            network,
            time: WallMs(1_700_000_000_000),
            params: Params::of(network),
            limits: ConsensusLimits::of(network),
            balances: vec![TxOutput {
                value: Amount(5_000),
                program: Program::Key(key(50)),
            }],
            masternodes: (1..5).map(masternode).collect(),
        }
    }

    #[test]
    fn the_file_reads_back_to_the_same_chain() {
        let genesis = sample();
        let text = genesis.to_toml();
        let again = Genesis::from_toml(&text).unwrap();
        assert_eq!(again, genesis);
        let with_comment = format!("# another comment\n{text}");
        let other = Genesis::from_toml(&with_comment).unwrap();
        assert_eq!(
            other.chain_id(),
            genesis.chain_id(),
            "L14: never the file's bytes"
        );
        assert_eq!(
            codec::decode::<Genesis>(&codec::encode(&genesis), 1 << 20).unwrap(),
            genesis
        );
    }

    #[test]
    fn what_l14_forbids_is_refused() {
        let refuse = |change: &dyn Fn(&mut Genesis), why: &str| {
            let mut genesis = sample();
            change(&mut genesis);
            assert!(genesis.check().is_err(), "L14: {why}");
        };
        refuse(&|g| g.masternodes.clear(), "no masternode");
        refuse(
            &|g| g.masternodes[1].owner = g.masternodes[0].operator,
            "duplicate keys",
        );
        refuse(&|g| g.time = WallMs(1), "time is a multiple of slot_ms");
        refuse(&|g| g.params.slot_ms = 1, "B1's checks");
        refuse(&|g| g.balances[0].value = Amount(u64::MAX / 2), "supply");
        refuse(
            &|g| g.masternodes[0].collateral.value = Amount(1),
            "collateral",
        );
        let unknown = sample()
            .to_toml()
            .replace("[params]", "[params]\nslot_sm = 5");
        assert!(
            Genesis::from_toml(&unknown)
                .unwrap_err()
                .to_string()
                .contains("slot_sm")
        );
    }
}
