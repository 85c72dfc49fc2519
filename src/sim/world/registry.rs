//! Masternodes that come and go while a world runs: their keys, their registry transactions, their entries.

use super::World;
use crate::ledger::registry::Entry;
use crate::ledger::state::State;
use crate::sim::kit::{Role, key};
use crate::sim::node::Node;
use crate::types::address::Program;
use crate::types::ids::*;
use crate::types::masternode::Evidence;

impl World {
    /// Gives an observer the operator key of masternode number `node`, before it starts: it speaks for whoever registers it.
    pub fn equip(&mut self, node: usize) {
        let secret = key(Role::Operator, node);
        self.nodes[node].operator = Some((MasternodeId::default(), secret));
    }

    /// Registers masternode number `node` at `endpoint`; a node of that number must have been equipped to speak for it.
    pub fn register(&mut self, node: usize, endpoint: &str) -> MasternodeId {
        let tx = self.clients.register(node, endpoint);
        let id = MasternodeId(tx.txid.0);
        let known = self.nodes.get_mut(node);
        if let Some(operator) = known.and_then(|n| n.operator.as_mut()) {
            operator.0 = id;
        }
        self.submit(tx);
        id
    }

    /// The owner of masternode number `node` lets it go.
    pub fn unregister(&mut self, node: usize, id: MasternodeId) {
        let tx = self.clients.unregister(node, id);
        self.submit(tx);
    }

    /// An entry of the registry as the first honest node that runs has it.
    pub fn entry(&self, id: &MasternodeId) -> Option<&Entry> {
        let running = |n: &&Node| n.is_honest() && n.running.is_some();
        let nodes = self.nodes.iter().filter(running);
        let node = nodes.max_by_key(|n| self.checker.heights[n.index])?;
        node.running.as_ref()?.replica.state().registry().get(id)
    }

    /// The ledger of a node that runs, after its newest block.
    pub fn state_of(&self, node: usize) -> Option<&State> {
        Some(self.nodes[node].running.as_ref()?.replica.state())
    }

    /// Evidence that a node keeps for the next slot block.
    pub fn evidence_of(&self, node: usize) -> impl Iterator<Item = &Evidence> {
        let running = self.nodes[node].running.iter();
        running.flat_map(|running| running.replica.evidence())
    }

    /// What the durable coins of a program are worth at a node, 10^-8 TIME.
    pub fn coins_of(&self, node: usize, program: &Program) -> u64 {
        let coins = self.nodes[node].ledger.coins.0.values();
        let mine = coins.filter(|coin| coin.output.program == *program);
        mine.map(|coin| coin.output.value.0).sum()
    }
}
