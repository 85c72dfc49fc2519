//! L2: what is signed, sent and stored, in one canonical encoding (L7). Types carry form, never validity: whether a
//! transaction or block is valid is the ledger's question.

pub mod address;
pub mod amount;
pub mod bitmap;
pub mod block;
pub mod codec;
pub mod fork;
pub mod genesis;
pub mod ids;
pub mod masternode;
pub mod params;
pub mod polka;
pub mod transaction;
pub mod validators;
pub mod vote;
