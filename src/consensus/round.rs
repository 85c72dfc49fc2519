//! One node's state in a height and the algorithm of "The latest gossip on BFT consensus" (arXiv:1807.04938), lines 11 to
//! 67, one match arm per line, with S1's changes:
//! - S1(a) lines 22 and 28 lose `or lockedValue = v`: fresh blocks only without a lock, re-proposals only if
//!   lockedRound <= valid_round.
//! - S1(b) a polka of any round beyond validRound sets validValue and validRound; locking needs the current round.
//! - S1(c) line 55 counts signers by their highest round (in the tally).
//!
//! Input: an event whose conditions on messages already hold (the machine asks the tally). Output: actions. Never: looks
//! at messages, signs, or knows a clock.

use crate::consensus::rules::Rules;
use crate::consensus::timeouts::TimerKind;
use crate::types::ids::*;

/// Where a node is in its round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Round 0 before a reason to act (S3): as `Propose`, but no timer runs and a leader proposes nothing.
    Idle,
    /// Waiting for the proposal.
    Propose,
    /// Has prevoted.
    Prevote,
    /// Has precommitted.
    Precommit,
}

/// A block with the round of its polka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pinned {
    /// Era and round of the polka; compared first.
    pub at: EraRound,
    /// The block.
    pub block: BlockId,
}

/// Something whose conditions on messages hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The propose step of the round begins (line 11); whether this node leads it.
    Start {
        /// Whether this node leads the round.
        leads: bool,
    },
    /// A fresh proposal of the round's leader with a verdict.
    Fresh {
        /// The block.
        block: BlockId,
        /// Valid, timely and within M4's acceptance rule.
        acceptable: bool,
    },
    /// A re-proposal of the round's leader whose polka is known.
    Again {
        /// The block.
        block: BlockId,
        /// The round of that polka, below the current one.
        valid_round: EraRound,
        /// Whether the block is valid.
        valid: bool,
    },
    /// The leader's proposal is no proposal for this round at all (S1).
    Unfit,
    /// A quorum has prevoted anything in this round.
    PrevotesAny,
    /// A polka of any round for a block that is held and valid.
    Polka(Pinned),
    /// A quorum has prevoted nil in this round.
    PrevotesNil,
    /// A quorum has precommitted anything in this round.
    PrecommitsAny,
    /// More than a third has votes of this round or later ones; it is above the current round.
    Ahead(Round),
    /// A timer of this round ran out.
    Timeout(TimerKind),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Propose: this block again, or a fresh one.
    Propose(Option<Pinned>),
    /// Prevote.
    Prevote {
        /// For a block or nil.
        block: Option<BlockId>,
        /// That of the proposal answered.
        valid_round: Option<EraRound>,
    },
    /// Precommit for the block just locked, or nil.
    Precommit(Option<Pinned>),
    /// The valid value changed.
    Valid(Pinned),
    /// Start a timer of the current round.
    Schedule(TimerKind),
    /// Go to this round.
    Enter {
        /// Where to.
        round: Round,
        /// By line 55 (else by line 65).
        skip: bool,
    },
}

/// The variables of line 1 to 10, and which rules marked "for the first time" have fired in this round.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoundState {
    /// Era of the height: rounds of locks compare as (era, round) (B6).
    pub era: Era,
    /// round_p.
    pub round: Round,
    /// step_p.
    pub step: Step,
    /// lockedValue and lockedRound.
    pub locked: Option<Pinned>,
    /// validValue and validRound.
    pub valid: Option<Pinned>,
    /// Line 34 has fired.
    pub prevote_timer: bool,
    /// Line 47 has fired.
    pub precommit_timer: bool,
}

impl RoundState {
    /// Round 0, idle, nothing locked.
    pub fn new(era: Era) -> RoundState {
        RoundState {
            era,
            round: Round(0),
            step: Step::Idle,
            locked: None,
            valid: None,
            prevote_timer: false,
            precommit_timer: false,
        }
    }

    /// The current round as it compares.
    pub fn at(&self) -> EraRound {
        EraRound {
            era: self.era,
            round: self.round,
        }
    }

    /// Moves to the start of a later round. Rounds never decrease (I2).
    pub fn enter(&mut self, round: Round) {
        assert!(round > self.round, "I2: rounds of a height never decrease");
        self.round = round;
        self.step = Step::Propose;
        self.prevote_timer = false;
        self.precommit_timer = false;
    }

    /// Line 22 with S1(a): a fresh block only without a lock.
    pub fn takes_fresh(&self, block: BlockId, rules: &Rules) -> bool {
        let loose = !rules.strict_lock && self.locked.is_some_and(|lock| lock.block == block);
        !rules.lock || self.locked.is_none() || loose
    }

    /// Line 28 with S1(a): a re-proposal only if its polka is not older than the lock.
    fn takes_again(&self, block: BlockId, valid_round: EraRound, rules: &Rules) -> bool {
        let loose = !rules.strict_lock && self.locked.is_some_and(|lock| lock.block == block);
        !rules.lock || loose || self.locked.is_none_or(|lock| lock.at <= valid_round)
    }

    fn prevote(&mut self, block: Option<BlockId>, valid_round: Option<EraRound>) -> Vec<Action> {
        self.step = Step::Prevote;
        vec![Action::Prevote { block, valid_round }]
    }

    fn precommit_nil(&mut self) -> Vec<Action> {
        self.step = Step::Precommit;
        vec![Action::Precommit(None)]
    }

    /// Whether a polka would change anything now: a later one than validRound, or one to lock on.
    pub fn wants_polka(&self, polka: EraRound, rules: &Rules) -> bool {
        let current = polka == self.at();
        let news = self.valid.is_none_or(|valid| polka > valid.at);
        (news && (rules.any_round_polka || (current && self.step >= Step::Prevote)))
            || (current && self.step == Step::Prevote)
    }

    /// Lines 36-43. S1(b): 42 and 43 for a polka of any round beyond validRound; the lock needs the current round.
    fn polka(&mut self, polka: Pinned, rules: &Rules) -> Vec<Action> {
        let mut actions = Vec::new();
        let news = self.valid.is_none_or(|valid| polka.at > valid.at);
        let current = polka.at == self.at();
        if news && (rules.any_round_polka || (current && self.step >= Step::Prevote)) {
            self.valid = Some(polka);
            actions.push(Action::Valid(polka));
        }
        if current && self.step == Step::Prevote {
            self.locked = Some(polka);
            self.step = Step::Precommit;
            actions.push(Action::Precommit(Some(polka)));
        }
        actions
    }

    /// One line of the paper.
    pub fn on(&mut self, event: Event, rules: &Rules) -> Vec<Action> {
        use Step::*;
        match (self.step, event) {
            // 11-21: propose if it is my turn; everybody runs the timer, also a leader that cannot propose (S3, V10). A
            // polka of this very round or later is no ground for a proposal in it (S1: valid_round < round).
            (Idle | Propose, Event::Start { leads }) => {
                self.step = Propose;
                let mut actions = vec![Action::Schedule(TimerKind::Propose)];
                if leads && self.valid.is_none_or(|valid| valid.at < self.at()) {
                    actions.push(Action::Propose(self.valid));
                }
                actions
            }
            // 22-27, S1(a).
            (Idle | Propose, Event::Fresh { block, acceptable }) => {
                let yes = acceptable && self.takes_fresh(block, rules);
                self.prevote(yes.then_some(block), None)
            }
            // 28-33, S1(a).
            (
                Idle | Propose,
                Event::Again {
                    block,
                    valid_round,
                    valid,
                },
            ) => {
                let yes = valid && self.takes_again(block, valid_round, rules);
                self.prevote(yes.then_some(block), yes.then_some(valid_round))
            }
            // 26 and 32 for what cannot be valid whatever the block holds.
            (Idle | Propose, Event::Unfit) => self.prevote(None, None),
            // 34-35.
            (Prevote, Event::PrevotesAny) if !self.prevote_timer => {
                self.prevote_timer = true;
                vec![Action::Schedule(TimerKind::Prevote)]
            }
            // 36-43, S1(b).
            (_, Event::Polka(polka)) => self.polka(polka, rules),
            // 44-46.
            (Prevote, Event::PrevotesNil) => self.precommit_nil(),
            // 47-48.
            (_, Event::PrecommitsAny) if !self.precommit_timer => {
                self.precommit_timer = true;
                vec![Action::Schedule(TimerKind::Precommit)]
            }
            // 55-56.
            (_, Event::Ahead(round)) if round > self.round => {
                vec![Action::Enter { round, skip: true }]
            }
            // 57-60. Idle: the timer of round 0 does not run before the step is entered.
            (Propose, Event::Timeout(TimerKind::Propose)) => self.prevote(None, None),
            // 61-64.
            (Prevote, Event::Timeout(TimerKind::Prevote)) if self.prevote_timer => {
                self.precommit_nil()
            }
            // 65-67.
            (_, Event::Timeout(TimerKind::Precommit)) if self.precommit_timer => {
                vec![Action::Enter {
                    round: self.round.next(),
                    skip: false,
                }]
            }
            // Conditions of no line: nothing happens. Lines 49-54 (decision) are the machine's: no step matters there.
            (_, _) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use Step::{Precommit as C, Prevote as V, Propose as P};

    fn at(round: u32) -> EraRound {
        EraRound {
            era: Era(0),
            round: Round(round),
        }
    }

    fn pin(block: u8, round: u32) -> Pinned {
        Pinned {
            at: at(round),
            block: BlockId(Hash([block; 32])),
        }
    }

    /// A state in round 2.
    fn state(step: Step, locked: Option<Pinned>, valid: Option<Pinned>) -> RoundState {
        RoundState {
            round: Round(2),
            step,
            locked,
            valid,
            prevote_timer: true,
            precommit_timer: true,
            ..RoundState::new(Era(0))
        }
    }

    fn prevote(vote: Option<(u8, Option<u32>)>) -> Vec<Action> {
        vec![Action::Prevote {
            block: vote.map(|(block, _)| pin(block, 0).block),
            valid_round: vote.and_then(|(_, round)| round).map(at),
        }]
    }

    fn fresh(block: u8, acceptable: bool) -> Event {
        Event::Fresh {
            block: pin(block, 0).block,
            acceptable,
        }
    }

    fn again(block: u8, round: u32, valid: bool) -> Event {
        Event::Again {
            block: pin(block, 0).block,
            valid_round: at(round),
            valid,
        }
    }

    #[track_caller]
    fn row(line: &str, mut before: RoundState, event: Event, actions: &[Action], step: Step) {
        let done = before.on(event, &Rules::default());
        assert_eq!(done, actions, "line {line}: {event:?}");
        assert_eq!(before.step, step, "line {line}: step after {event:?}");
    }

    #[test]
    fn proposing_and_prevoting_by_the_lines_of_the_paper() {
        let lead = Event::Start { leads: true };
        let timer = Action::Schedule(TimerKind::Propose);
        let (x, y) = (Some(pin(1, 1)), Some(pin(2, 1)));
        row(
            "18",
            state(P, None, None),
            lead,
            &[timer, Action::Propose(None)],
            P,
        );
        row(
            "16",
            state(P, None, x),
            lead,
            &[timer, Action::Propose(x)],
            P,
        );
        row(
            "16: S1, valid_round < round",
            state(P, None, Some(pin(1, 2))),
            lead,
            &[timer],
            P,
        );
        row(
            "21",
            state(P, None, None),
            Event::Start { leads: false },
            &[timer],
            P,
        );
        row(
            "24",
            state(P, None, None),
            fresh(1, true),
            &prevote(Some((1, None))),
            V,
        );
        row(
            "26",
            state(P, None, None),
            fresh(1, false),
            &prevote(None),
            V,
        );
        row(
            "24: S1(a)",
            state(P, x, x),
            fresh(1, true),
            &prevote(None),
            V,
        );
        row("26", state(P, y, y), fresh(1, true), &prevote(None), V);
        row(
            "30",
            state(P, None, None),
            again(1, 0, true),
            &prevote(Some((1, Some(0)))),
            V,
        );
        row(
            "30",
            state(P, y, y),
            again(1, 1, true),
            &prevote(Some((1, Some(1)))),
            V,
        );
        row("32", state(P, y, y), again(1, 0, true), &prevote(None), V);
        row(
            "30: S1(a)",
            state(P, x, x),
            again(1, 0, true),
            &prevote(None),
            V,
        );
        row(
            "32",
            state(P, None, None),
            again(1, 0, false),
            &prevote(None),
            V,
        );
        row("32", state(P, None, None), Event::Unfit, &prevote(None), V);
        for step in [V, C] {
            row("22", state(step, None, None), fresh(1, true), &[], step);
            row("28", state(step, None, None), again(1, 0, true), &[], step);
            row("11", state(step, None, None), lead, &[], step);
            let late = Event::Timeout(TimerKind::Propose);
            row("57", state(step, None, None), late, &[], step);
        }
        row(
            "59",
            state(P, None, None),
            Event::Timeout(TimerKind::Propose),
            &prevote(None),
            V,
        );
    }

    #[test]
    fn precommitting_and_moving_on_by_the_lines_of_the_paper() {
        let now = pin(1, 2);
        let polka = Event::Polka(now);
        let lock = [Action::Valid(now), Action::Precommit(Some(now))];
        row("37-43", state(V, None, None), polka, &lock, C);
        row(
            "37-43",
            state(V, Some(pin(2, 1)), Some(pin(2, 1))),
            polka,
            &lock,
            C,
        );
        row("42", state(C, None, None), polka, &[Action::Valid(now)], C);
        row(
            "42: S1(b)",
            state(P, None, None),
            polka,
            &[Action::Valid(now)],
            P,
        );
        row(
            "38: valid already",
            state(V, None, Some(now)),
            polka,
            &lock[1..],
            C,
        );
        let old = Event::Polka(pin(1, 0));
        row(
            "42: S1(b)",
            state(V, None, None),
            old,
            &[Action::Valid(pin(1, 0))],
            V,
        );
        row(
            "42: older than validRound",
            state(V, None, Some(pin(2, 1))),
            old,
            &[],
            V,
        );
        let nil = [Action::Precommit(None)];
        row("45", state(V, None, None), Event::PrevotesNil, &nil, C);
        row("44", state(P, None, None), Event::PrevotesNil, &[], P);
        row("44", state(C, None, None), Event::PrevotesNil, &[], C);
        row(
            "62",
            state(V, None, None),
            Event::Timeout(TimerKind::Prevote),
            &nil,
            C,
        );
        row(
            "61",
            state(C, None, None),
            Event::Timeout(TimerKind::Prevote),
            &[],
            C,
        );
        for step in [P, V, C] {
            let next = |round, skip| {
                [Action::Enter {
                    round: Round(round),
                    skip,
                }]
            };
            row(
                "56",
                state(step, None, None),
                Event::Ahead(Round(5)),
                &next(5, true),
                step,
            );
            row(
                "55",
                state(step, None, None),
                Event::Ahead(Round(2)),
                &[],
                step,
            );
            let over = Event::Timeout(TimerKind::Precommit);
            row("67", state(step, None, None), over, &next(3, false), step);
        }
    }

    #[test]
    fn lines_marked_for_the_first_time_fire_once_a_round() {
        let rules = Rules::default();
        let mut now = state(V, None, None);
        now.enter(Round(3));
        now.step = V;
        let prevote = [Action::Schedule(TimerKind::Prevote)];
        assert_eq!(now.on(Event::PrevotesAny, &rules), prevote, "line 35");
        assert_eq!(now.on(Event::PrevotesAny, &rules), [], "line 34: once");
        let precommit = [Action::Schedule(TimerKind::Precommit)];
        assert_eq!(now.on(Event::PrecommitsAny, &rules), precommit, "line 48");
        assert_eq!(now.on(Event::PrecommitsAny, &rules), [], "line 47: once");
        now.enter(Round(4));
        assert_eq!(
            now.on(Event::PrevotesAny, &rules),
            [],
            "line 34: step is prevote"
        );
        assert_eq!(
            now.on(Event::PrecommitsAny, &rules),
            precommit,
            "line 47: any step"
        );
        let idle = &mut RoundState::new(Era(0));
        let early = Event::Timeout(TimerKind::Propose);
        assert_eq!(idle.on(early, &rules), [], "S3: round 0 needs a reason");
    }

    #[test]
    #[should_panic(expected = "I2")]
    fn rounds_never_decrease() {
        state(P, None, None).enter(Round(2));
    }
}
