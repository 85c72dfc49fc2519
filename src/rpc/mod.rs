//! rpc (L7): what people and programs may ask a node, and what they may tell it.
//!
//! Inputs: HTTP requests without their sockets, a [`node::Node`]. Outputs: HTTP answers, at once or later. Must never hold a
//! thread for a caller that waits, never answer older than what the node has reported as final, never panic on any bytes.
//!
//! Read in this order: `node` (what a node must offer), `registry` (the one table), `envelope` (wire rules), `args`,
//! `service` (routing, limits, deferred answers), then `methods`.

pub mod args;
pub mod auth;
pub mod context;
pub mod envelope;
pub mod error;
pub mod finality;
pub mod health;
pub mod job;
pub mod json;
mod ledger;
pub mod methods;
pub mod metrics;
pub mod node;
pub mod proof;
mod proof_era;
mod proof_make;
pub mod published;
pub mod rate;
pub mod reader;
pub mod registration;
pub mod registry;
pub mod service;
pub mod standing;
pub mod waiters;
pub mod waits;

#[cfg(test)]
mod contested_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod health_tests;
#[cfg(test)]
mod method_tests;
#[cfg(test)]
mod proof_tests;
#[cfg(test)]
mod protx_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wallet_tests;
