//! Networks of peer machines that find one another (P4), on a network that carries every frame at once.

use crate::base::rng::Rng;
use crate::base::time::{MonoUs, Now, WallMs};
use crate::crypto::hash::Hash;
use crate::crypto::keys::SecretKey;
use crate::p2p::address::Group;
use crate::p2p::book::Book;
use crate::p2p::machine::{Config, Effect, Input, Link, Machine, proof_hash};
use crate::p2p::messages::*;
use crate::types::ids::*;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

fn secret(i: usize) -> SecretKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(i as u64).to_le_bytes());
    SecretKey::from_seed(&seed)
}

/// Each in a network of its own.
fn address(i: usize) -> SocketAddr {
    SocketAddr::from(([60, (i / 200) as u8, (i % 200) as u8, 1], 24_100))
}

fn config(i: usize, seeds: &[usize]) -> Config {
    Config {
        chain: ChainId(Hash([9; 32])),
        node_key: secret(i).public(),
        operator: None,
        agent: "test".into(),
        supports: Branch(0),
        endpoint: Some(address(i).to_string().into_bytes().try_into().unwrap()),
        targets: Vec::new(),
        ping_interval_ms: 600_000,
        inbound_max: 61,
        status: Status::default(),
        seeds: seeds.iter().map(|s| address(*s).to_string()).collect(),
        outbound_max: 8,
        require_stake: false,
        allow_private: false,
        book: Book::new([i as u8; 32]),
        anchors: Vec::new(),
        bans: Vec::new(),
        started: WallMs(0),
        seed: i as u64,
    }
}

/// Machines and the connections between them: (node, its name of it) at both ends.
struct Net {
    nodes: BTreeMap<SocketAddr, Machine>,
    keys: BTreeMap<SocketAddr, usize>,
    ends: BTreeMap<(SocketAddr, PeerId), (SocketAddr, PeerId)>,
    next: u64,
    now: Now,
    /// Addresses where nobody is are dialled so often.
    misses: usize,
}

impl Net {
    fn new() -> Net {
        Net {
            nodes: BTreeMap::new(),
            keys: BTreeMap::new(),
            ends: BTreeMap::new(),
            next: 0,
            now: Now::default(),
            misses: 0,
        }
    }

    fn join(&mut self, i: usize, config: Config) {
        self.keys.insert(address(i), i);
        self.nodes.insert(address(i), Machine::new(config));
    }

    fn run(&mut self, ms: u64) {
        let end = self.now.mono.plus_ms(ms);
        while self.now.mono < end {
            self.now.mono = self.now.mono.plus_ms(250);
            self.now.wall = WallMs(self.now.mono.0 / 1_000);
            let all: Vec<SocketAddr> = self.nodes.keys().copied().collect();
            for at in all {
                self.feed(at, Input::Tick);
            }
        }
    }

    fn feed(&mut self, at: SocketAddr, input: Input) {
        let mut todo = VecDeque::from([(at, input)]);
        while let Some((at, input)) = todo.pop_front() {
            let Some(node) = self.nodes.get_mut(&at) else {
                continue;
            };
            for effect in node.handle(self.now, input) {
                match effect {
                    Effect::Dial(target, to) => self.dial(at, target, &to, &mut todo),
                    Effect::Send(peer, message) => {
                        if let Some((far, name)) = self.ends.get(&(at, peer)) {
                            todo.push_back((*far, Input::Frame(*name, message)));
                        }
                    }
                    Effect::Close { peer, fault, why } => {
                        assert!(!fault, "P3: {why}");
                        if let Some((far, name)) = self.ends.remove(&(at, peer)) {
                            self.ends.remove(&(far, name));
                            todo.push_back((far, Input::Closed(name)));
                            todo.push_back((at, Input::Closed(peer)));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn dial(
        &mut self,
        at: SocketAddr,
        target: usize,
        to: &str,
        todo: &mut VecDeque<(SocketAddr, Input)>,
    ) {
        let far: SocketAddr = to.parse().unwrap();
        if !self.nodes.contains_key(&far) {
            self.misses += 1;
            return todo.push_back((at, Input::DialFailed(target)));
        }
        self.next += 2;
        let names = [PeerId(self.next), PeerId(self.next + 1)];
        self.ends.insert((at, names[0]), (far, names[1]));
        self.ends.insert((far, names[1]), (at, names[0]));
        let mut exporter = [0; 32];
        exporter[..8].copy_from_slice(&self.next.to_le_bytes());
        for (here, there, peer, target) in
            [(at, far, names[0], Some(target)), (far, at, names[1], None)]
        {
            let link = Link {
                peer,
                key: secret(self.keys[&there]).public(),
                target,
                exporter,
                address: there.to_string(),
                remote: Some(there),
            };
            todo.push_back((here, Input::Connected(link)));
        }
    }

    fn outbound(&self, at: SocketAddr) -> Vec<SocketAddr> {
        let peers = self.nodes[&at]
            .peers()
            .filter(|(_, facts, ..)| !facts.inbound);
        peers
            .map(|(_, facts, ..)| facts.address.parse().unwrap())
            .collect()
    }
}

#[test]
fn a_node_that_knows_one_address_finds_the_network() {
    const NODES: usize = 40;
    let mut net = Net::new();
    for i in 0..NODES {
        // Everybody knows the one that came before, the newcomer too.
        let seeds = if i == 0 { vec![] } else { vec![i - 1] };
        net.join(i, config(i, &seeds));
        net.run(5_000);
    }
    net.run(1_200_000);
    let newcomer = NODES - 1;
    assert_eq!(
        net.outbound(address(newcomer)).len(),
        8,
        "its slots are full"
    );
    let known = net.nodes[&address(newcomer)].book().len();
    assert!(known >= NODES / 2, "it has heard of most others: {known}");
    // The graph is connected: from the newcomer everybody is reached.
    let (mut seen, mut todo) = (BTreeSet::new(), vec![address(newcomer)]);
    while let Some(at) = todo.pop() {
        if seen.insert(at) {
            let peers = net.nodes[&at].peers();
            let far = net.ends.iter().filter(|((node, _), _)| *node == at);
            let far: Vec<SocketAddr> = far.map(|(_, (far, _))| *far).collect();
            assert!(peers.count() <= far.len());
            todo.extend(far);
        }
    }
    assert_eq!(seen.len(), NODES, "P4: one network");
    // After a restart anchors and book bring it back without the seed.
    let old = &net.nodes[&address(newcomer)];
    let (bytes, anchors) = (old.book().save(&old.anchors()), old.anchors());
    assert!(!anchors.is_empty());
    let gone: Vec<_> = net.ends.iter().map(|(a, b)| (*a, *b)).collect();
    for ((at, _), (far, name)) in gone {
        if at == address(newcomer) {
            net.feed(far, Input::Closed(name));
        }
    }
    net.ends
        .retain(|(at, _), (far, _)| *at != address(newcomer) && *far != address(newcomer));
    let (book, told) = Book::load(&bytes, &mut Rng::new(1)).unwrap();
    assert_eq!(told, anchors, "anchors are on disk");
    let again = Config {
        book,
        anchors: told,
        ..config(newcomer, &[])
    };
    net.join(newcomer, again);
    net.run(1_000);
    let back: BTreeSet<SocketAddr> = net.outbound(address(newcomer)).into_iter().collect();
    assert!(
        anchors.iter().all(|a| back.contains(a)),
        "P4: anchors first: {back:?}"
    );
}

#[test]
fn an_attacker_with_1000_addresses_in_4_groups_cannot_take_all_slots() {
    let mut net = Net::new();
    for i in 0..20 {
        net.join(i, config(i, if i == 0 { &[] } else { &[0] }));
    }
    net.run(60_000);
    // 1,000 addresses of 4 networks, each running a node that answers.
    let evil = |n: usize| SocketAddr::from(([66, 66, (n % 4) as u8, (n / 4) as u8], 24_100));
    for n in 0..1_000 {
        let mut config = config(5_000 + n, &[0]);
        config.outbound_max = 0;
        config.endpoint = Some(evil(n).to_string().into_bytes().try_into().unwrap());
        net.keys.insert(evil(n), 5_000 + n);
        net.nodes.insert(evil(n), Machine::new(config));
    }
    let victim = address(500);
    let mut own = config(500, &[0]);
    let mut rng = Rng::new(3);
    // They have told the victim of all of their addresses before it found anybody else, from each of their networks.
    for n in 0..1_000 {
        for source in 0..4 {
            own.book
                .add(WallMs(0), evil(n), Group::V4([66, 66, source]), &mut rng);
        }
    }
    net.keys.insert(victim, 500);
    net.nodes.insert(victim, Machine::new(own));
    let mut feeding = 0;
    while feeding < 1_200_000 {
        feeding += 10_000;
        net.now.mono = net.now.mono.plus_ms(250);
        for _ in 0..40 {
            net.now.mono = net.now.mono.plus_ms(250);
            net.now.wall = WallMs(net.now.mono.0 / 1_000);
            net.feed(victim, Input::Tick);
        }
    }
    let slots = net.outbound(victim);
    let bad = slots
        .iter()
        .filter(|a| a.ip().to_string().starts_with("66.66."))
        .count();
    assert!(slots.len() >= 6, "{slots:?}");
    assert!(
        bad <= 4,
        "P4: at most one slot in each network group: {slots:?}"
    );
    assert!(slots.len() > bad, "P4: the attacker has not all slots");
}

#[test]
fn places_of_observers_are_shared_between_networks_and_masternodes_always_get_in() {
    let mut config = config(1, &[]);
    config.inbound_max = 10;
    let mut machine = Machine::new(config);
    let now = Now::default();
    let operator = |i: usize| (MasternodeId(Hash([i as u8; 32])), secret(i + 900).public());
    machine.handle(now, Input::Operators([operator(3)].into()));
    let join = |machine: &mut Machine, i: u64, ip: [u8; 4], proof: bool| {
        let peer = PeerId(i);
        let link = Link {
            peer,
            key: secret(i as usize + 2_000).public(),
            target: None,
            exporter: [1; 32],
            address: String::new(),
            remote: Some(SocketAddr::from((ip, 1))),
        };
        let mut out = machine.handle(now, Input::Connected(link));
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            chain: ChainId(Hash([9; 32])),
            agent: Default::default(),
            supports: Branch(0),
            endpoint: None,
            status: Status::default(),
            probe: false,
        };
        out.extend(machine.handle(now, Input::Frame(peer, Message::Hello(Box::new(hello)))));
        if proof {
            let (id, operator) = (operator(3).0, secret(903));
            let message = crate::p2p::machine::proof_hash(
                ChainId(Hash([9; 32])),
                &[1; 32],
                true,
                &secret(i as usize + 2_000).public(),
                &secret(1).public(),
                &id,
            );
            let proof = OperatorProof {
                masternode: id,
                operator: operator.public(),
                signature: operator.sign(&message),
            };
            out.extend(machine.handle(now, Input::Frame(peer, Message::OperatorProof(proof))));
        }
        let closed: Vec<PeerId> = out
            .iter()
            .filter_map(|e| match e {
                Effect::Close { peer, .. } => Some(*peer),
                _ => None,
            })
            .collect();
        for peer in &closed {
            machine.handle(now, Input::Closed(*peer));
        }
        closed
    };
    for i in 0..10 {
        assert!(join(&mut machine, i, [70, 1, 1 + (i / 7) as u8, i as u8], false).is_empty());
    }
    assert_eq!(machine.peers().count(), 10);
    let gone = join(&mut machine, 20, [80, 1, 1, 1], false);
    assert_eq!(
        gone,
        [PeerId(6)],
        "the youngest of the largest group gives way"
    );
    assert_eq!(machine.peers().count(), 10);
    join(&mut machine, 21, [70, 1, 1, 99], false);
    assert_eq!(
        machine.peers().count(),
        10,
        "one more of the largest group waits outside"
    );
    join(&mut machine, 22, [70, 1, 1, 98], true);
    assert_eq!(
        machine.peers().count(),
        11,
        "B2: places of masternodes are reserved"
    );
    for i in 30..60 {
        join(&mut machine, i, [90, 1, 1, 1], false);
    }
    let of_one = machine.peers().filter(|(id, ..)| id.0 >= 30).count();
    assert!(of_one <= 8, "one address has few places: {of_one}");
}

#[test]
fn require_stake_admits_only_masternodes_also_of_those_it_dials() {
    for dialled in [false, true] {
        let mut own = config(1, &[]);
        own.require_stake = true;
        own.targets = vec![address(2).to_string()];
        let mut machine = Machine::new(own);
        let now = Now::default();
        let peer = PeerId(1);
        let link = Link {
            peer,
            key: secret(2).public(),
            target: dialled.then_some(0),
            exporter: [1; 32],
            address: String::new(),
            remote: Some(address(2)),
        };
        machine.handle(now, Input::Connected(link));
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            chain: ChainId(Hash([9; 32])),
            agent: Default::default(),
            supports: Branch(0),
            endpoint: None,
            status: Status::default(),
            probe: false,
        };
        let out = machine.handle(now, Input::Frame(peer, Message::Hello(Box::new(hello))));
        assert!(
            !out.iter().any(|e| matches!(e, Effect::Up(..))),
            "P1: not yet admitted"
        );
        let out = machine.handle(now, Input::Frame(peer, Message::TxInv(Default::default())));
        assert!(
            out.iter().all(|e| !matches!(e, Effect::Deliver(..))),
            "nothing is taken from it"
        );
        let ping = Input::Frame(peer, Message::Ping(Status::default()));
        let out = machine.handle(now, ping);
        let pong = |e: &Effect| matches!(e, Effect::Send(_, Message::Pong(_)));
        assert!(
            out.len() == 1 && out.iter().all(pong),
            "it stays until it hears why it must go: {out:?}"
        );
        let later = Now {
            wall: WallMs(6_000),
            mono: MonoUs(6_000_000),
        };
        let out = machine.handle(later, Input::Tick);
        let rejected = |e: &Effect| matches!(e, Effect::Send(_, Message::Reject(_)));
        let closed = |e: &Effect| matches!(e, Effect::Close { fault: false, .. });
        assert!(
            out.iter().any(rejected) && out.iter().any(closed),
            "P1: {out:?}"
        );
    }
}

#[test]
fn a_peer_whose_stake_is_gone_goes_too_where_stake_is_asked_for() {
    let mut own = config(1, &[]);
    own.require_stake = true;
    let mut machine = Machine::new(own);
    let now = Now::default();
    let masternode = MasternodeId(Hash([2; 32]));
    let operators = |id: MasternodeId| [(id, secret(102).public())].into();
    machine.handle(now, Input::Operators(operators(masternode)));
    let (peer, key) = (PeerId(1), secret(2).public());
    let link = Link {
        peer,
        key,
        target: None,
        exporter: [1; 32],
        address: String::new(),
        remote: Some(address(2)),
    };
    machine.handle(now, Input::Connected(link));
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        chain: ChainId(Hash([9; 32])),
        agent: Default::default(),
        supports: Branch(0),
        endpoint: None,
        status: Status::default(),
        probe: false,
    };
    machine.handle(now, Input::Frame(peer, Message::Hello(Box::new(hello))));
    let (chain, verifier) = (ChainId(Hash([9; 32])), secret(1).public());
    let message = proof_hash(chain, &[1; 32], true, &key, &verifier, &masternode);
    let proof = OperatorProof {
        masternode,
        operator: secret(102).public(),
        signature: secret(102).sign(&message),
    };
    let out = machine.handle(now, Input::Frame(peer, Message::OperatorProof(proof)));
    let up = out.iter().any(|e| matches!(e, Effect::Up(..)));
    assert!(up, "P1: 1,000 TIME behind it: admitted: {out:?}");
    let out = machine.handle(
        now,
        Input::Operators(operators(MasternodeId(Hash([3; 32])))),
    );
    let gone = |e: &Effect| matches!(e, Effect::Close { fault: false, .. });
    assert!(out.iter().any(gone), "P1: slashed or gone: {out:?}");
}

/// B2: masternodes of a great set that start together dial one another, and each pair has two connections until both have
/// greeted.
#[test]
fn connections_of_both_ways_stay_within_the_bound() {
    let mut machine = Machine::new(config(0, &[]));
    let now = Now {
        wall: WallMs(0),
        mono: MonoUs(0),
    };
    let mut connect = |peer: u64, key: usize, target: Option<usize>| {
        let link = Link {
            peer: PeerId(peer),
            key: secret(key).public(),
            target,
            exporter: [7; 32],
            address: "a".into(),
            remote: Some(address(key)),
        };
        let effects = machine.handle(now, Input::Connected(link));
        let refused = |e: &Effect| matches!(e, Effect::Close { .. });
        (!effects.iter().any(refused), machine.sizes())
    };
    let all = 511;
    for i in 1..=all {
        assert!(connect(i as u64, i, Some(i)).0, "the own dial of {i}");
    }
    let mut taken = 0;
    for i in 1..=all {
        let (stays, sizes) = connect(1_000 + i as u64, i, None);
        taken += usize::from(stays);
        let over = sizes.iter().find(|size| size.held > size.bound);
        assert_eq!(over, None, "B2 with {taken} second connections");
    }
    assert_eq!(all + taken, crate::base::limits::PEER_COUNT_MAX);
}
