//! What a height costs its machines: 4 and 100 of equal power decide one block in memory, all messages of all delivered.
//!
//! Signatures, disks and networks apart. Says how many messages a decision takes. `cargo bench --bench consensus`.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use timecoin::consensus::machine::Machine;
use timecoin::consensus::messages::*;
use timecoin::consensus::rules::Rules;
use timecoin::crypto::hash::Hash;
use timecoin::crypto::keys::{PublicKey, SecretKey, Signature};
use timecoin::crypto::verify::Verified;
use timecoin::types::address::Network;
use timecoin::types::ids::*;
use timecoin::types::params::Params;
use timecoin::types::validators::{Validator, ValidatorSet};
use timecoin::types::vote::{SignedProposal, Vote};

const SIZES: [usize; 2] = [4, 100];
const BLOCK: BlockId = BlockId(Hash([9; 32]));

fn id(i: usize) -> MasternodeId {
    MasternodeId(Hash([i as u8 + 1; 32]))
}

fn context(count: usize) -> HeightContext {
    let members = (0..count).map(|i| Validator {
        id: id(i),
        operator: PublicKey([i as u8; 32]),
        power: Power(1_000),
    });
    HeightContext {
        branch: Branch(0),
        era: Era(0),
        height: Height(7),
        set: Arc::new(ValidatorSet::new(members.collect()).unwrap()),
        me: None,
        params: Arc::new(Params::of(Network::Dev)),
        leaders: Arc::new(move |round: Round| id(round.0 as usize % count)),
        rules: Rules::default(),
    }
}

/// A height and the proof that a signature was checked: what is checked here is not signed.
struct Stage {
    context: HeightContext,
    proof: Verified<()>,
}

impl Stage {
    fn new(count: usize) -> Stage {
        Stage {
            context: context(count),
            proof: Verified::sign(&SecretKey::from_seed(&[1; 32]), &Hash::ZERO, |_| ()),
        }
    }

    fn input(&self, from: usize, message: Message) -> Input {
        let signature = Signature([from as u8; 64]);
        match message {
            Message::Vote(body) => Input::Vote(self.proof.clone().map(|()| Vote {
                body,
                voter: id(from),
                signature,
            })),
            Message::Proposal(body) => Input::Proposal {
                proposal: self.proof.clone().map(|()| SignedProposal {
                    body,
                    proposer: id(from),
                    signature,
                }),
                header_at: body.at(),
                acceptable: true,
            },
        }
    }

    /// Runs the height until nothing is under way: messages sent, each to all others, and machines that decided.
    fn run(&self) -> (usize, usize) {
        let count = self.context.set.len();
        let machine = |i| {
            let me = Some(id(i));
            Machine::new(HeightContext {
                me,
                ..self.context.clone()
            })
        };
        let mut machines: Vec<Machine> = (0..count).map(machine).collect();
        let mut open: VecDeque<(usize, Input)> = (0..count).map(|i| (i, Input::Begin)).collect();
        let (mut messages, mut decided) = (0, 0);
        while let Some((i, input)) = open.pop_front() {
            for output in machines[i].handle(input) {
                match output {
                    Output::Build { round } => {
                        let block = BLOCK;
                        open.push_back((i, Input::Built { round, block }));
                    }
                    Output::WantBlock { block, .. } => {
                        let valid = true;
                        open.push_back((i, Input::Validity { block, valid }));
                    }
                    Output::Sign(sign) => {
                        let input = self.input(i, sign.message);
                        messages += count - 1;
                        open.extend((0..count).map(|to| (to, input.clone())));
                    }
                    Output::Decided(certificate) => {
                        assert_eq!(certificate.block, BLOCK, "agreement");
                        decided += 1;
                    }
                    _ => {}
                }
            }
        }
        (messages, decided)
    }
}

fn consensus(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide a height");
    for count in SIZES {
        let height = Stage::new(count);
        let (messages, decided) = height.run();
        assert_eq!(decided, count, "every machine decides");
        println!(
            "{count} machines: {messages} messages, {} for each machine",
            messages / count
        );
        group.bench_function(BenchmarkId::new("machines", count), |b| {
            b.iter(|| black_box(&height).run());
        });
    }
    group.finish();
}

criterion_group!(benches, consensus);
criterion_main!(benches);
