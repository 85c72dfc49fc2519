//! Fetching a snapshot (F4): which one, from whom, and bucket by bucket.
//!
//! Input: what peers offer, verified slot headers, chunks, verdicts on whole buckets, time. Output: questions, buckets to be
//! checked and kept, faults. A bucket comes from one peer, so that a wrong one has one author. It must never ask for a
//! snapshot whose header is not verified, hold more than [`FETCH_BYTES_MAX`], or wait for a peer that does not answer.

use super::*;
use crate::base::time::Now;
use crate::ledger::snapshot::{CHUNK_BYTES, Contents};
use crate::ledger::utxo::BUCKET_COUNT;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Buckets asked for at a time.
const JOB_COUNT_MAX: usize = 8;
/// Of them from one peer.
const JOBS_PER_PEER: usize = 2;
/// Bytes of buckets under way; a bucket that is larger comes alone.
pub const FETCH_BYTES_MAX: u64 = 64 << 20;
/// A peer that has not said what it offers is asked again after this time, ms.
const ASK_AGAIN_MS: u64 = 10_000;
/// When nobody has offered a usable snapshot for this long, blocks are fetched instead, ms.
pub const GIVE_UP_MS: u64 = 60_000;
/// Least time for a chunk to arrive, ms.
const CHUNK_TIMEOUT_MS: u64 = 5_000;
/// A peer that was late rests this long, ms.
const CHUNK_REST_MS: u64 = 5_000;

/// The number of the piece that is no bucket: the rest of the state.
pub const REST: u16 = BUCKET_COUNT as u16;

/// What happens to a fetch.
#[derive(Debug)]
pub enum FetchInput {
    /// A peer is there.
    Peer(Peer),
    /// A peer is gone.
    Gone(Peer),
    /// A peer says what it offers.
    Offer(Peer, Option<Box<Contents>>),
    /// A chunk: height, bucket, index.
    Chunk(Peer, (Height, u16, u32), Vec<u8>),
    /// A peer does not hold the snapshot any more.
    Unavailable(Peer),
    /// Whether the bucket is right; if so it is kept.
    Verdict(u16, bool),
    /// Time has passed, or headers were verified.
    Tick,
}

/// What a fetch wants done.
#[derive(Debug)]
pub enum FetchEffect {
    /// Send GetSnapshot.
    AskOffer(Peer),
    /// Send GetChunk: height, bucket, index.
    AskChunk(Peer, (Height, u16, u32)),
    /// This snapshot is being fetched: answer with [`Fetch::keep`] which buckets are there from before.
    Chosen(Box<Contents>),
    /// Check a bucket and keep it if it is right; then [`FetchInput::Verdict`].
    Check(u16, Vec<Vec<u8>>),
    /// A peer sent what is no piece of what it offered.
    Fault(Peer, &'static str),
    /// Everything is there.
    Done,
    /// Nobody offers a snapshot.
    GaveUp,
}

struct Holder {
    asked: Option<MonoUs>,
    offer: Option<Box<Contents>>,
    rests_until: MonoUs,
    /// Pieces that did not come in time; one that came makes up for one.
    late: u32,
}

struct Job {
    peer: Peer,
    chunks: Vec<Vec<u8>>,
    deadline: MonoUs,
}

/// A fetch under way.
pub struct Fetch {
    holders: BTreeMap<Peer, Holder>,
    chosen: Option<Box<Contents>>,
    have: BTreeSet<u16>,
    /// Whole buckets and who sent them; an empty one comes from nobody.
    checking: BTreeMap<u16, Option<Peer>>,
    jobs: BTreeMap<u16, Job>,
    since: MonoUs,
    ended: bool,
    effects: VecDeque<FetchEffect>,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress {
    /// Height of the snapshot; `None` while there is none.
    pub height: Option<Height>,
    /// Pieces that are there, of 257.
    pub have: usize,
    /// Bytes under way.
    pub bytes: u64,
    /// Peers that offer it.
    pub holders: usize,
}

impl Fetch {
    /// A fetch that begins now.
    pub fn new(now: Now) -> Fetch {
        Fetch {
            holders: BTreeMap::new(),
            chosen: None,
            have: BTreeSet::new(),
            checking: BTreeMap::new(),
            jobs: BTreeMap::new(),
            since: now.mono,
            ended: false,
            effects: VecDeque::new(),
        }
    }

    /// Pieces that are there from before.
    pub fn keep(&mut self, pieces: impl IntoIterator<Item = u16>) {
        self.have.extend(pieces.into_iter().filter(|p| *p <= REST));
    }

    /// Takes an input; `heads` knows verified slot headers; then call [`Fetch::effect`] until it is empty.
    pub fn handle(
        &mut self,
        now: Now,
        input: FetchInput,
        heads: &dyn Fn(Height) -> Option<SlotHead>,
    ) {
        let at = now.mono;
        match input {
            FetchInput::Peer(peer) => {
                self.holders.entry(peer).or_insert(Holder {
                    asked: None,
                    offer: None,
                    rests_until: MonoUs(0),
                    late: 0,
                });
            }
            FetchInput::Gone(peer) => self.drop_peer(peer),
            FetchInput::Offer(peer, offer) => self.offered(peer, offer),
            FetchInput::Chunk(peer, what, bytes) => self.arrived(at, peer, what, bytes),
            FetchInput::Unavailable(peer) => {
                self.jobs.retain(|_, job| job.peer != peer);
                if let Some(holder) = self.holders.get_mut(&peer) {
                    holder.offer = None;
                }
            }
            FetchInput::Verdict(bucket, good) => self.verdict(bucket, good),
            FetchInput::Tick => {}
        }
        if self.ended {
            return;
        }
        self.expire(at);
        self.ask_offers(at);
        self.choose(at, heads);
        self.ask_chunks(at);
        let whole = self.have.len() > usize::from(REST);
        if self.chosen.is_some() && whole {
            self.ended = true;
            self.effects.push_back(FetchEffect::Done);
        }
    }

    /// The next effect to perform.
    pub fn effect(&mut self) -> Option<FetchEffect> {
        self.effects.pop_front()
    }

    /// How far it is.
    pub fn progress(&self) -> FetchProgress {
        let height = self.chosen.as_ref().map(|c| c.header.height);
        FetchProgress {
            height,
            have: self.have.len(),
            bytes: self.bytes(),
            holders: self.holders.values().filter(|h| self.offers(h)).count(),
        }
    }

    /// The snapshot that is being fetched.
    pub fn contents(&self) -> Option<&Contents> {
        self.chosen.as_deref()
    }

    fn bytes(&self) -> u64 {
        let Some(contents) = &self.chosen else {
            return 0;
        };
        let under_way = self.jobs.keys().chain(self.checking.keys());
        under_way.map(|bucket| contents.bytes(*bucket)).sum()
    }

    fn offers(&self, holder: &Holder) -> bool {
        let chosen = self.chosen.as_deref();
        chosen.is_some() && holder.offer.as_deref() == chosen
    }

    fn drop_peer(&mut self, peer: Peer) {
        self.holders.remove(&peer);
        self.jobs.retain(|_, job| job.peer != peer);
    }

    fn fault(&mut self, peer: Peer, why: &'static str) {
        self.drop_peer(peer);
        self.effects.push_back(FetchEffect::Fault(peer, why));
    }

    fn offered(&mut self, peer: Peer, offer: Option<Box<Contents>>) {
        if self.holders.get(&peer).is_none_or(|h| h.asked.is_none()) {
            return;
        }
        if offer.as_ref().is_some_and(|offer| offer.check().is_err()) {
            return self.fault(peer, "a snapshot that is not the one of its header");
        }
        if let Some(holder) = self.holders.get_mut(&peer) {
            holder.offer = offer;
        }
    }

    fn arrived(
        &mut self,
        now: MonoUs,
        peer: Peer,
        (height, bucket, index): (Height, u16, u32),
        bytes: Vec<u8>,
    ) {
        let Some(contents) = self.chosen.as_deref() else {
            return;
        };
        let size = contents.bytes(bucket);
        let chunks = contents.chunks(bucket);
        let Some(job) = self.jobs.get_mut(&bucket) else {
            return;
        };
        let wanted = job.peer == peer
            && height == contents.header.height
            && index as usize == job.chunks.len();
        if !wanted {
            return;
        }
        let left = size.saturating_sub(u64::from(index) * CHUNK_BYTES as u64);
        if bytes.len() as u64 != left.min(CHUNK_BYTES as u64) {
            return self.fault(
                peer,
                "a chunk of a snapshot that has another size than offered",
            );
        }
        job.chunks.push(bytes);
        job.deadline = now.plus_ms(CHUNK_TIMEOUT_MS);
        if (job.chunks.len() as u64) < chunks {
            let next = (height, bucket, index + 1);
            self.effects.push_back(FetchEffect::AskChunk(peer, next));
        } else if let Some(job) = self.jobs.remove(&bucket) {
            self.checking.insert(bucket, Some(peer));
            self.effects
                .push_back(FetchEffect::Check(bucket, job.chunks));
        }
    }

    fn verdict(&mut self, bucket: u16, good: bool) {
        let Some(sender) = self.checking.remove(&bucket) else {
            return;
        };
        if good {
            self.have.insert(bucket);
            let holder = sender.and_then(|peer| self.holders.get_mut(&peer));
            if let Some(holder) = holder {
                holder.late = holder.late.saturating_sub(1);
            }
        } else if let Some(peer) = sender {
            self.fault(peer, "a bucket of a snapshot that does not have its digest");
        } else {
            // Nobody sent it: whoever offers a table of contents with this gap made it up.
            let holders = self.holders.iter().filter(|(_, h)| self.offers(h));
            let liars: Vec<Peer> = holders.map(|(peer, _)| *peer).collect();
            for peer in liars {
                self.fault(peer, "a snapshot that lacks coins of its header");
            }
        }
    }

    /// What was asked for and did not come is asked for elsewhere.
    fn expire(&mut self, now: MonoUs) {
        let late: Vec<u16> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.deadline <= now)
            .map(|(bucket, _)| *bucket)
            .collect();
        for bucket in late {
            let peer = self.jobs.remove(&bucket).map(|job| job.peer);
            let holder = peer.and_then(|peer| self.holders.get_mut(&peer));
            if let Some(holder) = holder {
                holder.rests_until = now.plus_ms(CHUNK_REST_MS);
                holder.late = holder.late.saturating_add(1);
            }
        }
    }

    fn ask_offers(&mut self, now: MonoUs) {
        for (peer, holder) in &mut self.holders {
            let due = holder
                .asked
                .is_none_or(|asked| holder.offer.is_none() && asked.plus_ms(ASK_AGAIN_MS) <= now);
            if due {
                holder.asked = Some(now);
                self.effects.push_back(FetchEffect::AskOffer(*peer));
            }
        }
    }

    /// The highest snapshot with a verified header. One that nobody offers any more is given up for another.
    fn choose(&mut self, now: MonoUs, heads: &dyn Fn(Height) -> Option<SlotHead>) {
        if self.holders.values().any(|holder| self.offers(holder)) {
            self.since = now;
            return;
        }
        let verified = |contents: &&Contents| {
            let id = contents.header.id();
            heads(contents.header.height).is_some_and(|head| head.id == id)
        };
        let offers = self.holders.values().filter_map(|h| h.offer.as_deref());
        let best = offers.filter(verified).max_by_key(|c| c.header.height);
        if let Some(best) = best {
            let best = Box::new(best.clone());
            if self.chosen.as_ref() != Some(&best) {
                self.have.clear();
                self.jobs.clear();
                self.checking.clear();
                self.chosen = Some(best.clone());
                self.effects.push_back(FetchEffect::Chosen(best));
            }
            self.since = now;
        } else if self.since.plus_ms(GIVE_UP_MS) <= now {
            self.ended = true;
            self.effects.push_back(FetchEffect::GaveUp);
        }
    }

    fn ask_chunks(&mut self, now: MonoUs) {
        // Which pieces are there from before must be known first.
        let unanswered = |effect: &FetchEffect| matches!(effect, FetchEffect::Chosen(_));
        if self.effects.iter().any(unanswered) {
            return;
        }
        let Some(contents) = self.chosen.clone() else {
            return;
        };
        for bucket in (0..=REST).rev() {
            let taken = self.have.contains(&bucket)
                || self.jobs.contains_key(&bucket)
                || self.checking.contains_key(&bucket);
            if taken {
                continue;
            }
            if contents.bytes(bucket) == 0 {
                // An empty bucket has the digest of nothing, which its leaf must be.
                self.checking.insert(bucket, None);
                self.effects
                    .push_back(FetchEffect::Check(bucket, Vec::new()));
                continue;
            }
            let bytes = self.bytes();
            let full = bytes > 0 && bytes + contents.bytes(bucket) > FETCH_BYTES_MAX;
            if full || self.jobs.len() + self.checking.len() >= JOB_COUNT_MAX {
                return;
            }
            let busy = |peer: &Peer| self.jobs.values().filter(|job| job.peer == *peer).count();
            let able = self
                .holders
                .iter()
                .filter(|(_, h)| self.offers(h) && h.rests_until <= now);
            // Who let pieces wait is asked last (F1).
            let ranked = able.map(|(peer, h)| (h.late, busy(peer), *peer));
            let free = ranked.filter(|(_, busy, _)| *busy < JOBS_PER_PEER);
            let Some((.., peer)) = free.min() else {
                return;
            };
            let deadline = now.plus_ms(CHUNK_TIMEOUT_MS);
            let job = Job {
                peer,
                chunks: Vec::new(),
                deadline,
            };
            self.jobs.insert(bucket, job);
            let first = (contents.header.height, bucket, 0);
            self.effects.push_back(FetchEffect::AskChunk(peer, first));
        }
    }
}
