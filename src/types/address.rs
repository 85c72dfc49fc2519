//! Programs (what an output locks to) and their addresses: bech32m (BIP 350) with a prefix for each network (L3).

use crate::base::bounded::BoundedVec;
use crate::base::limits::POLICY_KEY_COUNT_MAX;
use crate::crypto::hash::{Domain, Hash};
use crate::crypto::keys::PublicKey;
use crate::types::codec;
use bech32::{Fe32, Hrp, segwit};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which network: fixes address prefix, ports and default parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Network {
    /// The network of real money.
    Main,
    /// The public test network.
    Test,
    /// A private network for development.
    Dev,
}

impl Network {
    /// All networks.
    pub const ALL: [Network; 3] = [Network::Main, Network::Test, Network::Dev];
    /// `main`, `test` or `dev`.
    pub fn name(self) -> &'static str {
        match self {
            Network::Main => "main",
            Network::Test => "test",
            Network::Dev => "dev",
        }
    }
    /// Human-readable part of addresses.
    pub fn hrp(self) -> &'static str {
        match self {
            Network::Main => "time",
            Network::Test => "ttime",
            Network::Dev => "dtime",
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Network, String> {
        let found = Network::ALL.into_iter().find(|n| n.name() == text);
        found.ok_or_else(|| format!("unknown network '{text}': use main, test or dev"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an output locks to (L3). The decoder accepts the known versions only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Program {
    /// Version 1: an ed25519 public key.
    Key(PublicKey),
    /// Version 2: the hash of an m-of-n [`Policy`].
    Policy(Hash),
}

/// An m-of-n policy: 1 <= m <= n <= 16, keys strictly ascending (L3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// Signatures needed.
    pub threshold: u8,
    /// Who may sign.
    pub keys: BoundedVec<PublicKey, POLICY_KEY_COUNT_MAX>,
}

impl Policy {
    /// Whether the policy keeps L3's form.
    pub fn is_well_formed(&self) -> bool {
        let ascending = self.keys.windows(2).all(|pair| pair[0] < pair[1]);
        ascending && self.threshold >= 1 && usize::from(self.threshold) <= self.keys.len()
    }
    /// The program that pays to this policy.
    pub fn program(&self) -> Program {
        Program::Policy(codec::hash_of(Domain::Policy, self))
    }
}

/// Why a text is no address of this network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not bech32m.
    #[error("not a valid address: {0}")]
    Encoding(String),
    /// An address of another network.
    #[error("the address starts with '{found}', this network's addresses start with '{wanted}1'")]
    Network {
        /// Prefix found.
        found: String,
        /// Prefix of this network.
        wanted: &'static str,
    },
    /// A program version this software does not know.
    #[error("program version {0} is not known to this software")]
    Version(u8),
    /// The program has another length than 32 bytes.
    #[error("the program has {0} bytes, expected 32")]
    Length(usize),
}

impl Program {
    /// The program's version as addresses show it.
    pub fn version(&self) -> u8 {
        match self {
            Program::Key(_) => 1,
            Program::Policy(_) => 2,
        }
    }
    /// The 32 bytes of the program.
    pub fn bytes(&self) -> &[u8; 32] {
        match self {
            Program::Key(key) => &key.0,
            Program::Policy(hash) => &hash.0,
        }
    }
    /// The address of the program on `network`.
    pub fn address(&self, network: Network) -> String {
        let version = if self.version() == 1 {
            Fe32::P
        } else {
            Fe32::Z
        };
        let hrp = Hrp::parse_unchecked(network.hrp());
        // PROOF: 32 bytes with version 1 or 2 and a prefix of at most 5 letters are within every bound of BIP 173/350.
        segwit::encode(hrp, version, self.bytes())
            .expect("PROOF: 32-byte programs of version 1 and 2 always encode")
    }
    /// The program an address stands for.
    pub fn from_address(text: &str, network: Network) -> Result<Program, AddressError> {
        let (hrp, version, bytes) =
            segwit::decode(text).map_err(|e| AddressError::Encoding(e.to_string()))?;
        let found = hrp.to_string().to_lowercase();
        if found != network.hrp() {
            return Err(AddressError::Network {
                found,
                wanted: network.hrp(),
            });
        }
        let length = bytes.len();
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| AddressError::Length(length))?;
        match version.to_u8() {
            1 => Ok(Program::Key(PublicKey(bytes))),
            2 => Ok(Program::Policy(Hash(bytes))),
            other => Err(AddressError::Version(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_round_trip_and_name_their_network(bytes in any::<[u8; 32]>(), policy in any::<bool>()) {
            let program = if policy { Program::Policy(Hash(bytes)) } else { Program::Key(PublicKey(bytes)) };
            for network in Network::ALL {
                let text = program.address(network);
                let prefixed = text.starts_with(&format!("{}1", network.hrp()));
                prop_assert!(prefixed);
                prop_assert_eq!(Program::from_address(&text, network), Ok(program));
                prop_assert_eq!(Program::from_address(&text.to_uppercase(), network), Ok(program));
            }
            let dev = program.address(Network::Dev);
            let wrong = matches!(Program::from_address(&dev, Network::Main), Err(AddressError::Network { .. }));
            prop_assert!(wrong);
        }
    }

    #[test]
    fn policies_are_strict() {
        let key = |i| PublicKey([i; 32]);
        let policy = |m, keys: Vec<PublicKey>| Policy {
            threshold: m,
            keys: keys.try_into().unwrap(),
        };
        assert!(policy(2, vec![key(1), key(2)]).is_well_formed());
        assert!(
            !policy(3, vec![key(1), key(2)]).is_well_formed(),
            "L3: m <= n"
        );
        assert!(!policy(0, vec![key(1)]).is_well_formed(), "L3: 1 <= m");
        assert!(
            !policy(1, vec![key(2), key(1)]).is_well_formed(),
            "L3: ascending"
        );
        assert!(
            !policy(1, vec![key(1), key(1)]).is_well_formed(),
            "L3: strictly"
        );
    }
}
