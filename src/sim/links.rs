//! Connections: dialling, frames that arrive, ends that are left.

use crate::p2p::machine as p2p;
use crate::p2p::messages::{Message, PeerId};
use crate::sim::adversary::Tools;
use crate::sim::kit::node_at;
use crate::sim::network::Frame;
use crate::sim::world::{Event, Work, World};

impl World {
    pub(super) fn connected(&mut self, number: u64, side: usize) {
        let Some(link) = self.network.links.get(&number) else {
            return;
        };
        let (end, far) = (link.ends[side].clone(), link.ends[1 - side].clone());
        if !end.open || self.nodes[end.node].running.is_none() {
            return self.end_closed(number, side);
        }
        let mut exporter = [0; 32];
        exporter[..8].copy_from_slice(&number.to_le_bytes());
        let target = link.target;
        if let Some(link) = self.network.links.get_mut(&number) {
            link.ends[side].told = true;
        }
        let link = p2p::Link {
            peer: end.peer,
            key: self.nodes[far.node].key,
            target: target.filter(|_| side == 0),
            exporter,
            address: far.node.to_string(),
            remote: None,
        };
        self.work(end.node, Work::ToP2p(p2p::Input::Connected(link)));
    }

    /// An end of a connection learns that it is over.
    pub(super) fn end_closed(&mut self, number: u64, side: usize) {
        let Some(link) = self.network.links.get_mut(&number) else {
            return;
        };
        let dial = link.target.filter(|_| side == 0);
        let end = &mut link.ends[side];
        let (was_open, node, peer) = (std::mem::take(&mut end.open), end.node, end.peer);
        let input = match (end.told, dial) {
            (true, _) => p2p::Input::Closed(peer),
            // It fell before it stood: a dial ends in a connection or in a failure.
            (false, Some(target)) => p2p::Input::DialFailed(target),
            (false, None) => return self.network.forget_if_dead(number),
        };
        self.network.forget_if_dead(number);
        if was_open && self.nodes[node].running.is_some() {
            self.work(node, Work::ToP2p(input));
        }
    }

    /// A frame arrives: it is read at once, or by a slow node one after the other. Such a node is woken for the first that
    /// waits, as coming back with each of them would cost the square of their number.
    pub(super) fn arrived(&mut self, number: u64, side: usize, frame: Frame) {
        let Some(link) = self.network.links.get(&number) else {
            return;
        };
        let node = link.ends[side].node;
        let reader = &mut self.nodes[node];
        let idle = reader.busy_until <= self.now && reader.unread.is_empty();
        if idle || reader.running.is_none() {
            return self.read(number, side, frame);
        }
        reader.unread.push_back((number, side, frame));
        if reader.unread.len() == 1 {
            let (at, life) = (reader.busy_until, reader.life);
            self.at(at, Event::Read(node, life));
        }
    }

    /// A slow node is ready for the next frame.
    pub(super) fn reads(&mut self, node: usize, life: u64) {
        let reader = &mut self.nodes[node];
        if reader.life != life {
            return;
        }
        let Some((number, side, frame)) = reader.unread.pop_front() else {
            return;
        };
        self.read(number, side, frame);
        let reader = &self.nodes[node];
        if reader.life == life && !reader.unread.is_empty() {
            let at = reader.busy_until.max(self.now);
            self.at(at, Event::Read(node, life));
        }
    }

    fn read(&mut self, number: u64, side: usize, frame: Frame) {
        let Some(link) = self.network.links.get(&number) else {
            return;
        };
        let (end, far) = (&link.ends[side], &link.ends[1 - side]);
        let (node, peer, from) = (end.node, end.peer, far.node);
        if !end.open {
            // Nobody is there any more: the sender is told.
            if let Some(at) = self.network.close(self.now, number, side) {
                self.at(at, Event::Closed(number, 1 - side));
            }
            return;
        }
        let reader = &mut self.nodes[node];
        reader.busy_until = self.now + reader.frame_us;
        match Message::decode(frame.code, &frame.body) {
            Ok(message) => {
                if let Some(message) = self.heard(node, message) {
                    self.work(node, Work::ToP2p(p2p::Input::Frame(peer, message)));
                }
            }
            Err(error) if self.nodes[from].is_honest() => {
                self.fail(format!(
                    "node {from} sent node {node} an unreadable frame {}: {error}",
                    frame.code
                ));
            }
            Err(_) => self.hang_up(node, peer),
        }
    }

    /// What a node lets itself hear of a frame: all of it, if it is honest.
    fn heard(&mut self, i: usize, message: Message) -> Option<Message> {
        let node = &mut self.nodes[i];
        let Some(adversary) = node.adversary.as_mut() else {
            return Some(message);
        };
        let tools = Tools {
            operator: node.operator.as_ref(),
            chain: self.chain,
            rng: &mut node.rng,
        };
        adversary.incoming(tools, message)
    }

    /// A node leaves a connection.
    pub(super) fn hang_up(&mut self, i: usize, peer: PeerId) {
        let Some(&(number, side)) = self.network.names.get(&peer) else {
            return;
        };
        let Some(link) = self.network.links.get_mut(&number) else {
            return;
        };
        if !std::mem::take(&mut link.ends[side].open) {
            return;
        }
        if let Some(at) = self.network.close(self.now, number, side) {
            self.at(at, Event::Closed(number, 1 - side));
        }
        self.network.forget_if_dead(number);
        self.work(i, Work::ToP2p(p2p::Input::Closed(peer)));
    }

    pub(super) fn dial(&mut self, i: usize, target: usize, address: &str) {
        let life = self.nodes[i].life;
        let Some(far) = node_at(address).filter(|far| *far < self.nodes.len()) else {
            // Nobody lives there.
            return self.later(1_000_000, Event::DialFailed(i, life, target));
        };
        let there = self.network.delay(i, far);
        let way = [(i, far), (far, i)]
            .iter()
            .any(|way| self.network.blocked.contains(way));
        if way || self.nodes[far].running.is_none() {
            return self.later(
                5_000_000.min(there * 100),
                Event::DialFailed(i, life, target),
            );
        }
        let number = self.network.open(i, far);
        self.later(2 * there, Event::Connected(number, 0));
        self.later(3 * there, Event::Connected(number, 1));
        if let Some(link) = self.network.links.get_mut(&number) {
            link.target = Some(target);
            link.ends[0].after = self.now + 2 * there;
            link.ends[1].after = self.now + 3 * there;
        }
    }
}
