//! Masternodes that come and go while a world runs: their keys, their registry transactions, their entries.

use super::World;
use crate::crypto::keys::SecretKey;
use crate::ledger::registry::Entry;
use crate::ledger::state::State;
use crate::sim::disk::SignerDisk;
use crate::sim::kit::{Role, key};
use crate::sim::node::Node;
use crate::types::address::Program;
use crate::types::ids::*;
use crate::types::masternode::Evidence;
use crate::types::transaction::Update;

impl World {
    /// Gives an observer the operator key of masternode number `node`, before it starts: it speaks for whoever registers it.
    pub fn equip(&mut self, node: usize) {
        let secret = key(Role::Operator, node);
        self.nodes[node].operator = Some((MasternodeId::default(), secret));
    }

    /// Registers masternode number `node` at `endpoint`; a node of that number must have been equipped to speak for it.
    pub fn register(&mut self, node: usize, endpoint: &str) -> MasternodeId {
        let known = self.nodes.get(node).and_then(|n| n.operator.as_ref());
        let operator = known.map_or_else(|| key(Role::Operator, node), |(_, key)| key.clone());
        let tx = self.clients.register(node, &operator, endpoint);
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

    /// The owner of masternode number `node` changes something about it; a new operator key has to agree.
    pub fn update(&mut self, node: usize, update: &Update, operator: Option<&SecretKey>) {
        let tx = self.clients.update(node, update, operator);
        self.submit(tx);
    }

    /// A new operator key for masternode number `node`: its owner names it, and the node takes it when the registry has it.
    pub fn rekey(&mut self, node: usize, id: MasternodeId) {
        self.nodes[node].key_count += 1;
        let secret = key(Role::Operator, node + 1_000 * self.nodes[node].key_count);
        let update = Update {
            id,
            operator: Some(secret.public()),
            payout: None,
            endpoint: None,
        };
        self.update(node, &update, Some(&secret));
        self.nodes[node].next_operator = Some(secret);
    }

    /// Nodes whose new operator keys are in force stop in order and start with them, each with the store that was made with
    /// its key (B7 step 0).
    pub(in crate::sim) fn take_new_keys(&mut self) {
        for i in 0..self.nodes.len() {
            let node = &self.nodes[i];
            let (Some((id, _)), Some(next)) = (&node.operator, &node.next_operator) else {
                continue;
            };
            let (id, next) = (*id, next.clone());
            if self.entry(&id).is_some_and(|e| e.operator == next.public()) {
                self.restart(i);
                self.note(&format!("node {i} has a new operator key"));
                let node = &mut self.nodes[i];
                node.next_operator = None;
                node.operator = Some((id, next));
                node.signer = SignerDisk::default();
                (node.backup, node.abstains) = (None, false);
            }
        }
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
