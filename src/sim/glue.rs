//! What the threads of a real node do: performing the effects of the machines and carrying inputs between them.

use crate::crypto::verify::Verified;
use crate::ledger::decided::DecidedBlock;
use crate::p2p::machine as p2p;
use crate::p2p::messages::{CertifiedBlock, Message, PeerId};
use crate::replica::catchup::Synced;
use crate::replica::io::{Effect, Event as Told, Input, ReadAt, SignerBatch};
use crate::sim::adversary::Tools;
use crate::sim::node::{Node, applied, operators, peer_id};
use crate::sim::stage::frame_of;
use crate::sim::world::{Event, Work, World};
use crate::sync;
use crate::types::ids::*;
use crate::types::masternode::Evidence;
use std::collections::VecDeque;
use std::sync::Arc;

impl World {
    /// Hands work to the machines of a node until none of them wants anything more.
    pub(super) fn all(&mut self, i: usize, mut todo: VecDeque<Work>) {
        while let Some(work) = todo.pop_front() {
            if self.nodes[i].running.is_none() || self.broken.is_some() {
                return;
            }
            if matches!(work, Work::ToReplica(_))
                && self.dice.chance(self.faults.crash_inside, 1_000_000)
            {
                // What came before in this queue has been done, what follows never will be.
                self.note(&format!("node {i} stops in the middle"));
                let back = self.dice.below(self.faults.outage_ms.max(1) * 1_000);
                return self.crash(i, Some(back));
            }
            self.one(i, work, &mut todo);
        }
        if let Some(at) = self.nodes[i].next_wake(self.now)
            && self.nodes[i].wake.is_none_or(|set| at < set)
        {
            self.nodes[i].wake = Some(at);
            self.at(at, Event::Wake(i, self.nodes[i].life));
        }
    }

    pub(super) fn one(&mut self, i: usize, work: Work, todo: &mut VecDeque<Work>) {
        let now = self.nodes[i].now(self.now);
        let node = &mut self.nodes[i];
        let Some(running) = node.running.as_mut() else {
            return;
        };
        match work {
            Work::ToReplica(input) => match running.replica.handle(now, input, &node.ledger) {
                Ok(effects) => todo.extend(effects.into_iter().map(Work::FromReplica)),
                Err(error) => self.fail(format!("node {i}: {error}")),
            },
            Work::ToP2p(input) => {
                let effects = running.p2p.handle(now, input);
                todo.extend(effects.into_iter().map(Work::FromP2p));
            }
            Work::ToSync(input) => {
                running.sync.handle(now, input);
                self.perform_sync(i, todo);
            }
            Work::FromReplica(effect) => self.perform_replica(i, effect, todo),
            Work::FromP2p(effect) => self.perform_p2p(i, effect, todo),
        }
    }

    pub(super) fn perform_sync(&mut self, i: usize, todo: &mut VecDeque<Work>) {
        loop {
            let now = self.nodes[i].now(self.now);
            let Some(running) = self.nodes[i].running.as_mut() else {
                return;
            };
            let Some(effect) = running.sync.effect() else {
                return;
            };
            match effect {
                sync::Effect::Request { peer, from, count } => {
                    self.send(
                        i,
                        vec![peer_id(peer)],
                        Arc::new(Message::GetBlocks((from, count))),
                    );
                }
                sync::Effect::Refresh { peer } => {
                    let status = running.replica.status(now);
                    self.send(i, vec![peer_id(peer)], Arc::new(Message::Ping(status)));
                }
                sync::Effect::Verify {
                    ticket,
                    certificate,
                    checks,
                } => {
                    let mut verdicts =
                        Verified::check_known(&mut self.memo, vec![(certificate, checks)]);
                    let Some(outcome) = verdicts.pop() else {
                        return;
                    };
                    running
                        .sync
                        .handle(now, sync::Input::Verdict { ticket, outcome });
                }
                sync::Effect::Headers(_) => {}
                sync::Effect::RequestHeaders { peer, from } => {
                    let question = Message::GetHeaders((from, true));
                    self.send(i, vec![peer_id(peer)], Arc::new(question));
                }
                sync::Effect::VerifyHeaders { ticket, checks } => {
                    let good = crate::crypto::verify::verify_all(&checks);
                    let verdict = sync::Input::HeadersVerdict { ticket, good };
                    running.sync.handle(now, verdict);
                }
                sync::Effect::Deliver {
                    block, certificate, ..
                } => todo.push_back(Work::ToReplica(Input::Synced(Synced {
                    block,
                    certificate,
                    trusted: false,
                }))),
                sync::Effect::Fault { peer, why } => {
                    self.blamed(i, peer_id(peer), &why.to_string())
                }
                sync::Effect::Conflict { .. } if self.checker.forks_allowed => {
                    self.note(&format!("node {i} sees two certificates at one height"))
                }
                sync::Effect::Conflict { .. } => {
                    if !self.checker.forks {
                        self.fail(format!("node {i}: two certificates at one height"));
                    }
                }
                sync::Effect::Stray { peer } => {
                    todo.push_back(Work::ToReplica(Input::Strayed(peer_id(peer))));
                }
                sync::Effect::SetDeadline(due) => running.sync_due = due,
            }
        }
    }

    pub(super) fn perform_p2p(&mut self, i: usize, effect: p2p::Effect, todo: &mut VecDeque<Work>) {
        let now = self.nodes[i].now(self.now);
        let running = self.nodes[i].running.as_ref();
        let position = |peer: PeerId, height| {
            let score = running.map_or(0, |r| r.p2p.score(now, peer));
            Work::ToSync(sync::Input::Position {
                peer: peer.0,
                height,
                score,
            })
        };
        match effect {
            p2p::Effect::Dial(target, address) => self.dial(i, target, &address),
            p2p::Effect::Send(peer, message) => self.send(i, vec![peer], Arc::new(message)),
            p2p::Effect::Close { peer, why, fault } => {
                if fault {
                    self.blamed(i, peer, &why);
                }
                self.hang_up(i, peer);
            }
            p2p::Effect::Up(peer, facts) => {
                todo.push_back(Work::ToReplica(Input::PeerUp(peer, facts.status)))
            }
            p2p::Effect::Masternode(peer, id) => {
                todo.push_back(Work::ToReplica(Input::PeerMasternode(peer, id)))
            }
            p2p::Effect::Reached(id, address) => {
                todo.push_back(Work::ToReplica(Input::Reached(id, address)))
            }
            p2p::Effect::Probed => todo.push_back(Work::ToReplica(Input::Probed)),
            p2p::Effect::Down(peer) => {
                todo.push_back(Work::ToReplica(Input::PeerDown(peer)));
                todo.push_back(Work::ToSync(sync::Input::Gone { peer: peer.0 }));
            }
            p2p::Effect::Slow(..) | p2p::Effect::BansChanged => {}
            p2p::Effect::StatusOf(peer, status) => {
                todo.push_back(Work::ToReplica(Input::PeerStatus(peer, status)));
                todo.push_back(position(peer, status.height));
            }
            p2p::Effect::Deliver(peer, message) => match message {
                Message::GetBlocks((from, count)) => self.serve(i, peer, from, count),
                Message::GetCertificate(height) => {
                    let Ok(found) = sync::BlockReader::certified(&self.nodes[i].ledger, height);
                    if let Some((_, certificate)) = found {
                        self.send(
                            i,
                            vec![peer],
                            Arc::new(Message::Certificate(Box::new(certificate))),
                        );
                    }
                }
                Message::GetHeaders((from, slots)) => {
                    let Ok(found) = sync::answer_headers(&self.nodes[i].ledger, from, slots);
                    let found = crate::base::bounded::BoundedVec::take_from(found);
                    self.send(i, vec![peer], Arc::new(Message::Headers(found)));
                }
                Message::Headers(headers) => todo.push_back(Work::ToSync(sync::Input::Headers {
                    peer: peer.0,
                    headers: headers.into_iter().collect(),
                })),
                Message::Unavailable((height, first)) => {
                    todo.push_back(Work::ToSync(sync::Input::Unavailable {
                        peer: peer.0,
                        height,
                        first,
                    }))
                }
                Message::Block(found) => {
                    let CertifiedBlock { block, certificate } = *found;
                    let block = Arc::new(block);
                    todo.push_back(Work::ToSync(sync::Input::Block {
                        peer: peer.0,
                        block,
                        certificate,
                    }));
                }
                other => todo.push_back(Work::ToReplica(Input::Frame(peer, other, ReadAt(now)))),
            },
        }
    }

    pub(super) fn serve(&mut self, i: usize, peer: PeerId, from: Height, count: u16) {
        let Ok(blocks) = sync::answer(&self.nodes[i].ledger, from, count);
        for (block, certificate) in blocks {
            let block = crate::types::block::Block::clone(&block);
            let frame = Message::Block(Box::new(CertifiedBlock { block, certificate }));
            self.send(i, vec![peer], Arc::new(frame));
        }
    }

    /// A node holds a peer guilty: never rightly an honest one (P3).
    pub(super) fn blamed(&mut self, i: usize, peer: PeerId, why: &str) {
        let Some(&(number, side)) = self.network.names.get(&peer) else {
            return;
        };
        let Some(link) = self.network.links.get(&number) else {
            return;
        };
        let far = link.ends[1 - side].node;
        self.note(&format!("node {i} blames node {far}: {why}"));
        if self.nodes[i].is_honest() && self.nodes[far].is_honest() {
            self.fail(format!("P3: node {i} blames honest node {far}: {why}"));
        }
    }

    pub(super) fn send(&mut self, i: usize, to: Vec<PeerId>, message: Arc<Message>) {
        let node = &mut self.nodes[i];
        let frames = match node.adversary.as_mut() {
            None => vec![(to, message)],
            Some(adversary) => {
                let tools = Tools {
                    operator: node.operator.as_ref(),
                    chain: self.chain,
                    rng: &mut node.rng,
                };
                adversary.outgoing(tools, to, message)
            }
        };
        for (to, message) in frames {
            if self.nodes[i].is_honest()
                && let Some((me, _)) = &self.nodes[i].operator
            {
                let disks = (&self.nodes[i].signer, &self.nodes[i].ledger);
                let said = self
                    .checker
                    .on_send(*me, &message, disks, self.nodes[i].amnesic);
                for word in std::mem::take(&mut self.checker.words) {
                    self.note(&format!("node {i} {word}"));
                }
                if let Err(what) = said {
                    self.fail(format!("node {i}: {what}"));
                }
            }
            let frame = frame_of(&message);
            // A stream cannot lose its beginning: greeting and first exchange.
            let exempt = frame.code <= 2 || matches!(&*message, Message::Votes(v) if v.is_empty());
            for peer in to {
                match self.staged(peer, &message) {
                    Some(whole) if Arc::ptr_eq(&whole, &message) => {
                        self.transmit(peer, &frame, exempt)
                    }
                    Some(part) => self.transmit(peer, &frame_of(&part), false),
                    None => {}
                }
            }
        }
    }

    pub(super) fn perform_replica(&mut self, i: usize, effect: Effect, todo: &mut VecDeque<Work>) {
        let life = self.nodes[i].life;
        match effect {
            Effect::Send(to, message) => self.send(i, to, message),
            Effect::Verify(items) => {
                let verdicts = Verified::check_known(&mut self.memo, items);
                todo.push_back(Work::ToReplica(Input::Verdicts(verdicts)));
            }
            Effect::WriteSigner(number, batch) => {
                self.write_signer(i, (number, batch, false), todo)
            }
            Effect::RenewSigner(number, batch) => self.write_signer(i, (number, batch, true), todo),
            Effect::WriteLedger(decided) => {
                let took = 3 * self.nodes[i].write_time();
                let node = &mut self.nodes[i];
                if node.ledger_full_until > self.now {
                    todo.push_back(Work::ToReplica(Input::LedgerFull));
                }
                let full = node.ledger_full_until;
                let done = node.ledger.syncs.write(self.now, full, took);
                node.ledger.writing.push_back(self.shared.one_of(decided));
                self.at(done, Event::LedgerDone(i, life));
            }
            Effect::Restart => self.restart(i),
            Effect::Reply(_, result) => {
                if let Err(error) = result {
                    self.note(&format!("node {i} refuses a payment: {error}"));
                }
            }
            Effect::Fault(peer, why) => self.blamed(i, peer, why),
            Effect::Probe(id, endpoint) => {
                let address = String::from_utf8_lossy(&endpoint).into_owned();
                todo.push_back(Work::ToP2p(p2p::Input::Probe(id, address)));
            }
            Effect::Advanced(status, _) => {
                todo.push_back(Work::ToP2p(p2p::Input::Status(status)));
                self.tell_registry(i, todo);
                if let Some(running) = &self.nodes[i].running {
                    todo.push_back(Work::ToSync(sync::Input::Applied(applied(
                        &running.replica,
                    ))));
                }
            }
            Effect::Event(event) => self.told(i, event),
        }
    }

    /// Tells the peer machine what the registry names, when that has changed.
    pub(super) fn tell_registry(&mut self, i: usize, todo: &mut VecDeque<Work>) {
        let Some(running) = &mut self.nodes[i].running else {
            return;
        };
        let hash = running.replica.state().registry.hash;
        if running.told.replace(hash) == Some(hash) {
            return;
        }
        let addresses = running.replica.addresses_of_validators();
        todo.push_back(Work::ToP2p(p2p::Input::Operators(operators(
            &running.replica,
        ))));
        todo.push_back(Work::ToP2p(p2p::Input::Validators(addresses)));
    }

    fn write_signer(
        &mut self,
        i: usize,
        mut batch: (u64, SignerBatch, bool),
        todo: &mut VecDeque<Work>,
    ) {
        if let Some(forget) = self.options.forget {
            forget.strip(&mut batch.1);
        }
        let took = self.nodes[i].write_time();
        let node = &mut self.nodes[i];
        if node.full_until > self.now {
            todo.push_back(Work::ToReplica(Input::SignerFull));
        }
        let done = node.signer.syncs.write(self.now, node.full_until, took);
        node.signer.writing.push_back(batch);
        let life = node.life;
        self.at(done, Event::SignerDone(i, life));
    }

    pub(super) fn told(&mut self, i: usize, event: Told) {
        let honest = self.nodes[i].is_honest();
        match event {
            Told::Decided { decided, round, .. } => self.told_decided(i, &decided, round),
            Told::NewRound(height, round) => {
                self.note(&format!("node {i} enters {height} round {round}"))
            }
            Told::Proposed(height, round, block) => {
                self.note(&format!(
                    "node {i} sees {block:?} proposed at {height} round {round}"
                ));
            }
            Told::Evidence(evidence) => self.told_evidence(i, &evidence),
            Told::Forked {
                height,
                blocks,
                held,
            } => {
                self.note(&format!(
                    "node {i} finds a fork at {height}: {blocks:?}, it held {held:?}"
                ));
                if !self.checker.forks && !self.checker.forks_allowed {
                    self.fail(format!(
                        "AGREEMENT: node {i} holds a proof of a fork at {height}"
                    ));
                }
            }
            Told::ForkCulprits(ids) => self.note(&format!("node {i} names culprits {ids:?}")),
            Told::ForkStated(attempt, block) => {
                self.note(&format!("node {i} states {block} in attempt {attempt}"));
            }
            Told::ForkEnded { height, block, .. } => {
                self.note(&format!("node {i}: the fork at {height} ends with {block}"));
            }
            Told::ForkTooDeep(height, _) => {
                self.note(&format!("node {i} cannot go back below {height}"));
            }
            Told::ForkRefused(height, why) => {
                self.note(&format!("node {i} refuses a fork at {height}: {why}"));
            }
            Told::Returned(txids) => {
                self.note(&format!("node {i} takes back {} payments", txids.len()));
            }
            Told::Signing(Ok(())) => self.note(&format!("node {i} signs")),
            Told::Signing(Err(why)) => self.note(&format!("node {i} does not sign: {why}")),
            Told::InvalidProposal(block, why) => {
                self.note(&format!("node {i}: {block:?} is invalid: {why}"))
            }
            Told::Halted(why) if honest => self.fail(format!("S10: node {i} halts: {why}")),
            Told::Halted(why) => self.note(&format!("node {i} halts: {why}")),
            Told::MempoolRefused(label) => {
                self.note(&format!("node {i} refuses a transaction: {label}"))
            }
            Told::Shed(label) => self.note(&format!("node {i} sheds {label}")),
            Told::StepDone(..)
            | Told::TimedOut(_)
            | Told::VoteJudged(..)
            | Told::MempoolAccepted(_) => {}
        }
    }

    fn told_decided(&mut self, i: usize, decided: &DecidedBlock, round: EraRound) {
        let honest = self.nodes[i].is_honest();
        let (height, block) = (decided.certificate.height, decided.certificate.block);
        let text = decided.block.transactions.len();
        self.note(&format!(
            "node {i} decides {height} {block:?} in round {round} with {text} transactions"
        ));
        if !honest {
            self.checker.heights[i] = height;
            return;
        }
        if let Err(what) = self.checker.on_decided(i, decided) {
            return self.fail(what);
        }
        if height == self.checker.tip() {
            self.validators = decided.delta.after.validators.clone();
        }
        for tx in decided.block.transactions.iter() {
            self.clients.settle(self.now, &tx.txid);
            self.clients.seen(self.now, i, &tx.txid);
        }
    }

    fn told_evidence(&mut self, i: usize, evidence: &Evidence) {
        let honest = self.nodes[i].is_honest();
        self.note(&format!("node {i} has evidence: {evidence:?}"));
        let offender = |n: &&Node| {
            n.operator
                .as_ref()
                .is_some_and(|(id, _)| *id == evidence.offender)
        };
        let node = self.nodes.iter().find(offender);
        if honest && node.is_some_and(|n| n.is_honest() && !n.amnesic) {
            self.fail(format!(
                "evidence against honest {}: {evidence:?}",
                evidence.offender
            ));
        }
    }
}
