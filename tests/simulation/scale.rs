//! Many nodes far apart, on a network that works: time to finality, traffic, and what a simulated hour costs.
//!
//! `make sim-scale` prints the table that ARCHITECTURE.md shows. Mainnet parameters; every pair of nodes 20 to 120 ms
//! apart one way, and up to a quarter more from frame to frame; disks that take 0.5 to 4 ms to sync. Masternodes are
//! connected with one another. To each come nine observers, each of which dials 4 masternodes, as
//! its software chooses them, and 12 nodes of any kind.
//! Somebody pays every 5 seconds at any node. Bytes are those of frames, without TLS and TCP.

use super::{SECOND, fail, given, speed, this_test};
use std::time::Instant;
use timecoin::p2p::messages::{Class, Message};
use timecoin::sim::world::{Options, World};
use timecoin::types::address::Network;

const OBSERVERS_EACH: usize = 9;

fn options(masternodes: usize) -> Options {
    Options {
        network: Network::Main,
        observers: OBSERVERS_EACH * masternodes,
        dials: (0, 12),
        holders: 100,
        pay_every_ms: 5_000,
        latency: (20_000, 120_000),
        ..Options::devnet(5, masternodes)
    }
}

fn go_on(world: &mut World, masternodes: usize, seconds: u64) {
    if let Err(violation) = world.run(seconds * SECOND) {
        fail(&options(masternodes), &violation, &this_test());
    }
}

/// Frames of a class that the whole network sent.
fn frames(world: &World, class: Class) -> u64 {
    let counted = world.network.by_code.iter();
    let of_class = counted.filter(|(code, _)| Message::rule(**code).is_some_and(|r| r.1 == class));
    of_class.map(|(_, (frames, _))| frames).sum()
}

fn mean(of: &[u64]) -> u64 {
    of.iter().sum::<u64>() / (of.len() as u64).max(1)
}

#[test]
fn votes_of_sixteen_masternodes_go_once_to_each() {
    let mut world = World::new(options(16));
    go_on(&mut world, 16, 20);
    let report = world.report();
    assert!(report.payments.1 >= 2, "{report:?}");
    // Two votes of each to each other one, below 200 bytes each; greetings bring frames without votes, below 20 bytes.
    let (frames, bytes) = world.network.by_code[&Message::Votes(Default::default()).code()];
    let blocks = report.height.0;
    let expected = 2 * 16 * 15 * (blocks + 1) * 200 + 20 * frames;
    assert!(
        bytes <= expected,
        "S8: {bytes} bytes of votes, {blocks} blocks"
    );
    let late = world.checker.heights.iter().filter(|h| **h < report.height);
    assert!(late.count() <= 80, "S8: observers follow: {report:?}");
    assert!(report.finality_us.1 < 1_500_000, "{report:?}");
}

/// As many masternodes as a set may have, over two slots of a minute: `cargo test --release --test simulation
/// scale::the_greatest -- --ignored --nocapture`.
#[test]
#[ignore = "minutes, and only in a release build"]
fn the_greatest_set_decides_attests_and_is_rewarded() {
    let (count, begun) = (512, Instant::now());
    let mut world = World::new(Options {
        network: Network::Test,
        observers: 0,
        pay_every_ms: 20_000,
        ..options(count)
    });
    go_on(&mut world, count, 130);
    let state = world.state_of(0).expect("it runs");
    let entries = || state.registry().entries().iter();
    let earning = entries().filter(|e| e.accrued.0 > 0).count();
    let attested = entries().map(|e| e.present).max();
    assert_eq!(attested, Some(2), "M4: both slots are attested");
    println!("{}", row(&world, count));
    println!("{earning} earned; {:?} real", begun.elapsed());
    assert_eq!(state.validators.len(), count);
    assert!(earning > count * 9 / 10, "M6: {earning} of {count} earned");
}

/// One line of the table: what has been measured of `world` so far.
fn row(world: &World, masternodes: usize) -> String {
    let (report, network) = (world.report(), &world.network);
    let seconds = (world.now() / SECOND).max(1);
    let (blocks, payments) = (report.height.0.max(1), report.payments.1.max(1));
    let (consensus, txs) = (frames(world, Class::Consensus), frames(world, Class::Tx));
    let other = (report.sent.1 - consensus - txs) / seconds;
    let ms = |(middle, late): (u64, u64)| format!("{} {}", middle / 1_000, late / 1_000);
    let rate = |range: std::ops::Range<usize>| {
        let (sent, received) = (&network.bytes[range.clone()], &network.received[range]);
        format!("{} / {}", mean(sent) / seconds, mean(received) / seconds)
    };
    format!(
        "{masternodes} {} | {seconds} {} {} | {} | {} | {} {} | {} | {other} | {} | {}",
        world.nodes.len(),
        report.height,
        report.payments.1,
        ms(report.finality_us),
        ms(report.finality_own_us),
        consensus / blocks,
        consensus / blocks / masternodes as u64,
        txs / payments,
        rate(0..masternodes),
        rate(masternodes..world.nodes.len()),
    )
}

#[test]
#[ignore = "a measurement: make sim-scale"]
fn table() {
    let seconds = given("SECONDS").unwrap_or(3_600);
    let counts = match given("NODES") {
        Some(masternodes) => vec![masternodes as usize],
        None => vec![4, 16, 64, 100],
    };
    println!(
        "masternodes, nodes | seconds, blocks, payments | first final: p50, p99 ms | final at the payer's node: p50, p99 ms \
         | consensus frames a block, by masternode | tx frames a payment | other frames a second \
         | bytes a second, masternode: sent / received | observer"
    );
    for count in counts {
        let begun = Instant::now();
        let mut world = World::new(options(count));
        while world.now() < seconds * SECOND {
            let left = seconds - world.now() / SECOND;
            go_on(&mut world, count, left.min(600));
            println!("{}", row(&world, count));
        }
        for (code, (frames, bytes)) in &world.network.by_code {
            let name = Message::name(*code).unwrap_or("?");
            println!("    {name}: {frames} frames, {bytes} bytes");
        }
        let report = world.report();
        println!(
            "{} events, {}",
            report.events,
            speed(report.simulated_us / SECOND, begun)
        );
    }
}
