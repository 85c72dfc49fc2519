//! Who may connect: bans, connections by hand.

use crate::base::time::WallMs;
use crate::p2p::reputation::{Ban, Subject};
use crate::rpc::args::Args;
use crate::rpc::context::Call;
use crate::rpc::error::{RpcError, code};
use crate::rpc::node::{PeerCommand, PeerRefusal, WhichPeer};
use crate::rpc::registry::{ArgKind, Category, MethodSpec, Reply, optional, required};
use serde_json::{Value, json};

/// A ban by hand without a time holds this long, s.
const BAN_DEFAULT_S: u64 = 24 * 3_600;

/// Rows of this category.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        name: "listbanned",
        category: Category::Network,
        summary: "Bans in force.",
        details: "A ban covers addresses or a node key. reason says which rule was broken, or \"by hand\".",
        args: &[],
        result: "[{ address, ban_created, banned_until, ban_duration, time_remaining (seconds), reason, by_hand }]",
        example: "",
        while_starting: true,
        run: listbanned,
    },
    MethodSpec {
        name: "setban",
        category: Category::Network,
        summary: "Bans an address, a subnet or a node key, or takes a ban back.",
        details: "Whoever is connected from there is disconnected.",
        args: &[
            required(
                "subnet",
                ArgKind::Text,
                "An IP address, a subnet as 10.0.0.0/8, or a node key in hex.",
            ),
            required("command", ArgKind::Text, "\"add\" or \"remove\"."),
            optional(
                "bantime",
                ArgKind::Integer,
                "0",
                "Seconds; 0 = 24 hours. With absolute, the time at which it ends.",
            ),
            optional(
                "absolute",
                ArgKind::Boolean,
                "false",
                "bantime is seconds since 1970.",
            ),
        ],
        result: "null",
        example: "192.0.2.0/24 add 86400",
        while_starting: true,
        run: setban,
    },
    MethodSpec {
        name: "clearbanned",
        category: Category::Network,
        summary: "Takes all bans back and forgets all scores.",
        details: "",
        args: &[],
        result: "null",
        example: "",
        while_starting: true,
        run: clearbanned,
    },
    MethodSpec {
        name: "disconnectnode",
        category: Category::Network,
        summary: "Closes a connection.",
        details: "Name the peer by address or by id. It may come back: see setban.",
        args: &[
            optional(
                "address",
                ArgKind::Text,
                "none",
                "IP:PORT as getpeerinfo shows it.",
            ),
            optional(
                "nodeid",
                ArgKind::Integer,
                "none",
                "The id that getpeerinfo shows.",
            ),
        ],
        result: "null",
        example: "192.0.2.5:24100",
        while_starting: true,
        run: disconnectnode,
    },
    MethodSpec {
        name: "addnode",
        category: Category::Network,
        summary: "Keeps a connection to a node until the next start, gives it up, or dials it once.",
        details: "To keep it for good, write it into p2p.peers.",
        args: &[
            required("node", ArgKind::Text, "HOST:PORT."),
            required(
                "command",
                ArgKind::Text,
                "\"add\", \"remove\" or \"onetry\".",
            ),
        ],
        result: "null",
        example: "192.0.2.5:24100 onetry",
        while_starting: true,
        run: addnode,
    },
];

fn refused(refusal: PeerRefusal) -> RpcError {
    match refusal {
        PeerRefusal::AlreadyBanned => {
            RpcError::new(code::NODE_KNOWN, "Error: IP/Subnet already banned")
        }
        PeerRefusal::NotBanned => RpcError::new(
            code::NO_SUBNET,
            "Error: Unban failed. Requested address/subnet was not previously manually banned.",
        )
        .hint("listbanned shows the bans, each as it must be named"),
        PeerRefusal::NotConnected => RpcError::new(
            code::NODE_NOT_CONNECTED,
            "Node not found in connected nodes",
        )
        .hint("getpeerinfo shows addresses and ids"),
        PeerRefusal::AlreadyAdded => RpcError::new(code::NODE_KNOWN, "Error: Node already added"),
        PeerRefusal::NotAdded => RpcError::new(
            code::NODE_NOT_ADDED,
            "Error: Node could not be removed. It has not been added previously.",
        ),
        PeerRefusal::Busy => {
            RpcError::new(code::MISC, "the network thread did not answer in time").hint("try again")
        }
    }
}

fn done(call: &Call<'_>, command: PeerCommand) -> Result<Reply, RpcError> {
    call.node().peer_command(command).map_err(refused)?;
    Ok(Value::Null.into())
}

fn ban_json(ban: &Ban, now: WallMs) -> Value {
    let (created, until) = (ban.created.0 / 1_000, ban.until.0 / 1_000);
    json!({
        "address": ban.subject.to_string(),
        "ban_created": created,
        "banned_until": until,
        "ban_duration": until.saturating_sub(created),
        "time_remaining": ban.until.since(now) / 1_000,
        "reason": ban.why,
        "by_hand": ban.by_hand,
    })
}

fn listbanned(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    let now = call.node().now().wall;
    let bans = call.node().bans();
    let live = bans.iter().filter(|ban| ban.until > now);
    Ok(Value::Array(live.map(|ban| ban_json(ban, now)).collect()).into())
}

fn setban(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let subject = Subject::parse(args.text(0)).ok_or_else(|| {
        RpcError::new(code::NO_SUBNET, "Error: Invalid IP/Subnet")
            .hint("give an IP address, a subnet as 192.0.2.0/24, or 64 hex digits of a node key")
    })?;
    match args.text(1) {
        "add" => {
            let time = args.count(2, 0, "bantime")?;
            let now = call.node().now().wall.0 / 1_000;
            let seconds = match (time, args.boolean(3, false)) {
                (time, true) if time <= now => {
                    return Err(RpcError::parameter(
                        "Error: Absolute timestamp is in the past",
                    ));
                }
                (time, true) => time - now,
                (0, false) => BAN_DEFAULT_S,
                (time, false) => time,
            };
            done(
                call,
                PeerCommand::Ban(subject, seconds.saturating_mul(1_000)),
            )
        }
        "remove" => done(call, PeerCommand::Unban(subject)),
        other => Err(RpcError::parameter(format!(
            "\"{other}\" is neither \"add\" nor \"remove\""
        ))),
    }
}

fn clearbanned(call: &Call<'_>, _: &Args) -> Result<Reply, RpcError> {
    done(call, PeerCommand::ClearBans)
}

fn disconnectnode(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let address = args.text(0);
    let which = match (address.is_empty(), args.get(1).is_some()) {
        (false, false) => WhichPeer::Address(address.to_owned()),
        (true, true) => WhichPeer::Id(args.count(1, 0, "nodeid")?),
        _ => {
            return Err(RpcError::parameter(
                "Only one of address and nodeid should be provided.",
            ));
        }
    };
    done(call, PeerCommand::Disconnect(which))
}

fn addnode(call: &Call<'_>, args: &Args) -> Result<Reply, RpcError> {
    let node = args.text(0).to_owned();
    let port = node.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) {
        return Err(RpcError::parameter(format!("\"{node}\" is not HOST:PORT")));
    }
    match args.text(1) {
        "add" => done(call, PeerCommand::Add(node)),
        "remove" => done(call, PeerCommand::Remove(node)),
        "onetry" => done(call, PeerCommand::Try(node)),
        other => Err(RpcError::parameter(format!(
            "\"{other}\" is none of \"add\", \"remove\" and \"onetry\""
        ))),
    }
}
