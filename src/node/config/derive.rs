//! Defaults that follow from other keys: the network's ports, the paths under the data directory.
//!
//! Job: give every unset key of the kind [`super::Fallback::Derived`] its value. Inputs: [`Settings`] with all layers in.
//! Outputs: the same, complete. Never: overrides what somebody set.

use std::path::{Path, PathBuf};

use super::keys::{Fallback, KeySpec, keys};
use super::load::{ConfigError, Settings, Source};
use super::typed::{http_port, p2p_port};
use super::value::Value;
use crate::types::address::Network;

/// `~/.timecoin/NETWORK`.
pub(super) fn default_datadir(home: &Path, network: &str) -> PathBuf {
    home.join(".timecoin").join(network)
}

/// Sets what is still unset. Keys that have no value then (no operator key) stay unset.
pub(super) fn complete(settings: &mut Settings, home: Option<&Path>) -> Result<(), ConfigError> {
    let network = network(settings)?;
    for key in keys() {
        if matches!(key.fallback, Fallback::Derived(_))
            && settings.get(key.section, key.name).is_none()
            && let Some(value) = derive(key, network, settings, home)?
        {
            settings.set(key, value, Source::Default)?;
        }
    }
    Ok(())
}

/// The network that the settings name.
pub(super) fn network(settings: &Settings) -> Result<Network, ConfigError> {
    let name = match settings.get("node", "network") {
        Some((Value::Text(name), _)) => name.as_str(),
        _ => "",
    };
    name.parse()
        .map_err(|error| ConfigError::Conflict(format!("node.network: {error}")))
}

fn derive(
    key: &KeySpec,
    network: Network,
    settings: &Settings,
    home: Option<&Path>,
) -> Result<Option<Value>, ConfigError> {
    let dev = network == Network::Dev;
    let number = |on_dev, elsewhere| Some(Value::Integer(if dev { on_dev } else { elsewhere }));
    let under_datadir = |name: &str| match settings.get("node", "datadir") {
        Some((Value::Text(datadir), _)) => Some(Path::new(datadir).join(name)),
        _ => None,
    };
    let text = |path: PathBuf| Value::Text(path.to_string_lossy().into_owned());
    Ok(match (key.section, key.name) {
        ("node", "datadir") => Some(text(default_datadir(
            home.ok_or(ConfigError::NoHome)?,
            network.name(),
        ))),
        ("node", "genesis") => under_datadir("genesis.toml").map(text),
        ("p2p", "bind") if dev => Some(Value::List(vec![format!(
            "127.0.0.1:{}",
            p2p_port(network)
        )])),
        ("p2p", "bind") => {
            let port = p2p_port(network);
            Some(Value::List(vec![
                format!("0.0.0.0:{port}"),
                format!("[::]:{port}"),
            ]))
        }
        ("p2p", "ping_interval_ms") => number(1_000, 5_000),
        ("rpc", "bind") => Some(Value::List(vec![format!(
            "127.0.0.1:{}",
            http_port(network)
        )])),
        ("rpc", "rate_anonymous") => number(0, 100),
        ("rpc", "rate_user") => number(0, 10_000),
        ("masternode", "operator_key") => under_datadir("keys/operator.key")
            .filter(|path| path.exists())
            .map(text),
        ("wallet", "default") => Some(Value::Text(if dev {
            "default".into()
        } else {
            String::new()
        })),
        _ => None,
    })
}
