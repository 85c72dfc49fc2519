//! From a seed to a whole experiment: which network, which faults, which liars, how long; calm and storm in turns.

use crate::base::rng::Rng;
use crate::sim::adversary::{self, Adversary};
use crate::sim::faults::Faults;
use crate::sim::world::{Options, Report, Violation, World};
use crate::types::address::Network;

const SECOND: u64 = 1_000_000;

/// How long a healed network may take until every honest node has reached a new height and every payment that waits is
/// final, µs: one slot to wake an idle network, and four rounds at their longest (three timeouts at their cap).
pub fn liveness_bound(world: &World) -> u64 {
    let params = &world.genesis().params;
    (2 * params.slot_ms + 12 * params.timeout_cap_ms) * 1_000
}

/// The network of a seed. `nodes`: how many masternodes, if that is given.
pub fn options(seed: u64, nodes: Option<usize>) -> Options {
    let mut rng = Rng::new(seed ^ 0x7377_6172_6d00_0000);
    // Drawn even if it is given: the rest of the seed's network must not depend on that.
    let drawn = 4 + rng.below(4) as usize;
    let count = nodes.unwrap_or(drawn);
    let equal = rng.chance(2, 3);
    let power = |rng: &mut Rng| {
        if equal {
            1_000
        } else {
            1_000 + rng.below(1_500)
        }
    };
    let far = rng.chance(1, 3);
    let mut options = Options {
        seed,
        network: if rng.chance(1, 4) {
            Network::Main
        } else {
            Network::Dev
        },
        collaterals: (0..count).map(|_| power(&mut rng)).collect(),
        observers: rng.below(3) as usize,
        dials: (1, 6),
        holders: 8,
        pay_every_ms: [0, 300, 1_000, 10_000][rng.below(4) as usize],
        latency: if far { (5_000, 150_000) } else { (500, 20_000) },
        faults: Faults::random(seed),
        ..more(seed, count)
    };
    changing_sets(&mut options);
    // Twins of more than the protocol bears prove nothing.
    let total: u64 = options.collaterals.iter().sum();
    let (powers, changing) = (options.collaterals.clone(), options.newcomers > 0);
    let least = World::least_after_jail(powers.clone());
    let bears = if changing { least } else { total };
    options.twins.retain(|i| 3 * powers[*i] < bears);
    options
}

/// Every other seed whose slots are short lets masternodes come, go and change. Its own stream, as in [`more`].
fn changing_sets(options: &mut Options) {
    let mut rng = Rng::new(options.seed ^ 0x7365_7473_0000_0000);
    if options.network == Network::Dev && rng.chance(1, 2) {
        options.newcomers = 1 + rng.below(4) as usize;
        options.observers += options.newcomers;
        options.holders += 4 + 2 * options.newcomers;
    }
}

/// What else a seed brings: its own stream, so that what older seeds mean stays what it was.
fn more(seed: u64, count: usize) -> Options {
    let mut rng = Rng::new(seed ^ 0x6d6f_7265_0000_0000);
    let twins = rng.chance(1, 6) && count > 3;
    Options {
        twins: twins
            .then(|| rng.below(count as u64) as usize)
            .into_iter()
            .collect(),
        double_spend: [0, 0, 100, 1_000][rng.below(4) as usize],
        flood_per_s: [0, 0, 0, 5, 40][rng.below(5) as usize],
        tight: rng.chance(1, 4),
        ..Options::devnet(seed, count)
    }
}

/// The liars of a seed: below a third of the power, with the twins.
fn liars(world: &mut World, seed: u64) {
    let mut rng = Rng::new(seed ^ 0x6c69_6172_7300_0000);
    let set = world.validators.clone();
    let total = set.total().0;
    let twins = world.options.twins.clone();
    let power_of = |world: &World, node: usize| {
        let id = world.nodes[node].operator.as_ref().map(|(id, _)| *id);
        id.and_then(|id| set.get(&id)).map_or(total, |v| v.power.0)
    };
    let mut bad: u64 = twins.iter().map(|i| power_of(world, *i)).sum();
    let most = rng.below(3) as usize;
    for i in 0..most {
        let node = rng.below(set.len() as u64) as usize;
        let kind = rng.below(adversary::KINDS as u64) as usize;
        let power = power_of(world, node);
        let bears = if world.changes() {
            world.endures(Some(node), None)
        } else {
            3 * (bad + power) < total
        };
        if bears && world.nodes[node].is_honest() {
            bad += power;
            let liar: Box<dyn Adversary> = adversary::make(kind, seed.wrapping_add(i as u64));
            world.corrupt(node, liar);
        }
    }
}

/// Runs the experiment of `options` for about `seconds` of simulated time: storms, each followed by calm in which the
/// network must recover within [`liveness_bound`].
pub fn run(options: Options, seconds: u64) -> Result<(World, Report), Box<Violation>> {
    let (seed, faults) = (options.seed, options.faults);
    let mut world = World::new(options);
    let mut rng = Rng::new(seed ^ 0x7374_6f72_6d00_0000);
    liars(&mut world, seed);
    while world.now() < seconds * SECOND {
        world.storm(faults);
        world.run((20 + rng.below(100)) * SECOND)?;
        let bound = liveness_bound(&world);
        world.heal_and_settle(bound)?;
    }
    let report = world.report();
    Ok((world, report))
}
