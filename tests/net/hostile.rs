//! Peers that stall, lie, flood or do not read; and what the node does for everybody else meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Node, PATIENCE, Seen, connect, link};
use socket2::{Domain, Protocol, Socket, Type};
use timecoin::net::{Class, CloseReason, ConnId, DialError, Fault, SendOutcome};

fn bytes(length: usize) -> Arc<[u8]> {
    vec![0xA5; length].into()
}

/// A TCP connection from a loopback address of choice: each is a network group of its own.
fn connect_from(source: [u8; 4], target: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect_timeout(&target.into(), PATIENCE).unwrap();
    socket.into()
}

fn wait_frame(node: &Node) -> (ConnId, u8, Vec<u8>) {
    node.wait("a frame", |seen| match seen {
        Seen::Frame(conn, frame_type, payload) => Some((conn, frame_type, payload)),
        _ => None,
    })
}

#[test]
fn random_bytes_instead_of_tls_cost_nothing_but_the_connection() {
    let node = Node::start(1);
    let mut stream = connect(node.p2p());
    stream.write_all(&[0x55; 600]).unwrap();
    while matches!(stream.read(&mut [0; 64]), Ok(count) if count > 0) {}
    node.wait_until("the connection gone", |io| io.pending_count() == 0);
    assert_eq!(node.ask(|io| io.counters().handshakes_failed), 1);
}

#[test]
fn a_stalled_handshake_is_closed() {
    let node = Node::start_with(1, |config| {
        config.timeouts.handshake = Duration::from_millis(100)
    });
    let mut stream = connect(node.p2p());
    // The start of a TLS record that never ends.
    // Should the test be slower than the timeout, the node has hung up already.
    let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]);
    assert!(
        matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)),
        "the node hangs up"
    );
    assert_eq!(node.ask(|io| io.counters().handshakes_stalled), 1);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    node.ask(move |io| io.dial(address, None));
    assert_eq!(
        node.wait_dial_failed(),
        DialError::Timeout,
        "a listener that says nothing is given up"
    );
}

#[test]
fn a_thousand_half_open_connections_leave_the_node_serving() {
    let (node, friend, late) = (Node::start(1), Node::start(2), Node::start(3));
    let ((at_friend, _), _) = link(&friend, &node);
    let target = node.p2p();
    let mut half_open = Vec::new();
    for number in 0..1000u16 {
        let [high, low] = number.to_be_bytes();
        half_open.push(connect_from([127, 1 + high, low, 1], target));
        if half_open.len() > 400 {
            // The test has a bound on files too; the node has closed the oldest long ago.
            half_open.remove(0);
        }
    }
    node.wait_until("all of them judged", |io| io.counters().accepted >= 1001);
    let pending = node.ask(|io| io.pending_count());
    assert!(pending <= 64, "{pending} handshakes pending, bound is 64");
    friend.ask(move |io| io.send(at_friend, 0, Class::Consensus, bytes(10)));
    assert_eq!(wait_frame(&node).2.len(), 10, "those who are in are served");
    // A newcomer gets in while the flood holds all places: the oldest stalled handshake gives way.
    loop {
        late.ask(move |io| io.dial(target, None));
        let connected = late.wait("the end of a dial", |seen| match seen {
            Seen::Connected(..) => Some(true),
            Seen::DialFailed(..) => Some(false),
            _ => None,
        });
        if connected {
            break;
        }
    }
    drop(half_open);
}

#[test]
fn one_address_cannot_take_all_handshakes() {
    let node = Node::start(1);
    let target = node.p2p();
    let held: Vec<_> = (0..20)
        .map(|_| connect_from([127, 9, 9, 9], target))
        .collect();
    node.wait_until("all of them judged", |io| io.counters().accepted == 20);
    assert!(node.ask(|io| io.pending_count()) <= 4);
    drop(held);
}

#[test]
fn another_node_than_expected_is_no_connection() {
    let (a, b) = (Node::start(1), Node::start(2));
    let address = b.p2p();
    let dial = a.ask(move |io| io.dial(address, Some([9; 32])));
    assert_eq!(
        a.wait_dial_failed_id(),
        (dial, DialError::WrongKey { found: b.key })
    );
    // An address of its own: no other test takes this port in between.
    let nobody = TcpListener::bind("127.0.0.66:0")
        .unwrap()
        .local_addr()
        .unwrap();
    a.ask(move |io| io.dial(nobody, None));
    assert_eq!(
        a.wait_dial_failed(),
        DialError::Connect(std::io::ErrorKind::ConnectionRefused)
    );
}

#[test]
fn frames_outside_their_rule_are_a_provable_fault() {
    for (frame_type, length, fault) in [
        (
            8,
            101,
            Fault::Oversized {
                frame_type: 8,
                claimed: 101,
                limit: 100,
            },
        ),
        (
            8,
            20_000,
            Fault::Oversized {
                frame_type: 8,
                claimed: 20_000,
                limit: 100,
            },
        ),
        (77, 1, Fault::RefusedType(77)),
        (77, 20_000, Fault::RefusedType(77)),
    ] {
        let (a, b) = (Node::start(1), Node::start(2));
        let ((at_a, _), _) = link(&a, &b);
        a.ask(move |io| io.send(at_a, frame_type, Class::Consensus, bytes(length)));
        let why = b.wait_closed();
        assert_eq!(why.fault(), Some(&fault), "{why}");
        assert_eq!(
            a.wait_closed().fault(),
            None,
            "being cut is no fault of the other side"
        );
        assert_eq!(b.ask(|io| io.counters().faults), 1);
    }
}

#[test]
fn a_peer_that_does_not_read_is_cut_without_a_fault() {
    let (a, b) = (
        Node::start_with(1, |c| c.timeouts.drain = Duration::from_millis(200)),
        Node::start(2),
    );
    let ((at_a, _), (at_b, _)) = link(&a, &b);
    b.ask(move |io| io.pause_reading(at_b));
    // More than all socket buffers on the way hold.
    a.ask(move |io| {
        for _ in 0..2 {
            io.send(at_a, 5, Class::Sync, bytes(3_900_000));
        }
    });
    let why = a.wait_closed();
    assert_eq!(why, CloseReason::SlowReader);
    assert_eq!(why.fault(), None, "slow is never a fault");
}

#[test]
fn a_full_queue_drops_transactions_and_cuts_a_peer_that_misses_blocks() {
    let (a, b) = (Node::start(1), Node::start(2));
    let ((at_a, _), (at_b, _)) = link(&a, &b);
    b.ask(move |io| io.pause_reading(at_b));
    let outcomes = a.ask(move |io| {
        let send = |io: &mut timecoin::net::Io, class: Class, length| {
            io.send(at_a, class as u8, class, bytes(length))
        };
        let tx: Vec<_> = (0..3).map(|_| send(io, Class::Tx, 450_000)).collect();
        let dropped = io
            .conn_counters(at_a)
            .map(|counters| counters.dropped[Class::Tx.index()]);
        let fork = send(io, Class::Fork, 512 << 10);
        let sync: Vec<_> = (0..3).map(|_| send(io, Class::Sync, 3_900_000)).collect();
        (tx, dropped, fork, sync, send(io, Class::Control, 1))
    });
    let (tx, dropped, fork, sync, after) = outcomes;
    use SendOutcome::{Dropped, Gone, Overflow, Queued};
    assert_eq!(
        tx,
        [Queued, Queued, Dropped],
        "at the bound transactions are dropped"
    );
    assert_eq!(dropped, Some(1), "and counted");
    assert_eq!(fork, Queued, "an empty queue takes any frame");
    assert_eq!(
        sync,
        [Queued, Queued, Overflow],
        "at the bound of blocks the peer is cut"
    );
    assert_eq!(after, Gone);
    assert_eq!(a.wait_closed(), CloseReason::OutboundFull(Class::Sync));
}

#[test]
fn a_paused_peer_is_not_read_and_nothing_is_lost() {
    let (a, b) = (Node::start(1), Node::start(2));
    let ((at_a, _), (at_b, _)) = link(&a, &b);
    b.ask(move |io| io.pause_reading(at_b));
    a.ask(move |io| {
        for number in 0..100u8 {
            io.send(at_a, 4, Class::Tx, Arc::from([number]));
        }
    });
    a.wait_until("all frames sent", move |io| {
        io.conn_counters(at_a)
            .is_some_and(|counters| counters.queued == 0)
    });
    let read = b.ask(move |io| io.conn_counters(at_b).map(|counters| counters.frames_in));
    assert_eq!(read, Some(0), "nothing is handed up during a pause");
    b.ask(move |io| io.resume_reading(at_b));
    for number in 0..100u8 {
        assert_eq!(wait_frame(&b).2, [number]);
    }
}

#[test]
fn last_words_leave_before_a_close() {
    let (a, b) = (Node::start(1), Node::start(2));
    let ((at_a, _), _) = link(&a, &b);
    let closed = a.ask(move |io| {
        io.send(at_a, 1, Class::Control, bytes(40));
        (
            io.close(at_a, "refused"),
            io.close(at_a, "twice"),
            io.send(at_a, 1, Class::Control, bytes(1)),
        )
    });
    assert_eq!(
        closed,
        (true, false, SendOutcome::Gone),
        "a stale id is harmless"
    );
    assert_eq!(a.wait_closed_conn(), (at_a, CloseReason::Local("refused")));
    assert_eq!(wait_frame(&b).2.len(), 40);
    assert_eq!(b.wait_closed(), CloseReason::Peer);
}

#[test]
fn the_bound_on_connections_holds_in_both_directions() {
    let (a, b) = (
        Node::start_with(1, |config| config.max_connections = 1),
        Node::start(2),
    );
    let _links = link(&a, &b);
    let (to_a, to_b) = (a.p2p(), b.p2p());
    a.ask(move |io| io.dial(to_b, None));
    assert_eq!(a.wait_dial_failed(), DialError::TooMany);
    b.ask(move |io| io.dial(to_a, None));
    b.wait_dial_failed();
    assert_eq!(
        a.ask(|io| (io.connection_count(), io.counters().refused)),
        (1, 1)
    );
}

#[test]
fn ipv6_and_deadlines_work() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("not tried: this machine has no IPv6");
        return;
    }
    let six = |config: &mut timecoin::net::NetConfig| {
        config.p2p_listen = vec!["[::1]:0".parse().unwrap()]
    };
    let (a, b) = (Node::start(1), Node::start_with(2, six));
    let ((_, info), _) = link(&a, &b);
    assert!(info.remote.is_ipv6());
    a.ask(|io| io.set_deadline(Some(io.now() + Duration::from_millis(5))));
    a.wait("the deadline", |seen| {
        matches!(seen, Seen::Deadline).then_some(())
    });
}
