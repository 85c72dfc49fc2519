//! Configuration of `timed`: one table of keys feeds parsing, `--print-config`, the example file and timed.toml(5).
//!
//! Job: defaults < file < environment (`TIMED_SECTION__KEY`) < flags, strictly checked, as one typed [`Config`].
//! Inputs: [`Inputs`]. Outputs: [`Config`], texts, or a [`ConfigError`] (exit 78) that says where, which key, and what to do.
//! Never: takes a secret from the environment or a flag: keys name files that hold them.

mod cores;
mod derive;
mod keys;
mod load;
mod render;
mod typed;
mod value;

pub use cores::{CORE_COUNT_MAX, CoreSet};
pub use keys::{Fallback, KeySpec, Kind, SECTIONS, keys};
pub use load::{ConfigError, Flags, Inputs, Settings, Source};
pub use render::{example, packaged_example, print_config};
pub use typed::{
    Config, Limits, Log, LogFormat, Masternode, Mempool, Node, P2p, Rpc, Storage, Threads, Wallet,
    http_port, p2p_port,
};
pub use value::{Endpoint, RpcUser, Value};

#[cfg(test)]
mod tests;
