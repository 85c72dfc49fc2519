//! Bad input from the network, from callers, from files and from a full disk: a clear error or a dropped connection, and
//! a node that stays up, or stops with the exit code that says why.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use timecoin::base::rng::Rng;
use timecoin::node::client::ClientError;

use crate::stranger;
use crate::support::{Cluster, Node, PATIENCE, run_timed, timed, wait_for, wait_until};

/// A network of one masternode, running.
fn alone() -> Cluster {
    let cluster = Cluster::make(1);
    cluster.nodes[0].start();
    cluster.nodes[0].await_ready();
    cluster
}

/// The node still does its work: a payment becomes final.
fn assert_works(node: &Node) {
    let txid = node.pay(&node.new_address(), "1");
    node.await_final(&txid);
    node.assert_runs();
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Reads until the node closes the connection.
fn assert_dropped(mut stream: TcpStream) {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        let kind = error.kind();
        assert_eq!(
            kind,
            std::io::ErrorKind::ConnectionReset,
            "not dropped: {error}"
        );
    }
}

#[test]
fn noise_on_the_peer_port_is_dropped() {
    let cluster = alone();
    let node = &cluster.nodes[0];
    let mut rng = Rng::new(1);
    let mut noise = Vec::new();
    for size in [1, 100, 20_000] {
        noise.push((0..size).map(|_| rng.next_u64() as u8).collect::<Vec<u8>>());
    }
    // A frame that claims 4 GiB, without and within what looks like a TLS record; an HTTP request; zeros.
    noise.push([&[0xff; 4][..], &[1; 60]].concat());
    noise.push([&[0x16, 3, 1, 0xff, 0xff][..], &[0xff; 60]].concat());
    noise.push(b"GET / HTTP/1.1\r\n\r\n".to_vec());
    noise.push(vec![0; 5_000]);
    for bytes in noise {
        let mut stream = connect(node.port);
        // The node may hang up before everything is written.
        let _ = stream.write_all(&bytes);
        assert_dropped(stream);
    }
    assert_works(node);
}

#[test]
fn a_frame_that_claims_4_gib_ends_the_connection_of_its_sender() {
    let cluster = alone();
    let node = &cluster.nodes[0];
    let claim = u32::MAX.to_le_bytes();
    // Hello as a whole frame; as the first fragment of a longer one.
    let whole = [&claim[..], &[1], &[7; 500]].concat();
    let unit = 16_384u32.to_le_bytes();
    let fragment = [&unit[..], &[0xc0], &claim, &[1], &[7; 500]].concat();
    for (bytes, seed) in [(whole, 1), (fragment, 2)] {
        stranger::say(connect(node.port), [seed; 32], &bytes);
        let told = |line: &str| line.contains("claims 4294967295 bytes");
        wait_until("the log says what was wrong", || {
            node.logged().lines().filter(|line| told(line)).count() == usize::from(seed)
        });
    }
    assert_works(node);
}

#[test]
fn a_thousand_half_open_connections_are_closed_and_keep_nobody_out() {
    timecoin::node::rlimit::make_room_for(1_200);
    let cluster = Cluster::make(2);
    let [early, late] = &cluster.nodes[..] else {
        panic!("two nodes");
    };
    early.start();
    early.await_ready();
    let mut half_open: Vec<TcpStream> = (0..1_000).map(|_| connect(early.port)).collect();
    for (stream, i) in half_open.iter_mut().zip(0..) {
        if i % 2 == 0 {
            // The beginning of a handshake that never goes on.
            let _ = stream.write_all(&[0x16, 3, 1, 2, 0, 1]);
        }
    }
    // Both are needed to decide.
    late.start();
    late.await_ready();
    let txid = early.pay(&early.new_address(), "1");
    late.await_final(&txid);
    half_open.into_iter().for_each(assert_dropped);
    assert_works(early);
}

/// Sends one request with the cookie: HTTP status and body.
fn post(node: &Node, body: &[u8], claimed: usize) -> (u16, String) {
    let cookie = std::fs::read_to_string(node.dir.join(".cookie")).expect("a cookie");
    let url = format!("127.0.0.1:{}", node.port + 1);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {url}\r\nAuthorization: Basic {}\r\nContent-Type: application/json\r\n\
         Content-Length: {claimed}\r\nConnection: close\r\n\r\n",
        base64(cookie.trim_end().as_bytes())
    );
    let mut stream = connect(node.port + 1);
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or_default(), text)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for place in 0..4 {
            let letter = char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63]);
            out.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    out
}

/// The error code that a call is refused with.
fn refusal(node: &Node, method: &str, params: Value) -> i64 {
    match node.try_call(method, params) {
        Err(ClientError::Rpc(failure)) => {
            assert!(!failure.message.is_empty(), "an error says what is wrong");
            failure.code
        }
        other => panic!("{method} must be refused: {other:?}"),
    }
}

#[test]
fn bad_rpc_bodies_are_refused_and_the_node_answers_on() {
    let cluster = alone();
    let node = &cluster.nodes[0];
    let deep = "[".repeat(200_000);
    let deep_params = format!(
        "{{\"id\":1,\"method\":\"help\",\"params\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for body in ["", "{", "1", "\"x\"", "\u{0}\u{1}", &deep, &deep_params] {
        let (status, text) = post(node, body.as_bytes(), body.len());
        let start = &body[..body.len().min(20)];
        assert!(
            (400..=500).contains(&status) && text.contains("-32700"),
            "{start}: {status} {text}"
        );
    }
    for body in ["{}", "{\"id\":1,\"method\":7}", "[1,2]"] {
        let (_, text) = post(node, body.as_bytes(), body.len());
        assert!(text.contains("-32600"), "{body}: {text}");
    }
    let (status, _) = post(node, b"{}", 4_000_000_000);
    assert_eq!(status, 413, "a body of 4 GB is refused before it is read");
    let (status, _) = post(node, &[b' '; 1_100_000], 1_100_000);
    assert_eq!(status, 413, "B2: a body has at most 1 MB");
    assert_eq!(refusal(node, "nonsense", json!([])), -32601);
    assert_eq!(refusal(node, "getblockhash", json!(["one"])), -3);
    assert_eq!(refusal(node, "getblockhash", json!([{"a": []}])), -3);
    assert_eq!(refusal(node, "getblockhash", json!([-1])), -8);
    assert_eq!(refusal(node, "sendtoaddress", json!(["nobody", "1"])), -5);
    assert_eq!(
        refusal(node, "sendtoaddress", json!([node.new_address(), "-1"])),
        -3
    );
    assert_eq!(refusal(node, "sendrawtransaction", json!(["00ff"])), -22);
    assert_works(node);
}

/// Runs the node's `timed` until it ends by itself: exit code and message.
fn refused(node: &Node) -> (Option<i32>, String) {
    run_timed(&["--config", &node.config()])
}

fn assert_refused(node: &Node, code: i32, why: &str) {
    let (found, said) = refused(node);
    assert_eq!(found, Some(code), "{why}: {said}");
    assert!(!said.trim().is_empty(), "{why}: it says so");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("listed") {
        let from = entry.expect("an entry").path();
        let name = from.file_name().expect("a name");
        std::fs::copy(&from, to.join(name)).expect("copied");
    }
}

#[test]
fn what_is_wrong_with_files_ports_and_keys_is_said_with_an_exit_code() {
    let cluster = alone();
    let node = &cluster.nodes[0];
    assert_refused(node, 69, "one process for a data directory");

    let other = Cluster::make(1);
    let stranger = &other.nodes[0];
    let config = std::fs::read_to_string(stranger.config()).expect("a config");
    let write = |text: &str| std::fs::write(stranger.config(), text).expect("written");
    write(&config.replace(&stranger.port.to_string(), &node.port.to_string()));
    assert_refused(stranger, 69, "the port is in use");
    write(&format!("{config}\n[node]\nnonsense = 1\n"));
    assert_refused(stranger, 78, "a key that nobody knows");
    write(&config);

    // The operator key of a running node in another data directory of this host.
    let twin = other.dir.path().join("twin");
    std::fs::create_dir_all(&twin).expect("a directory");
    copy(&stranger.dir.join("keys"), &twin.join("keys"));
    copy(&node.dir.join("keys"), &twin.join("keys"));
    for name in ["genesis.toml", "timed.toml"] {
        std::fs::copy(node.dir.join(name), twin.join(name)).expect("copied");
    }
    private(&twin);
    private(&twin.join("keys"));
    let twin = Node::new(twin, stranger.port);
    let text = config_on_ports_of(node, stranger);
    std::fs::write(twin.config(), text).expect("written");
    assert_refused(&twin, 69, "an operator key votes in one process");

    // Ledgers that are none, or another network's.
    let ledger = stranger.dir.join("lmdb");
    assert_eq!(node.stop(), Some(0), "a clean stop");
    copy(&node.dir.join("lmdb"), &ledger);
    assert_refused(stranger, 78, "the ledger of another network");
    let data = ledger.join("data.mdb");
    let size = std::fs::metadata(&data).expect("a file").len();
    std::fs::write(&data, vec![0x5a; size as usize]).expect("written");
    assert_refused(stranger, 65, "garbage where a ledger should be");
    std::fs::remove_dir_all(&ledger).expect("removed");
    std::fs::write(&ledger, "a file").expect("written");
    assert_refused(stranger, 78, "a file where a directory should be");
    std::fs::remove_file(&ledger).expect("removed");
    stranger.start();
    stranger.await_ready();
    assert_works(stranger);
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(path, mode).expect("chmod");
}

/// The configuration of `node` with the ports of `other`.
fn config_on_ports_of(node: &Node, other: &Node) -> String {
    let text = std::fs::read_to_string(node.config()).expect("a config");
    let text = text.replace(&node.port.to_string(), &other.port.to_string());
    text.replace(&(node.port + 1).to_string(), &(other.port + 1).to_string())
}

/// A shell that starts `timed` where a file may have `kib` KiB, or any size; beyond it writes fail as on a full disk.
fn start_on_small_disk(node: &Node, limit: &str) {
    let mut command = std::process::Command::new("sh");
    let script = format!("trap '' XFSZ; {limit} exec \"$0\" --config \"$1\"");
    let program = timed().get_program().to_owned();
    command
        .args(["-c", &script])
        .arg(program)
        .arg(node.config());
    node.start_as(command);
}

/// Greatest size of a file that the running node may write.
fn limit_files(node: &Node, size: Option<u64>) {
    let limit = Rlimit {
        current: size,
        maximum: None,
    };
    prlimit(Some(node.pid()), Resource::Fsize, limit).expect("a limit");
}

fn size_of(node: &Node, store: &str) -> u64 {
    let file = node.dir.join(store).join("data.mdb");
    std::fs::metadata(file).map_or(0, |data| data.len())
}

#[test]
fn a_full_disk_is_said_and_waited_for_and_nothing_is_lost() {
    let cluster = Cluster::make(1);
    let node = &cluster.nodes[0];
    start_on_small_disk(node, "");
    node.await_ready();
    let address = node.new_address();
    let first = node.pay(&address, "1");
    node.await_final(&first);
    limit_files(
        node,
        Some(size_of(node, "lmdb").max(size_of(node, "signer"))),
    );
    let mut paid = vec![first];
    wait_until("the node says that the disk is full", || {
        // Each payment makes the ledger grow; those that the node cannot keep are refused.
        paid.extend(node.try_call("sendtoaddress", json!([address, "1"])).ok());
        let (status, reasons) = node.health();
        status == 503 && reasons.contains("no space")
    });
    node.assert_runs();
    assert!(node.tip().is_some(), "it answers while the disk is full");
    limit_files(node, None);
    paid.iter().for_each(|txid| node.await_final(txid));
    wait_for("it is healthy again", || {
        (node.health().0 == 200).then_some(())
    });
    assert_eq!(node.stop(), Some(0), "a clean stop");
    node.start();
    node.await_ready();
    paid.iter().for_each(|txid| node.await_final(txid));
    assert_works(node);
}

#[test]
fn a_disk_that_is_full_at_the_first_start_ends_it_with_74() {
    let cluster = Cluster::make(1);
    let node = &cluster.nodes[0];
    start_on_small_disk(node, "ulimit -f 8;");
    assert_eq!(node.await_end().code(), Some(74), "{}", node.logged());
    assert!(
        node.logged().contains("space"),
        "it says why: {}",
        node.logged()
    );
    node.start();
    node.await_ready();
    assert_works(node);
}
