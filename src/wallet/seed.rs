//! The secret a wallet grows from: BIP 39 entropy, readable as words, and SLIP-0010 ed25519 keys derived from it. Every step
//! of the path is hardened, as ed25519 demands, so public keys cannot be derived without the seed.

use super::error::WalletError;
use crate::crypto::keys::SecretKey;
use crate::types::address::Network;
use bip39::{Language, Mnemonic};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of entropy of a new seed: 24 words.
const NEW_ENTROPY_BYTES: usize = 32;
/// Greatest entropy of BIP 39.
pub const ENTROPY_BYTES_MAX: usize = 32;
const HARDENED: u32 = 1 << 31;
/// Purpose of the path (BIP 44).
const PURPOSE: u32 = 44;
/// Coin type of networks whose coins have no worth (SLIP-0044).
const COIN_TYPE_TEST: u32 = 1;
/// Coin type of the network of real money: "TIME" in ASCII.
const COIN_TYPE_MAIN: u32 = 0x5449_4d45;

/// BIP 39 entropy. Zeroed when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Seed(Vec<u8>);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seed({} bytes)", self.0.len())
    }
}

impl Seed {
    /// Fresh entropy from the system: 24 words.
    pub fn generate() -> Result<Seed, WalletError> {
        let mut bytes = vec![0; NEW_ENTROPY_BYTES];
        random(&mut bytes)?;
        Ok(Seed(bytes))
    }
    /// A seed from 16, 20, 24, 28 or 32 bytes of entropy.
    pub fn from_entropy(bytes: &[u8]) -> Result<Seed, WalletError> {
        if !(16..=ENTROPY_BYTES_MAX).contains(&bytes.len()) || !bytes.len().is_multiple_of(4) {
            return Err(WalletError::Invalid(format!(
                "a seed has 16, 20, 24, 28 or 32 bytes, not {}",
                bytes.len()
            )));
        }
        Ok(Seed(bytes.to_vec()))
    }
    /// A seed from its English words.
    pub fn from_mnemonic(words: &str) -> Result<Seed, WalletError> {
        let parsed = Mnemonic::parse_in(Language::English, words)
            .map_err(|e| WalletError::Invalid(format!("not a BIP 39 mnemonic: {e}")))?;
        Seed::from_entropy(&Zeroizing::new(parsed.to_entropy()))
    }
    /// The entropy.
    pub fn entropy(&self) -> &[u8] {
        &self.0
    }
    /// Its English words, for a backup on paper.
    pub fn mnemonic(&self) -> Result<Zeroizing<String>, WalletError> {
        Ok(Zeroizing::new(self.words()?.to_string()))
    }
    /// The master node of its key tree (BIP 39 with an empty passphrase, then SLIP-0010).
    pub fn master(&self) -> Result<Node, WalletError> {
        let seed = Zeroizing::new(self.words()?.to_seed_normalized(""));
        Ok(Node::master(&*seed))
    }
    fn words(&self) -> Result<Mnemonic, WalletError> {
        Mnemonic::from_entropy_in(Language::English, &self.0)
            .map_err(|e| WalletError::Invalid(format!("the seed is no BIP 39 entropy: {e}")))
    }
}

/// Fills `bytes` from the system's randomness.
pub fn random(bytes: &mut [u8]) -> Result<(), WalletError> {
    getrandom::fill(bytes).map_err(|e| WalletError::Random(e.to_string()))
}

/// A node of the key tree: private key and chain code. Zeroed when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Node {
    key: [u8; 32],
    chain_code: [u8; 32],
}

impl Node {
    /// SLIP-0010: the master node of a seed.
    pub fn master(seed: &[u8]) -> Node {
        Node::from_mac(b"ed25519 seed", &[seed])
    }
    /// SLIP-0010: the hardened child `index` (the hardening bit is set here).
    pub fn child(&self, index: u32) -> Node {
        let index = (index | HARDENED).to_be_bytes();
        Node::from_mac(&self.chain_code, &[&[0], &self.key, &index])
    }
    /// The descendant along hardened indexes.
    pub fn descend(&self, path: &[u32]) -> Node {
        path.iter().fold(self.clone(), |node, i| node.child(*i))
    }
    /// The ed25519 key of the node.
    pub fn secret_key(&self) -> SecretKey {
        SecretKey::from_seed(&self.key)
    }
    fn from_mac(key: &[u8], parts: &[&[u8]]) -> Node {
        // PROOF: HMAC takes keys of any length; the error exists for other MACs.
        let mut mac = <Hmac<Sha512> as KeyInit>::new_from_slice(key)
            .expect("PROOF: HMAC accepts keys of every length");
        for part in parts {
            mac.update(part);
        }
        let mut digest = mac.finalize().into_bytes();
        let mut node = Node {
            key: [0; 32],
            chain_code: [0; 32],
        };
        node.key.copy_from_slice(&digest[..32]);
        node.chain_code.copy_from_slice(&digest[32..]);
        digest.as_mut_slice().zeroize();
        node
    }
}

/// Whose keys a branch of the account holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chain {
    /// Addresses handed out.
    Receive,
    /// The wallet's own change.
    Change,
}

/// The node above the keys of a chain: m/44'/coin'/0'/chain'. Key i is its child i.
pub fn chain_node(master: &Node, network: Network, chain: Chain) -> Node {
    let coin = match network {
        Network::Main => COIN_TYPE_MAIN,
        Network::Test | Network::Dev => COIN_TYPE_TEST,
    };
    let chain = match chain {
        Chain::Receive => 0,
        Chain::Change => 1,
    };
    master.descend(&[PURPOSE, coin, 0, chain])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hex;

    fn check(seed: &str, path: &[u32], chain_code: &str, private: &str, public: &str) {
        let node = Node::master(&hex::decode(seed).unwrap()).descend(path);
        assert_eq!(hex::encode(&node.chain_code), chain_code, "{path:?}");
        assert_eq!(hex::encode(&node.key), private, "{path:?}");
        assert_eq!(
            node.secret_key().public().to_string(),
            public,
            "{path:?}: SLIP-0010 writes a zero byte before it"
        );
    }

    #[test]
    fn the_published_vectors_of_slip_0010_hold() {
        let seed = "000102030405060708090a0b0c0d0e0f";
        check(
            seed,
            &[],
            "90046a93de5380a72b5e45010748567d5ea02bbf6522f979e05c0d8d8ca9fffb",
            "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7",
            "a4b2856bfec510abab89753fac1ac0e1112364e7d250545963f135f2a33188ed",
        );
        check(
            seed,
            &[0],
            "8b59aa11380b624e81507a27fedda59fea6d0b779a778918a2fd3590e16e9c69",
            "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3",
            "8c8a13df77a28f3445213a0f432fde644acaa215fc72dcdf300d5efaa85d350c",
        );
        check(
            seed,
            &[0, 1, 2, 2, 1_000_000_000],
            "68789923a0cac2cd5a29172a475fe9e0fb14cd6adb5ad98a3fa70333e7afa230",
            "8f94d394a8e8fd6b1bc2f3f49f5c47e385281d5c17e65324b0f62483e37e8793",
            "3c24da049451555d51a7014a37337aa4e12d41e485abccfa46b47dfb2af54b7a",
        );
    }

    #[test]
    fn words_and_entropy_are_one_seed() {
        let seed = Seed::from_entropy(&[0; 16]).unwrap();
        let words = seed.mnemonic().unwrap();
        assert_eq!(
            words.as_str(),
            "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
            "BIP 39 vector"
        );
        assert_eq!(Seed::from_mnemonic(&words).unwrap(), seed);
        assert!(
            Seed::from_mnemonic(&words.replace("about", "abandon")).is_err(),
            "the checksum word counts"
        );
        assert!(Seed::from_entropy(&[0; 15]).is_err());
        assert_ne!(Seed::generate().unwrap(), Seed::generate().unwrap());
    }

    #[test]
    fn networks_and_chains_never_share_a_key() {
        let master = Seed::from_entropy(&[7; 32]).unwrap().master().unwrap();
        let key = |network, chain| {
            let node = chain_node(&master, network, chain);
            node.child(0).secret_key().public()
        };
        let main = key(Network::Main, Chain::Receive);
        assert_ne!(main, key(Network::Dev, Chain::Receive));
        assert_ne!(main, key(Network::Main, Chain::Change));
    }
}
