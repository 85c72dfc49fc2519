//! `timed testnet`: keys, genesis and configurations for a network that people start by hand, here or on several hosts.

use crate::node::cli::TestnetOptions;
use crate::node::clock::Clock;
use crate::node::config::{Endpoint, p2p_port};
use crate::node::provision::{Plan, ProvisionError, make_network, node_dir};
use crate::types::address::Network;

/// Distance between the P2P ports of nodes on one host; the HTTP port is the next one.
pub const PORT_STEP: u16 = 10;

/// Makes the network; the text says how to start it.
pub fn make(options: &TestnetOptions, network: Option<Network>) -> Result<String, ProvisionError> {
    let network = network.unwrap_or(Network::Dev);
    if network == Network::Main {
        return Err(ProvisionError::Request(
            "a testnet is of network test or dev".into(),
        ));
    }
    let base = options.base_port.unwrap_or(p2p_port(network));
    let count = usize::from(options.nodes);
    if !options.hosts.is_empty() && options.hosts.len() != count {
        let text = format!(
            "{} hosts for {count} nodes: name one host for each node",
            options.hosts.len()
        );
        return Err(ProvisionError::Request(text));
    }
    let mut nodes = Vec::new();
    for i in 0..options.nodes {
        let host = options.hosts.get(usize::from(i)).cloned();
        // On hosts of their own all nodes have the same port; on one host each has its own.
        let offset = if host.is_some() {
            Some(0)
        } else {
            i.checked_mul(PORT_STEP)
        };
        let port = offset
            .and_then(|offset| base.checked_add(offset))
            .filter(|port| *port < u16::MAX);
        let port =
            port.ok_or_else(|| ProvisionError::Request("the ports do not fit below 65536".into()))?;
        nodes.push(Endpoint {
            host: host.unwrap_or_else(|| "127.0.0.1".into()),
            port,
        });
    }
    let plan = Plan {
        network,
        dir: options.out.clone(),
        nodes,
        slot_interval_s: options.slot_interval_s,
        seed: None,
        now_ms: Clock::default().now().wall.0,
    };
    let genesis = make_network(&plan)?;
    let mut text = format!("chain id {}\n", genesis.chain_id());
    for i in 0..count {
        let config = node_dir(&plan.dir, i).join("timed.toml");
        text.push_str(&format!(
            "start node {i} with: timed --config {}\n",
            config.display()
        ));
    }
    Ok(text)
}
