//! Seven real processes on a bad network: every pair of nodes speaks through a proxy of this test that delays each packet by
//! 100 ms, stalls one in a hundred like a lost one (TCP sends it again after a while, so that a loss is a stall), lets one node
//! have 1 Mbit/s, and cuts two nodes off for 30 s. Payments go on becoming final on the side that holds a quorum.

use crate::support::{Cluster, wait_until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use timecoin::base::rng::Rng;

const LATENCY: Duration = Duration::from_millis(100);
/// What a lost packet costs: the least time after which TCP sends it again, and its way.
const RETRANSMIT: Duration = Duration::from_millis(300);
/// One packet in so many is lost.
const LOSS: u64 = 100;
/// Bytes of a packet.
const PACKET: usize = 1_400;
/// 1 Mbit/s, as time for a byte.
const SLOW_BYTE: Duration = Duration::from_micros(8);
/// Packets under way on one side of a connection.
const UNDER_WAY: usize = 4_096;
const PARTITION: Duration = Duration::from_secs(30);

/// Nodes that are cut off from the others while `cut` is raised, and the one with the thin line.
struct Shape {
    cut: AtomicBool,
    minority: [usize; 2],
    slow: usize,
}

impl Shape {
    fn is_cut(&self, pair: (usize, usize)) -> bool {
        let far = |i: usize| self.minority.contains(&i);
        self.cut.load(Ordering::Acquire) && far(pair.0) != far(pair.1)
    }
    fn is_slow(&self, pair: (usize, usize)) -> bool {
        pair.0 == self.slow || pair.1 == self.slow
    }
}

type Packet = (Instant, Vec<u8>);

/// Reads one direction of a connection and says when each packet arrives.
fn take_in(
    mut from: TcpStream,
    out: &SyncSender<Packet>,
    shape: &Shape,
    pair: (usize, usize),
    mut dice: Rng,
) {
    let (mut last, mut line_free) = (Instant::now(), Instant::now());
    let mut buffer = [0; PACKET];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        while shape.is_cut(pair) {
            // Nothing gets through and nobody is told, as in a real partition.
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let now = Instant::now();
        let mut due = now + LATENCY;
        if dice.below(LOSS) == 0 {
            due += RETRANSMIT;
        }
        if shape.is_slow(pair) {
            line_free = line_free.max(now) + SLOW_BYTE * count as u32;
            due = due.max(line_free + LATENCY);
        }
        // A stream keeps its order: what follows a lost packet waits for it.
        last = last.max(due);
        if out.send((last, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

/// Hands packets on when they are due.
fn hand_on(packets: &Receiver<Packet>, mut to: TcpStream) {
    for (due, bytes) in packets {
        while let Some(rest) = due.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(rest);
        }
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn one_way(from: &TcpStream, to: &TcpStream, shape: &Arc<Shape>, pair: (usize, usize), seed: u64) {
    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
        return;
    };
    let (sender, receiver) = sync_channel(UNDER_WAY);
    let shape = shape.clone();
    std::thread::spawn(move || take_in(from, &sender, &shape, pair, Rng::new(seed)));
    std::thread::spawn(move || hand_on(&receiver, to));
}

/// A proxy from node `pair.0` to node `pair.1`, which listens at `port`; the proxy's own port.
fn proxy(shape: &Arc<Shape>, pair: (usize, usize), port: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port for the proxy");
    let own = listener.local_addr().expect("an address").port();
    let shape = shape.clone();
    std::thread::spawn(move || {
        let mut seed = (pair.0 * 64 + pair.1) as u64;
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
                continue;
            };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            seed += 1 << 20;
            one_way(&near, &far, &shape, pair, seed);
            one_way(&far, &near, &shape, pair, seed + 1);
        }
    });
    own
}

/// Puts proxies between all nodes: each pair has one, and addresses that the genesis names lead nowhere.
fn put_between(cluster: &Cluster, shape: &Arc<Shape>) {
    let nodes = &cluster.nodes;
    for (i, node) in nodes.iter().enumerate() {
        let proxies = (i + 1..nodes.len()).map(|j| proxy(shape, (i, j), nodes[j].port));
        let peers: Vec<String> = proxies
            .map(|port| format!("\"127.0.0.1:{port}\""))
            .collect();
        let config = std::fs::read_to_string(node.config()).expect("a configuration");
        let lines = config
            .lines()
            .map(|line| match line.starts_with("peers = ") {
                // Nothing but these proxies is dialled: whoever hears of another's proxy would go round the cut.
                true => format!("peers = [{}]\nmax_outbound = 0", peers.join(", ")),
                false => line.to_owned(),
            });
        let lines: Vec<String> = lines.collect();
        std::fs::write(node.config(), lines.join("\n") + "\n").expect("written");
        let genesis = node.dir.join("genesis.toml");
        let text = std::fs::read_to_string(&genesis).expect("a genesis");
        let lines = text
            .lines()
            .map(|line| match line.starts_with("endpoint = ") {
                true => "endpoint = \"127.0.0.1:9\"".to_owned(),
                false => line.to_owned(),
            });
        let lines: Vec<String> = lines.collect();
        std::fs::write(&genesis, lines.join("\n") + "\n").expect("written");
    }
}

#[test]
fn payments_become_final_on_a_bad_network_and_the_minority_comes_back() {
    let cluster = Cluster::make(7);
    let shape = Arc::new(Shape {
        cut: AtomicBool::new(false),
        minority: [5, 6],
        slow: 4,
    });
    put_between(&cluster, &shape);
    cluster.nodes.iter().for_each(|node| node.start());
    cluster.nodes.iter().for_each(|node| node.await_ready());
    let payer = &cluster.nodes[0];
    let address = payer.new_address();
    let pay = || {
        let txid = payer.pay(&address, "1");
        payer.await_final(&txid);
    };
    (0..5).for_each(|_| pay());
    cluster.await_equal_tips(5);

    shape.cut.store(true, Ordering::Release);
    let (began, mut paid) = (Instant::now(), 0);
    // However slow the machine is: a quorum goes on, or a payment is waited for in vain.
    while began.elapsed() < PARTITION || paid < 5 {
        pay();
        paid += 1;
    }
    let cut_for = began.elapsed();
    let height = payer.height();
    for far in shape.minority {
        assert!(
            cluster.nodes[far].height() < height,
            "a minority decides nothing"
        );
    }
    shape.cut.store(false, Ordering::Release);
    let healed = Instant::now();
    wait_until("the minority comes back", || {
        shape
            .minority
            .iter()
            .all(|i| cluster.nodes[*i].height() >= height)
    });
    let took = healed.elapsed();
    println!("{paid} payments final in {cut_for:.0?} of partition; back {took:.1?} after the heal");
    pay();
    cluster.await_equal_tips(height + 1);
    cluster.assert_no_fork();
}
