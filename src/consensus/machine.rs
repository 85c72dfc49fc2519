//! The driver of one height: feeds messages to the tally, asks it which conditions hold, passes events to the round
//! algorithm, and turns actions into outputs. Input and output: [`messages`](super::messages).
//!
//! Must never: sign two messages at one position or go back (I1, I2: asserted where a request to sign leaves), count an
//! own vote before it was fed back as durable (S5), or act after the decision.

mod resume;

use crate::base::limits::{ROUNDS_AHEAD, Size};
use crate::consensus::evidence;
use crate::consensus::messages::*;
use crate::consensus::round::{Action, Event, Pinned, RoundState, Step};
use crate::consensus::tally::{Added, Edge, POLKAS_PER_ROUND_MAX, Tally};
use crate::consensus::timeouts::{Timer, TimerKind};
use crate::types::block::{Certificate, Commit};
use crate::types::ids::*;
use crate::types::polka::Polka;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{ProposalBody, SignedProposal, Vote, VoteBody, VoteStep};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Kinds of [`Reason`].
const REASON_COUNT_MAX: usize = 2;

/// A leader's proposal of a round that is not over.
#[derive(Debug, Clone)]
struct Offer {
    signed: SignedProposal,
    header_at: EraRound,
    acceptable: bool,
    polka_wanted: bool,
    /// Whether its leader was already caught with a second one.
    accused: bool,
}

/// The machine of one height.
#[derive(Clone)]
pub struct Machine {
    ctx: HeightContext,
    tally: Tally,
    state: RoundState,
    /// Proposals of the current round and the next.
    offers: BTreeMap<Round, Offer>,
    /// Verdicts on blocks of proposals and polkas.
    verdicts: BTreeMap<BlockId, bool>,
    wanted: BTreeSet<BlockId>,
    reasons: Vec<Reason>,
    /// What let this node into the current round, until its first message there takes it along (S5).
    entry: Vec<Vote>,
    /// Position of the last request to sign.
    last: Option<Position>,
    build: Option<Round>,
    decided: Option<Certificate>,
}

impl Machine {
    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        let rounds = (self.state.round.0.saturating_add(ROUNDS_AHEAD)) as usize + 1;
        let blocks = (POLKAS_PER_ROUND_MAX + 1) * rounds;
        let mut sizes = self.tally.sizes();
        sizes.extend([
            Size::new("offers", self.offers.len(), ROUNDS_AHEAD as usize + 1),
            Size::new("verdicts on blocks", self.verdicts.len(), blocks),
            Size::new("blocks asked for", self.wanted.len(), blocks),
            Size::new("reasons to act", self.reasons.len(), REASON_COUNT_MAX),
            Size::new("votes that let in", self.entry.len(), self.ctx.set.len()),
        ]);
        sizes
    }

    /// A height that has just begun: round 0, idle.
    pub fn new(ctx: HeightContext) -> Machine {
        let tally = Tally::new(ctx.set.clone(), ctx.branch, ctx.era, ctx.height, ctx.rules);
        Machine {
            tally,
            state: RoundState::new(ctx.era),
            offers: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            wanted: BTreeSet::new(),
            reasons: Vec::new(),
            entry: Vec::new(),
            last: None,
            build: None,
            decided: None,
            ctx,
        }
    }

    /// Handles one input.
    pub fn handle(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Begin => {
                if self.state.step == Step::Idle && self.decided.is_none() {
                    self.start(&mut out);
                }
            }
            Input::Proposal {
                proposal,
                header_at,
                acceptable,
            } => self.add_proposal(proposal.into_inner(), header_at, acceptable, &mut out),
            Input::Vote(vote) => self.add_vote(&vote, &mut out),
            Input::Polka(polka) => self.add_polka(&polka, &mut out),
            Input::Validity { block, valid } => {
                // A verdict is about a block, whoever asked; the first one stands, as `apply` is a function.
                if self.is_named(block) {
                    self.verdicts.entry(block).or_insert(valid);
                }
            }
            Input::Built { round, block } => self.built(round, block, &mut out),
            Input::Timeout(timer) => {
                if timer.round == self.state.round && self.decided.is_none() {
                    self.feed(Event::Timeout(timer.kind), &mut out);
                }
            }
            Input::Certificate(certificate) => {
                if certificate.height == self.ctx.height {
                    self.decide(certificate.into_inner(), &mut out);
                }
            }
        }
        self.run(&mut out);
        out
    }

    /// Feeds every event whose conditions hold until none is left. Each changes the state so that it holds no more.
    fn run(&mut self, out: &mut Vec<Output>) {
        while self.decided.is_none() {
            let Some(event) = self.enabled() else {
                break;
            };
            self.feed(event, out);
        }
    }

    /// The next event whose conditions on messages hold. Polkas come first: what can be locked is locked before the round
    /// is left. A round that is over (line 55) is left before anything is signed in it.
    fn enabled(&self) -> Option<Event> {
        let round = self.state.round;
        self.usable_polka()
            .map(Event::Polka)
            .or_else(|| self.tally.ahead().map(Event::Ahead))
            .or_else(|| self.judged_offer())
            .or_else(|| {
                let prevoted = self.state.step == Step::Prevote;
                if prevoted && self.tally.prevotes_nil(round) {
                    Some(Event::PrevotesNil)
                } else if !self.state.precommit_timer && self.tally.precommits_any(round) {
                    Some(Event::PrecommitsAny)
                } else if prevoted && !self.state.prevote_timer && self.tally.prevotes_any(round) {
                    Some(Event::PrevotesAny)
                } else {
                    None
                }
            })
    }

    /// Line 36, S1(b): the highest polka that would change something and whose block is held and valid.
    fn usable_polka(&self) -> Option<Pinned> {
        let polkas = self.tally.polkas().rev().map(|polka| Pinned {
            block: polka.block,
            at: polka.at(),
        });
        polkas
            .filter(|pin| self.state.wants_polka(pin.at, &self.ctx.rules))
            .find(|pin| self.verdicts.get(&pin.block) == Some(&true))
    }

    /// Lines 22 and 28: the proposal of the current round, if nothing is missing to answer it.
    fn judged_offer(&self) -> Option<Event> {
        if self.state.step > Step::Propose {
            return None;
        }
        let offer = self.offers.get(&self.state.round)?;
        let (body, at) = (&offer.signed.body, self.state.at());
        let verdict = self.verdicts.get(&body.block).copied();
        match body.valid_round {
            None if offer.header_at != at => Some(Event::Unfit),
            None => {
                // Not acceptable or locked: nil, whatever the verdict will be.
                let hopeless =
                    !offer.acceptable || !self.state.takes_fresh(body.block, &self.ctx.rules);
                let valid = if hopeless { Some(false) } else { verdict };
                valid.map(|acceptable| Event::Fresh {
                    block: body.block,
                    acceptable,
                })
            }
            Some(valid_round) if offer.header_at > valid_round || valid_round >= at => {
                Some(Event::Unfit)
            }
            Some(valid_round) => {
                self.tally.polka(valid_round, body.block)?;
                verdict.map(|valid| Event::Again {
                    block: body.block,
                    valid_round,
                    valid,
                })
            }
        }
    }

    fn feed(&mut self, event: Event, out: &mut Vec<Output>) {
        let rules = self.ctx.rules;
        for action in self.state.on(event, &rules) {
            self.perform(action, out);
        }
    }

    fn perform(&mut self, action: Action, out: &mut Vec<Output>) {
        match action {
            Action::Propose(None) => {
                self.build = Some(self.state.round);
                out.push(Output::Build {
                    round: self.state.round,
                });
            }
            Action::Propose(Some(pin)) => self.propose(pin.block, Some(pin.at), out),
            Action::Prevote { block, valid_round } => {
                let polka = valid_round
                    .zip(block)
                    .and_then(|(at, block)| self.tally.polka(at, block).cloned());
                let durable = Durable {
                    polka,
                    ..Durable::default()
                };
                self.assert_lock_holds(block, valid_round);
                self.vote(VoteStep::Prevote, block, valid_round, durable, out);
            }
            Action::Precommit(None) => {
                self.vote(VoteStep::Precommit, None, None, Durable::default(), out);
            }
            Action::Precommit(Some(pin)) => {
                let polka = self.tally.polka(pin.at, pin.block).cloned();
                assert!(polka.is_some(), "I3: a precommit stands on a polka");
                let durable = Durable {
                    polka,
                    lock: Some(pin),
                    block: Some(pin.block),
                    ..Durable::default()
                };
                self.move_window(out);
                self.vote(VoteStep::Precommit, Some(pin.block), None, durable, out);
            }
            Action::Valid(pin) => {
                self.move_window(out);
                out.push(Output::Valid(pin));
            }
            Action::Schedule(kind) => self.schedule(kind, out),
            Action::Enter { round, skip } => self.enter(round, skip, out),
        }
    }

    fn schedule(&self, kind: TimerKind, out: &mut Vec<Output>) {
        let timer = Timer {
            kind,
            round: self.state.round,
        };
        out.push(Output::Schedule {
            timer,
            after_ms: timer.duration_ms(&self.ctx.params),
        });
    }

    /// I4: whatever the block, a prevote after a lock answers a polka that is not older than the lock.
    fn assert_lock_holds(&self, block: Option<BlockId>, valid_round: Option<EraRound>) {
        if block.is_none() || !self.ctx.rules.are_real() {
            return;
        }
        let held = self
            .state
            .locked
            .is_none_or(|lock| valid_round.is_some_and(|at| at >= lock.at && at < self.state.at()));
        assert!(
            held,
            "I4: a prevote after a lock needs a polka since the lock"
        );
    }

    /// Line 11 for the current round.
    fn start(&mut self, out: &mut Vec<Output>) {
        let leads = self.ctx.me == Some(self.ctx.leaders.leader(self.state.round));
        self.feed(Event::Start { leads }, out);
    }

    fn enter(&mut self, round: Round, skip: bool, out: &mut Vec<Output>) {
        self.entry = if skip {
            self.tally.skip_evidence(round)
        } else {
            self.tally.precommit_evidence(self.state.round)
        };
        self.state.enter(round);
        self.build = None;
        self.offers.retain(|offered, _| *offered >= round);
        self.move_window(out);
        let named: Vec<BlockId> = self.verdicts.keys().copied().collect();
        for block in named {
            if !self.is_named(block) {
                self.verdicts.remove(&block);
            }
        }
        out.push(Output::NewRound { round });
        self.start(out);
        self.want_polka(out);
    }

    fn move_window(&mut self, out: &mut Vec<Output>) {
        let pinned = [self.state.locked, self.state.valid];
        let pinned = pinned.into_iter().flatten().map(|pin| pin.at);
        let edges = self.tally.set_round(self.state.round, pinned);
        self.pass(edges, out);
    }

    /// Whether a proposal at hand, the lock, the valid value or a polka names this block.
    fn is_named(&self, block: BlockId) -> bool {
        let pinned = [self.state.locked, self.state.valid];
        pinned.into_iter().flatten().any(|pin| pin.block == block)
            || self
                .offers
                .values()
                .any(|offer| offer.signed.body.block == block)
            || self.tally.polkas().any(|polka| polka.block == block)
    }

    fn add_proposal(
        &mut self,
        signed: SignedProposal,
        header_at: EraRound,
        acceptable: bool,
        out: &mut Vec<Output>,
    ) {
        let body = signed.body;
        let here = (body.height, body.era, body.branch)
            == (self.ctx.height, self.ctx.era, self.ctx.branch);
        let round = body.round;
        let last = self.state.round.0.saturating_add(ROUNDS_AHEAD);
        // The round is bounded before its leader is computed (B4).
        if !here || round < self.state.round || round.0 > last {
            return;
        }
        if self.ctx.leaders.leader(round) != signed.proposer {
            return;
        }
        if let Some(held) = self.offers.get_mut(&round) {
            if held.signed.body != body && !held.accused {
                held.accused = true;
                let found = evidence::proposals(&self.ctx.set, held.signed.clone(), signed);
                out.extend(found.map(|e| Output::Evidence(Box::new(e))));
            }
            return;
        }
        let offer = Offer {
            signed,
            header_at,
            acceptable,
            polka_wanted: false,
            accused: false,
        };
        self.offers.insert(round, offer);
        if !self.verdicts.contains_key(&body.block) && self.decided.is_none() {
            let at = body.at();
            out.push(Output::WantBlock {
                block: body.block,
                at,
            });
        }
        if round == self.state.round {
            self.give_reason(Reason::Proposal, out);
            self.want_polka(out);
        }
    }

    /// A re-proposal of the current round without its polka: ask for it, once.
    fn want_polka(&mut self, out: &mut Vec<Output>) {
        let at = self.state.at();
        let Some(offer) = self.offers.get_mut(&self.state.round) else {
            return;
        };
        let body = offer.signed.body;
        if let Some(valid_round) = body.valid_round.filter(|valid_round| *valid_round < at)
            && !offer.polka_wanted
            && self.tally.polka(valid_round, body.block).is_none()
        {
            offer.polka_wanted = true;
            out.push(Output::WantPolka {
                at: valid_round,
                block: body.block,
            });
        }
    }

    fn give_reason(&mut self, reason: Reason, out: &mut Vec<Output>) {
        let idle = self.state.step == Step::Idle && self.decided.is_none();
        if idle && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
            out.push(Output::Reason(reason));
        }
    }

    fn add_vote(&mut self, vote: &Vote, out: &mut Vec<Output>) {
        let (added, edges) = self.tally.add(vote);
        if let Added::Equivocation(first) = added {
            let found = evidence::votes(&self.ctx.set, first, vote.clone());
            out.extend(found.map(|e| Output::Evidence(Box::new(e))));
        }
        self.accuse_of_amnesia(vote, out);
        self.pass(edges, out);
    }

    fn add_polka(&mut self, polka: &Polka, out: &mut Vec<Output>) {
        let (equivocations, edges) = self.tally.add_polka(polka);
        for pair in equivocations.chunks_exact(2) {
            let found = evidence::votes(&self.ctx.set, pair[0].clone(), pair[1].clone());
            out.extend(found.map(|e| Output::Evidence(Box::new(e))));
        }
        if polka.at().era == self.ctx.era {
            for vote in polka.prevotes(self.ctx.branch, &self.ctx.set) {
                self.accuse_of_amnesia(&vote, out);
            }
        }
        self.pass(edges, out);
    }

    fn accuse_of_amnesia(&self, vote: &Vote, out: &mut Vec<Output>) {
        let here = (vote.body.height, vote.body.era) == (self.ctx.height, self.ctx.era);
        let held = self.tally.of_voter(&vote.voter);
        let found = here.then(|| evidence::amnesia(&self.ctx.set, held, vote));
        out.extend(found.flatten().map(|e| Output::Evidence(Box::new(e))));
    }

    fn pass(&mut self, edges: Vec<Edge>, out: &mut Vec<Output>) {
        for edge in edges {
            match edge {
                Edge::Voters => self.give_reason(Reason::Votes, out),
                Edge::Polka(polka) => {
                    let (block, at) = (polka.block, polka.at());
                    out.push(Output::Polka(polka));
                    let unknown = !self.verdicts.contains_key(&block);
                    if unknown && self.decided.is_none() && self.wanted.insert(block) {
                        out.push(Output::WantBlock { block, at });
                    }
                }
                // Lines 49-54: any round, any step, whether the block is held or not (S10).
                Edge::Decided(round, block) => {
                    let commit = self.tally.commit(round, block);
                    let height = self.ctx.height;
                    let certificate = Certificate {
                        height,
                        block,
                        commit,
                    };
                    self.decide(certificate, out);
                }
            }
        }
    }

    fn decide(&mut self, certificate: Certificate, out: &mut Vec<Output>) {
        if self.decided.is_none() {
            self.decided = Some(certificate.clone());
            out.push(Output::Decided(Box::new(certificate)));
        }
    }

    fn built(&mut self, round: Round, block: BlockId, out: &mut Vec<Output>) {
        // Late answers (the round is over, or the timer ran out) are dropped: positions never decrease (I2).
        let wanted = self.build == Some(round) && round == self.state.round;
        if wanted && self.state.step == Step::Propose && self.decided.is_none() {
            self.build = None;
            self.verdicts.insert(block, true);
            self.propose(block, None, out);
        }
    }

    fn propose(&mut self, block: BlockId, valid_round: Option<EraRound>, out: &mut Vec<Output>) {
        let body = ProposalBody {
            branch: self.ctx.branch,
            era: self.ctx.era,
            height: self.ctx.height,
            round: self.state.round,
            valid_round,
            block,
        };
        let polka = valid_round.and_then(|at| self.tally.polka(at, block).cloned());
        let durable = Durable {
            polka,
            block: Some(block),
            ..Durable::default()
        };
        self.sign(Message::Proposal(body), durable, out);
    }

    fn vote(
        &mut self,
        step: VoteStep,
        block: Option<BlockId>,
        valid_round: Option<EraRound>,
        durable: Durable,
        out: &mut Vec<Output>,
    ) {
        let body = VoteBody {
            step,
            branch: self.ctx.branch,
            era: self.ctx.era,
            height: self.ctx.height,
            round: self.state.round,
            valid_round,
            block,
        };
        self.sign(Message::Vote(body), durable, out);
    }

    /// Lets a request to sign out. A node that is no validator of this height, or may not sign, passes by silently.
    fn sign(&mut self, message: Message, mut durable: Durable, out: &mut Vec<Output>) {
        if !self.signs() {
            return;
        }
        let position = message.position();
        assert!(
            self.last.is_none_or(|last| position > last),
            "I1, I2: one message per position, positions ascend"
        );
        self.last = Some(position);
        durable.entry = std::mem::take(&mut self.entry);
        out.push(Output::Sign(Sign { message, durable }));
    }

    fn signs(&self) -> bool {
        self.ctx
            .me
            .is_some_and(|me| self.ctx.set.get(&me).is_some())
    }

    /// The height.
    pub fn height(&self) -> Height {
        self.ctx.height
    }
    /// Who decides the height.
    pub fn set(&self) -> &Arc<ValidatorSet> {
        &self.ctx.set
    }
    /// Era and current round.
    pub fn at(&self) -> EraRound {
        self.state.at()
    }
    /// Round, step, lock and valid value.
    pub fn state(&self) -> &RoundState {
        &self.state
    }
    /// The votes.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
    /// The decision, once there is one.
    pub fn decided(&self) -> Option<&Certificate> {
        self.decided.as_ref()
    }
    /// The leader of a round up to the own one + 1; none is computed beyond (B4).
    pub fn leader(&self, round: Round) -> Option<MasternodeId> {
        let last = self.state.round.0.saturating_add(ROUNDS_AHEAD);
        (round.0 <= last).then(|| self.ctx.leaders.leader(round))
    }
    /// The proposal held of the current or next round.
    pub fn proposal(&self, round: Round) -> Option<&SignedProposal> {
        self.offers.get(&round).map(|offer| &offer.signed)
    }
    /// The verdict on a block that a proposal, a polka, the lock or the valid value names.
    pub fn verdict(&self, block: &BlockId) -> Option<bool> {
        self.verdicts.get(block).copied()
    }
    /// The known polka for a block in a round.
    pub fn polka(&self, at: EraRound, block: BlockId) -> Option<&Arc<Polka>> {
        self.tally.polka(at, block)
    }
    /// Position of the last message this node was asked to sign in the height.
    pub fn last_signed(&self) -> Option<Position> {
        self.last
    }
    /// The decision's commit, or one of the same round with more power if late precommits came: the best last_commit for
    /// the next block.
    pub fn widest_commit(&self) -> Option<Commit> {
        let decided = &self.decided.as_ref()?.commit;
        let block = self.decided.as_ref()?.block;
        let late = self.tally.commit(decided.at.round, block);
        let power = |commit: &Commit| self.ctx.set.power_of(commit.signers.ones());
        let wider = late.at == decided.at && power(&late) > power(decided);
        Some(if wider { late } else { decided.clone() })
    }
}
