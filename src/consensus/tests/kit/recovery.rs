//! What happens after things went wrong: restarts from the signer store, refusals to sign that pass, repair, healing.

use super::*;

impl Net {
    fn keeps(&self, msg: &Msg) -> bool {
        let forgets = |what| self.forgets.contains(&what);
        let nil = match msg {
            Msg::Proposal(_) => false,
            Msg::Vote(vote) => vote.body.block.is_none() && vote.body.step == VoteStep::Precommit,
            Msg::Polka(_) => false,
        };
        !(forgets(Forgets::Everything) || nil && forgets(Forgets::NilPrecommits))
    }

    /// The node's process dies; all it has is its signer store (S5).
    pub fn restart(&mut self, i: usize) {
        let (restored, proposals) = self.stored(i);
        let ctx = context(&self.powers, Some(i), &self.leaders, self.rules);
        let (machine, outputs) = Machine::restore(ctx, restored);
        self.nodes
            .entry(i)
            .and_modify(|node| node.machine = machine);
        self.go_on(i, outputs, &proposals);
    }

    /// The node was not allowed to sign for a while and goes back to what it did sign; its process has lived on.
    pub fn revive(&mut self, i: usize) {
        let (mut restored, proposals) = self.stored(i);
        restored.polkas.clear();
        restored.entry.clear();
        let mut outputs = Vec::new();
        self.nodes
            .entry(i)
            .and_modify(|node| outputs = node.machine.revive(&restored));
        self.go_on(i, outputs, &proposals);
    }

    fn go_on(&mut self, i: usize, outputs: Vec<Output>, proposals: &[Msg]) {
        self.nodes.entry(i).and_modify(|node| {
            node.timers.clear();
            node.wanted.clear();
        });
        let mut inputs = VecDeque::new();
        self.perform(i, outputs, &mut inputs);
        inputs.extend(proposals.iter().map(|msg| msg.input(true)));
        while let Some(input) = inputs.pop_front() {
            self.input(i, input);
        }
    }

    /// What the signer store of a node holds, and its own proposals.
    fn stored(&self, i: usize) -> (Restored, Vec<Msg>) {
        let kept = |what: Forgets| {
            !self.forgets.contains(&what) && !self.forgets.contains(&Forgets::Everything)
        };
        let (polkas, entry, locks) = (
            kept(Forgets::Polkas),
            kept(Forgets::Entry),
            kept(Forgets::Locks),
        );
        let mut restored = Restored::default();
        let mut proposals = Vec::new();
        for sign in &self.node(i).signed {
            let position = sign.message.position();
            let said = self.said_by(i, position.kind, position.at.round.0);
            for msg in said.into_iter().filter(|msg| self.keeps(msg)) {
                match msg {
                    Msg::Proposal(p) => {
                        restored.proposals.push(verified(p.clone()));
                        proposals.push(Msg::Proposal(p));
                    }
                    Msg::Vote(v) => restored.votes.push(verified(v)),
                    Msg::Polka(_) => {}
                }
            }
            restored.blocks.extend(sign.durable.block);
            if locks {
                restored.lock = sign.durable.lock.or(restored.lock);
            }
            if let Some(polka) = sign.durable.polka.as_ref().filter(|_| polkas) {
                restored.polkas.push(verified(Polka::clone(polka)));
            }
            if !sign.durable.entry.is_empty() && entry {
                restored.entry = sign.durable.entry.iter().cloned().map(verified).collect();
            }
        }
        (restored, proposals)
    }

    /// S8: `from` sends `to` what it lacks: votes, polkas, proposals. True if there was anything.
    pub fn repair(&mut self, from: usize, to: usize) -> bool {
        let (Some(a), Some(b)) = (self.nodes.get(&from), self.nodes.get(&to)) else {
            return false;
        };
        if let Some(certificate) = a.machine.decided() {
            let certificate = certificate.clone();
            let news = b.machine.decided().is_none();
            if news {
                self.input(to, Input::Certificate(verified(certificate)));
            }
            return news;
        }
        let lacking = a.machine.lacking(b.machine.at(), &b.machine.held());
        let mut msgs: Vec<Msg> = Vec::new();
        for round in &lacking.proposals {
            msgs.extend(a.machine.proposal(*round).cloned().map(Msg::Proposal));
        }
        msgs.extend(lacking.polkas.iter().map(|p| Msg::Polka(Polka::clone(p))));
        msgs.extend(lacking.votes.into_iter().map(Msg::Vote));
        let before = format!("{:?}", b.machine.held());
        let round = b.machine.at();
        for msg in &msgs {
            self.input(to, msg.input(true));
        }
        let b = &self.node(to).machine;
        before != format!("{:?}", b.held()) || round != b.at()
    }

    /// The network heals: nobody Byzantine speaks, everything lost is repaired (S8), timers run out only when nothing else
    /// happens. True once all honest nodes have decided; false if that takes more than `rounds` further rounds.
    pub fn heals_within(&mut self, rounds: u32) -> bool {
        self.fetches = true;
        let honest: Vec<usize> = self.nodes.keys().copied().collect();
        let last = honest.iter().map(|i| self.round(*i)).max().unwrap_or(0) + rounds;
        for i in &honest {
            let wanted: Vec<BlockId> = self.node(*i).wanted.iter().copied().collect();
            for block in wanted {
                let valid = is_valid(block);
                self.input(*i, Input::Validity { block, valid });
            }
            self.input(*i, Input::Begin);
        }
        loop {
            let mut busy = true;
            while busy {
                busy = false;
                for (a, b) in honest
                    .iter()
                    .flat_map(|a| honest.iter().map(move |b| (*a, *b)))
                {
                    busy |= a != b && self.repair(a, b);
                }
            }
            if honest.iter().all(|i| self.decided.contains_key(i)) {
                return true;
            }
            let expired: Vec<(usize, Timer)> = honest
                .iter()
                .flat_map(|i| self.node(*i).timers.iter().map(move |timer| (*i, *timer)))
                .filter(|(i, timer)| timer.round.0 >= self.round(*i))
                .collect();
            if expired.is_empty() || honest.iter().any(|i| self.round(*i) > last) {
                return false;
            }
            for (i, timer) in expired {
                self.fire(i, timer);
            }
        }
    }
}
