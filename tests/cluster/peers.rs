//! Who is admitted and who is found again: stake that is asked for, the address book over a restart, bans by hand, a
//! stranger that opens connections without end.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use timecoin::base::bounded::{BoundedBytes, BoundedVec};
use timecoin::crypto::hash::Hash;
use timecoin::crypto::keys::SecretKey;
use timecoin::net::{Class, encode_frame};
use timecoin::node::datadir::DataDir;
use timecoin::node::keeper::load_book;
use timecoin::node::keys::{self, KeyKind};
use timecoin::p2p::messages::{Hello, Message, PROTOCOL_VERSION, Status};
use timecoin::types::ids::*;
use timecoin::types::vote::{Vote, VoteBody, VoteStep};

use crate::stranger;
use crate::support::{Cluster, Node, run_timed, time_cli, wait_for, wait_until};

/// A node beside the genesis of `cluster`, as a masternode with a key of its own or as an observer; `p2p` are lines of its configuration.
fn beside(cluster: &Cluster, number: u16, masternode: bool, p2p: &str) -> Node {
    let dir = cluster.dir.path().join(format!("net/node{number}"));
    let text = dir.to_string_lossy().into_owned();
    let (code, said) = run_timed(&["--network", "dev", "--datadir", &text, "init"]);
    assert_eq!(code, Some(0), "{said}");
    if !masternode {
        std::fs::remove_file(dir.join("keys/operator.key")).expect("an operator key");
    }
    std::fs::copy(cluster.genesis(), dir.join("genesis.toml")).expect("the genesis is copied");
    let node = Node::new(dir, cluster.nodes[0].port + 10 * number);
    configure(&node, p2p);
    node
}

fn configure(node: &Node, p2p: &str) {
    let config = format!(
        "[node]\nnetwork = \"dev\"\ndatadir = \".\"\n[p2p]\nbind = [\"127.0.0.1:{}\"]\n{p2p}\n\
         [rpc]\nbind = [\"127.0.0.1:{}\"]\nrate_anonymous = 0\nrate_user = 0\n",
        node.port,
        node.port + 1
    );
    std::fs::write(node.dir.join("timed.toml"), config).expect("written");
}

/// Adds a line to the [p2p] section of a node that `timed testnet` made.
fn add_setting(node: &Node, line: &str) {
    let path = node.dir.join("timed.toml");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    let text = text.replacen("[p2p]\n", &format!("[p2p]\n{line}\n"), 1);
    assert!(text.contains(line), "{text}");
    std::fs::write(&path, text).expect("written");
}

fn peers(node: &Node) -> Vec<Value> {
    let list = node.try_call("getpeerinfo", json!([]));
    list.ok()
        .and_then(|l| l.as_array().cloned())
        .unwrap_or_default()
}

fn cli(node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let datadir = node.dir.to_string_lossy().into_owned();
    let output = time_cli(&[&["--datadir", &datadir], arguments].concat());
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn a_node_that_asks_for_stake_admits_masternodes_and_nobody_else() {
    let cluster = Cluster::make(4);
    let strict = &cluster.nodes[0];
    add_setting(strict, "require_stake = true");
    cluster.nodes.iter().for_each(Node::start);
    cluster.nodes.iter().for_each(Node::await_ready);
    wait_until("P1: masternodes with 1,000 TIME behind them are in", || {
        let all = peers(strict);
        all.len() == 3 && all.iter().all(|p| p["masternode"].is_string())
    });
    let to_strict = format!("peers = [\"127.0.0.1:{}\"]", strict.port);
    let observer = beside(&cluster, 4, false, &to_strict);
    observer.start();
    observer.await_ready();
    // An operator key that the registry does not name is worth nothing.
    let keyed = beside(&cluster, 5, true, &to_strict);
    keyed.start();
    keyed.await_ready();
    wait_until("both are turned away, and it is said why", || {
        let all = peers(strict);
        assert!(
            all.iter().all(|p| p["masternode"].is_string()),
            "only the masternodes: {all:?}"
        );
        let told = "refused by peer: no proof of a masternode in time";
        [&observer, &keyed]
            .iter()
            .all(|node| node.logged().contains(told))
    });
    // With its key registered, and the collateral behind it, the same node gets in.
    let payer = &cluster.nodes[0];
    let key = keyed.dir.join("keys/operator.key");
    let (key, payout) = (key.to_string_lossy().into_owned(), keyed.new_address());
    let endpoint = format!("127.0.0.1:{}", keyed.port);
    let datadir = payer.dir.to_string_lossy().into_owned();
    let output = time_cli(&[
        "--datadir",
        &datadir,
        "masternode",
        "register",
        "--endpoint",
        &endpoint,
        "--operator-key",
        &key,
        "--payout",
        payout.as_str().expect("an address"),
    ]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    wait_until("P1: who locks 1,000 TIME is admitted", || {
        peers(strict).len() == 4
    });
    observer.assert_runs();
}

fn is_connected(node: &Node, port: u16) -> bool {
    let end = format!(":{port}");
    let there = |p: &Value| p["addr"].as_str().is_some_and(|a| a.ends_with(&end));
    peers(node).iter().any(there)
}

#[test]
fn a_restart_finds_the_network_by_what_a_clean_stop_has_kept() {
    let cluster = Cluster::make(1);
    let first = &cluster.nodes[0];
    first.start();
    first.await_ready();
    let other = beside(&cluster, 4, false, "");
    let external = format!("external = \"127.0.0.1:{}\"", other.port);
    configure(&other, &external);
    other.start();
    other.await_ready();
    wait_until("the other is known to the first", || {
        is_connected(&other, first.port)
    });
    let seeds = format!("seeds = [\"127.0.0.1:{}\"]", first.port);
    let node = beside(&cluster, 5, false, &seeds);
    node.start();
    node.await_ready();
    wait_until("P4: it is told of the other and dials it", || {
        is_connected(&node, other.port)
    });
    assert_eq!(node.stop(), Some(0));
    let (_, anchors) = load_book(&node.dir.join("peers"));
    let port_of_other = |at: &SocketAddr| at.port() == other.port;
    assert!(
        anchors.iter().any(port_of_other),
        "P4: saved at a clean stop, however soon: {anchors:?}"
    );
    // The one node that the genesis names is gone, and no seed is configured: only the book is left.
    first.kill();
    configure(&node, "");
    node.start();
    node.await_ready();
    wait_until("P4: whom it was connected to is dialled again", || {
        is_connected(&node, other.port)
    });
    // Without the book there is nobody.
    assert_eq!(node.stop(), Some(0));
    std::fs::remove_file(node.dir.join("peers")).expect("a book");
    node.start();
    node.await_ready();
    assert!(!is_connected(&node, other.port), "nothing else knows of it");
}

#[test]
fn bans_by_hand_are_listed_kept_and_taken_back() {
    let cluster = Cluster::make(1);
    let node = &cluster.nodes[0];
    node.start();
    node.await_ready();
    let key = "ab".repeat(32);
    for subject in ["203.0.113.7", "2001:db8::/48", &key] {
        assert_eq!(
            cli(node, &["setban", subject, "add"]).0,
            Some(0),
            "{subject}"
        );
    }
    assert_eq!(
        cli(node, &["setban", "203.0.113.7", "add"]).0,
        Some(1),
        "-23"
    );
    let listed = |node: &Node| {
        let list = node.call("listbanned", json!([]));
        list.as_array().map_or(0, Vec::len)
    };
    assert_eq!(listed(node), 3);
    // At once: what was said just before a stop is kept too.
    assert_eq!(cli(node, &["setban", &key, "remove"]).0, Some(0));
    assert_eq!(node.stop(), Some(0));
    node.start();
    node.await_ready();
    assert_eq!(listed(node), 2, "P3: persisted");
    assert_eq!(cli(node, &["clearbanned"]).0, Some(0));
    assert_eq!(node.stop(), Some(0));
    node.start();
    node.await_ready();
    assert_eq!(listed(node), 0, "P3: reversible");
}

/// Frames as a peer sends them: a greeting, then two votes of one key for two blocks of one height.
fn double_vote(chain: ChainId, key: &SecretKey, voter: MasternodeId, height: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut add = |message: &Message| {
        encode_frame(
            &mut out,
            Class::Consensus,
            message.code(),
            &message.encode(),
        );
    };
    add(&Message::Hello(Box::new(Hello {
        protocol: PROTOCOL_VERSION,
        chain,
        agent: BoundedBytes::default(),
        supports: Branch(0),
        endpoint: None,
        status: Status::default(),
        probe: false,
    })));
    let votes = [1, 2].map(|block| {
        let body = VoteBody {
            step: VoteStep::Precommit,
            branch: Branch(0),
            era: Era(0),
            height: Height(height),
            round: Round(0),
            valid_round: None,
            block: Some(BlockId(Hash([block; 32]))),
        };
        let signature = key.sign(&body.signing_hash(chain));
        Vote {
            body,
            voter,
            signature,
        }
    });
    add(&Message::Votes(BoundedVec::take_from(votes)));
    out
}

#[test]
fn who_was_slashed_has_no_stake_behind_it_any_more() {
    let cluster = Cluster::make(4);
    let (strict, culprit) = (&cluster.nodes[0], &cluster.nodes[3]);
    add_setting(strict, "require_stake = true");
    cluster.nodes.iter().for_each(Node::start);
    cluster.nodes.iter().for_each(Node::await_ready);
    wait_until("P1: all masternodes are in", || peers(strict).len() == 3);
    let known = culprit.call("masternode", json!(["status"]));
    let id = known["proTxHash"].as_str().expect("an id").to_owned();
    let chain = culprit.call("getblockhash", json!([0]));
    let chain: ChainId = chain.as_str().expect("a hash").parse().expect("a hash");
    culprit.kill();
    // Somebody else has its key.
    let key = DataDir::new(&culprit.dir).operator_key();
    let key = keys::load(&key, KeyKind::Operator).expect("an operator key");
    let key = SecretKey::from_seed(&key);
    let voter: MasternodeId = id.parse().expect("an id");
    let slashed = |node: &Node| {
        let info = node.try_call("protx", json!(["info", id]));
        info.is_ok_and(|info| info["state"]["status"] == "SLASHED")
    };
    let witness = &cluster.nodes[1];
    let mut tries = 0u8;
    wait_until("M7: the evidence is in a slot block", || {
        // Votes of the height under way only are looked at, so it may take more than one try.
        let height = witness.consensus()["height"].as_u64().unwrap_or_default();
        let bytes = double_vote(chain, &key, voter, height);
        let stream = TcpStream::connect(("127.0.0.1", witness.port)).expect("a connection");
        // Somebody else each time: who has misbehaved may be turned away.
        tries = tries.wrapping_add(1);
        stranger::say(stream, [tries; 32], &bytes);
        slashed(strict)
    });
    culprit.start();
    culprit.await_ready();
    wait_until("P1: it is turned away like anybody without stake", || {
        let there = peers(strict);
        let it = |p: &Value| p["masternode"] == json!(id);
        assert!(!there.iter().any(it), "it counts for nothing: {there:?}");
        let told = "refused by peer: no proof of a masternode in time";
        culprit.logged().contains(told)
    });
}

/// A connection from an address of this host that is not the usual one.
fn from(address: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((address, 0)).into())?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket.into())
}

/// Whether a handshake from there is let through.
fn shakes(address: Ipv4Addr, port: u16, number: u8) -> bool {
    from(address, port).is_ok_and(|stream| stranger::shakes_hands(stream, [number; 32]))
}

#[test]
fn one_address_cannot_shake_hands_without_end_and_others_can() {
    let cluster = Cluster::make(1);
    let node = &cluster.nodes[0];
    node.start();
    node.await_ready();
    let flooder = Ipv4Addr::new(127, 9, 9, 9);
    let refused = wait_for("P2: it is turned away before it costs a handshake", || {
        (1..=100u8).find(|number| !shakes(flooder, node.port, *number))
    });
    assert!(refused > 10, "a burst is let through: {refused}");
    assert!(
        shakes(Ipv4Addr::new(127, 9, 9, 8), node.port, 1),
        "others are not concerned"
    );
    assert!((1..=40).all(|number| shakes(Ipv4Addr::LOCALHOST, node.port, number)));
    let txid = node.pay(&node.new_address(), "1");
    node.await_final(&txid);
}
