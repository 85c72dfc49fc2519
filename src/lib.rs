//! TimeCoin: a payment network with sub-second finality.
//!
//! The crate is a stack of layers; each imports only what is below it, never a sibling. Read it bottom-up:
//! `base` (bounds, time as data), `crypto` (hashes, keys, one signature verdict), `types` (what is signed, sent and
//! stored), `ledger` (may this coin move?), `consensus`, `p2p` and `sync` (pure machines), `replica` (one node's brain),
//! then the parts that touch the world: `storage`, `net`, `wallet`, `rpc` and `node`. ARCHITECTURE.md is the map.
#![forbid(unused_must_use)]

pub mod base;
pub mod consensus;
pub mod crypto;
pub mod ledger;
pub mod net;
pub mod node;
pub mod p2p;
pub mod replica;
pub mod rpc;
pub mod sim;
pub mod storage;
pub mod sync;
pub mod types;
pub mod wallet;
