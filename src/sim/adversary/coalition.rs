//! A coalition of more than a third: every member runs two nodes with its key, one on each side of a split network, so that
//! both sides have a quorum and the chain forks. Each node on its own follows the rules; the key does not.

use crate::base::rng::Rng;
use crate::sim::world::{Options, World};
use crate::types::ids::MasternodeId;
use std::collections::BTreeSet;

/// Who stands where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coalition {
    /// Masternodes (and nodes) of the honest on each side.
    pub honest: [Vec<usize>; 2],
    /// Masternodes of the coalition.
    pub members: Vec<usize>,
    /// All nodes of each side: the honest, and one of each member's two.
    pub sides: [Vec<usize>; 2],
}

impl Coalition {
    /// A network of `first` honest masternodes on one side, `second` on the other and `members` of the coalition, all of equal
    /// power. It forks if each side with the coalition is a quorum: 3 (first + members) > 2 (first + second + members), and
    /// the same for `second`.
    pub fn new(seed: u64, first: usize, second: usize, members: usize) -> (Coalition, Options) {
        let honest = first + second;
        let count = honest + members;
        let members: Vec<usize> = (honest..count).collect();
        let twins = count..count + members.len();
        let honest = [(0..first).collect(), (first..honest).collect()];
        let side = |honest: &Vec<usize>, own: Vec<usize>| [honest.clone(), own].concat();
        let coalition = Coalition {
            sides: [
                side(&honest[0], members.clone()),
                side(&honest[1], twins.collect()),
            ],
            honest,
            members: members.clone(),
        };
        let options = Options {
            twins: members,
            ..Options::devnet(seed, count)
        };
        (coalition, options)
    }

    /// The smallest one of a seed: 4, 7 or 10 masternodes.
    pub fn of(seed: u64) -> (Coalition, Options) {
        let (half, members) = [(1, 2), (2, 3), (3, 4)][Rng::new(seed).below(3) as usize];
        Coalition::new(seed, half, half, members)
    }

    /// Ids of the members.
    pub fn ids(&self, world: &World) -> BTreeSet<MasternodeId> {
        let of = |i: &usize| world.nodes[*i].operator.as_ref().map(|(id, _)| *id);
        self.members.iter().filter_map(of).collect()
    }

    /// Splits the network between the sides; [`World::reconnect`] ends it.
    pub fn split(&self, world: &mut World) {
        world.isolate(&self.sides[1]);
    }
}
