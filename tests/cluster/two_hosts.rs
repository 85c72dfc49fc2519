//! One operator key on two hosts (B7): the second, in a network namespace of its own where no lock of this host is seen, is
//! told by the others and stops before it signs.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Cluster, Node, timed, wait_until};

/// A network namespace that is joined to this one by a cable; gone when it is dropped.
struct Host {
    name: String,
    /// Addresses of the two ends of the cable.
    here: String,
    there: String,
}

fn ip(words: &str) -> bool {
    let words: Vec<&str> = words.split_whitespace().collect();
    let run = Command::new("ip")
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

impl Host {
    /// `None` where this is not allowed (it takes root), `ip` is not there, or the two cannot speak (a packet filter).
    fn new() -> Option<Host> {
        let number = std::process::id() % 60_000;
        let net = format!("10.{}.{}", 100 + number / 256 % 100, number % 256);
        let host = Host {
            name: format!("tc{number}"),
            here: format!("{net}.1"),
            there: format!("{net}.2"),
        };
        let (name, here, there) = (&host.name, &host.here, &host.there);
        if !ip(&format!("netns add {name}")) {
            return None;
        }
        let made = ip(&format!("link add {name}a type veth peer name {name}b"))
            && ip(&format!("link set {name}b netns {name}"))
            && ip(&format!("addr add {here}/30 dev {name}a"))
            && ip(&format!("link set {name}a up"))
            && ip(&format!("-n {name} addr add {there}/30 dev {name}b"))
            && ip(&format!("-n {name} link set {name}b up"))
            && ip(&format!("-n {name} link set lo up"));
        (made && host.reaches_this_one()).then_some(host)
    }
}

impl Host {
    fn reaches_this_one(&self) -> bool {
        let Ok(listener) = TcpListener::bind((self.here.as_str(), 0)) else {
            return false;
        };
        let Ok(address) = listener.local_addr() else {
            return false;
        };
        let (name, here, port) = (&self.name, &self.here, address.port());
        let connect = format!("exec 3<>/dev/tcp/{here}/{port}");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name, "timeout", "10", "bash", "-c"]);
        let run = command.arg(connect).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        ip(&format!("link del {}a", self.name));
        ip(&format!("netns del {}", self.name));
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.is_ok_and(|status| status.success()), "copied");
}

/// Lets a node listen on all addresses for its peers.
fn open_to_others(node: &Node) {
    let config = std::fs::read_to_string(node.config()).expect("a config");
    let (narrow, wide) = (
        format!("\"127.0.0.1:{}\"", node.port),
        format!("\"0.0.0.0:{}\"", node.port),
    );
    assert!(config.contains(&narrow), "{config}");
    std::fs::write(node.config(), config.replacen(&narrow, &wide, 1)).expect("written");
}

#[test]
fn on_two_hosts_the_second_with_a_key_notices_and_stops_before_it_signs() {
    let Some(host) = Host::new() else {
        eprintln!("not tried: this user may make no network namespaces");
        return;
    };
    let cluster = Cluster::make(4);
    cluster.nodes.iter().for_each(open_to_others);
    let first = &cluster.nodes[3];
    // Copied before its first start: key and signer store are in order, so the copy has no reason of its own to doubt.
    let dir = cluster.dir.path().join("twin");
    copy(&first.dir, &dir);
    std::fs::remove_file(dir.join("keys/node.key")).expect("a node key of its own");
    let others: Vec<String> = cluster.nodes[..3]
        .iter()
        .map(|node| format!("\"{}:{}\"", host.here, node.port))
        .collect();
    let config = format!(
        "[node]\nnetwork = \"dev\"\ndatadir = \".\"\n[p2p]\nbind = [\"{}:{}\"]\npeers = [{}]\n[rpc]\nbind = [\"127.0.0.1:{}\"]\n",
        host.there,
        first.port,
        others.join(", "),
        first.port + 1
    );
    std::fs::write(dir.join("timed.toml"), config).expect("written");
    cluster.nodes.iter().for_each(Node::start);
    cluster.nodes.iter().for_each(Node::await_ready);
    cluster.fund(4);

    let twin = Node::new(dir, first.port);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &host.name]);
    command.arg(timed().get_program());
    command.args(["--config", &twin.config(), "--log", "info"]);
    twin.start_as(command);
    wait_until("the second one notices (B7 step 2)", || {
        twin.assert_runs();
        twin.logged().contains("key in use elsewhere")
    });
    let paid = cluster.nodes[0].pay(&cluster.nodes[1].new_address(), "1");
    cluster
        .nodes
        .iter()
        .for_each(|node| node.await_final(&paid));
    let said = twin.logged();
    assert!(
        !said.contains("this masternode signs"),
        "it stops before it signs: {said}"
    );
    cluster.assert_no_fork();
    wait_until("the first one goes on", || {
        first.call("masternode", serde_json::json!(["status"]))["able_to_sign"] == true
    });
}
