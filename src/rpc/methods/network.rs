//! Peers and the node's own network identity.

use crate::p2p::messages::PROTOCOL_VERSION;
use crate::rpc::args::{Args, amount_json};
use crate::rpc::context::Call;
use crate::rpc::error::RpcError;
use crate::rpc::node::PeerView;
use crate::rpc::registry::{Category, MethodSpec, Reply};
use crate::types::amount::Amount;
use serde_json::{Value, json};

/// `version` for client libraries that ask which fields a Bitcoin Core of this version has.
pub const CORE_VERSION: u32 = 290_000;

/// Rows of this category.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "getnetworkinfo",
        category: Category::Network,
        summary: "This node on the network.",
        details: "version tells client libraries which fields of Bitcoin Core they may expect; the software's own version is \
                  in subversion and timecoin_version.",
        args: &[],
        result: "{ version, subversion, timecoin_version, protocolversion, localservices, localservicesnames, localrelay, \
                 timeoffset, networkactive, connections, connections_in, connections_out, networks, relayfee, \
                 incrementalfee, localaddresses, warnings, node_key }",
        example: "",
        while_starting: true,
        run: getnetworkinfo,
    },
    MethodSpec {
        name: "getpeerinfo",
        category: Category::Network,
        summary: "Connected peers.",
        details: "",
        args: &[],
        result: "[{ id, addr, node_key, network, services, servicesnames, relaytxes, lastsend, lastrecv, bytessent, bytesrecv, \
                 conntime, timeoffset, pingtime, minping, version, subver, inbound, startingheight, synced_headers, \
                 synced_blocks, permissions, connection_type, transport_protocol_type, masternode, class, score, \
                 bytessent_per_msg, bytesrecv_per_msg }]",
        example: "",
        while_starting: true,
        run: getpeerinfo,
    },
    MethodSpec {
        name: "getconnectioncount",
        category: Category::Network,
        summary: "Number of connected peers.",
        details: "",
        args: &[],
        result: "n (number)",
        example: "",
        while_starting: true,
        run: getconnectioncount,
    },
];

fn network_of(address: &std::net::SocketAddr) -> &'static str {
    if address.ip().is_loopback() {
        "not_publicly_routable"
    } else if address.is_ipv4() {
        "ipv4"
    } else {
        "ipv6"
    }
}

fn getnetworkinfo(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let facts = call.node().facts();
    let peers = &call.view.peers;
    let inbound = peers.iter().filter(|p| p.inbound).count();
    let fee = amount_json(Amount(facts.genesis.params.min_fee_per_kb));
    let own_version = env!("CARGO_PKG_VERSION");
    let networks = ["ipv4", "ipv6"].map(|name| {
        json!({
            "name": name,
            "limited": false,
            "reachable": true,
            "proxy": "",
            "proxy_randomize_credentials": false,
        })
    });
    let addresses = facts.p2p_addresses.iter();
    let addresses: Vec<Value> = addresses
        .map(|a| json!({"address": a.ip().to_string(), "port": a.port(), "score": 1}))
        .collect();
    Ok(json!({
        "version": CORE_VERSION,
        "subversion": format!("/TimeCoin:{own_version}/"),
        "timecoin_version": own_version,
        "protocolversion": PROTOCOL_VERSION,
        "localservices": "0000000000000000",
        "localservicesnames": [],
        "localrelay": true,
        "timeoffset": call.view.clock.offset_ms.unwrap_or(0) / 1_000,
        "networkactive": true,
        "connections": peers.len(),
        "connections_in": inbound,
        "connections_out": peers.len() - inbound,
        "networks": networks,
        "relayfee": fee,
        "incrementalfee": fee,
        "localaddresses": addresses,
        "warnings": call.view.warnings,
        "node_key": facts.node_key.to_string(),
    })
    .into())
}

fn seconds(us: Option<u64>) -> Value {
    us.map_or(Value::Null, |us| json!(us as f64 / 1e6))
}

fn peer_json(peer: &PeerView) -> Value {
    let by_type = |way: usize| -> Value {
        let of = |(name, bytes): (&&str, &[u64; 2])| (name.to_string(), json!(bytes[way]));
        let moved = |(_, bytes): &(&&str, &[u64; 2])| bytes[way] > 0;
        Value::Object(peer.by_type.iter().filter(moved).map(of).collect())
    };
    json!({
        "id": peer.id,
        "addr": peer.address.to_string(),
        "node_key": peer.node_key.to_string(),
        "network": network_of(&peer.address),
        "services": "0000000000000000",
        "servicesnames": [],
        "relaytxes": true,
        "lastsend": peer.last_send.0 / 1_000,
        "lastrecv": peer.last_receive.0 / 1_000,
        "bytessent": peer.bytes_out,
        "bytesrecv": peer.bytes_in,
        "conntime": peer.since.0 / 1_000,
        "timeoffset": peer.clock_offset_ms / 1_000,
        "pingtime": seconds(peer.ping_us),
        "minping": seconds(peer.min_ping_us),
        "version": PROTOCOL_VERSION,
        "subver": peer.agent,
        "inbound": peer.inbound,
        "startingheight": peer.height.0,
        "synced_headers": peer.height.0,
        "synced_blocks": peer.height.0,
        "permissions": [],
        "connection_type": if peer.inbound { "inbound" } else { "manual" },
        "transport_protocol_type": "tls13",
        "masternode": peer.masternode.map(|id| id.to_string()),
        "class": if peer.masternode.is_some() { "masternode" } else { "observer" },
        "score": peer.score,
        "bytessent_per_msg": by_type(0),
        "bytesrecv_per_msg": by_type(1),
    })
}

fn getpeerinfo(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let peers = call.view.peers.iter().map(peer_json);
    Ok(Value::Array(peers.collect()).into())
}

fn getconnectioncount(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    Ok(json!(call.view.peers.len()).into())
}
