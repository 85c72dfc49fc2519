//! The sync thread: drives the machine that catches up, and serves blocks and certificates to peers that do.

use crate::base::time::Now;
use crate::crypto::verify::Verified;
use crate::ledger::snapshot::Contents;
use crate::node::clock::Clock;
use crate::node::consensus::Report;
use crate::node::download::{Download, Fetched};
use crate::node::meter::Meter;
use crate::node::netcmd::NetCommand;
use crate::node::publish::Shared;
use crate::node::queues::Outlet;
use crate::node::snapshots::Shelf;
use crate::p2p::messages::{CertifiedBlock, Chunk, Message, PeerId};
use crate::replica::catchup::Synced;
use crate::rpc::node::SyncView;
use crate::storage::{LedgerStore, StorageError};
use crate::sync::fetch::FetchInput;
use crate::sync::{self, Applied, Effect, Input, Machine};
use crate::types::block::{Block, Certificate, CertifiedHeader};
use crate::types::ids::Height;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest wait without a sign of life.
const BEAT: Duration = Duration::from_secs(1);

/// Inputs taken before their effects are performed.
const TURN_INPUT_MAX: usize = 256;
/// Certificates that one thread of the pool checks together.
const CERTIFICATES_PER_JOB: usize = 16;
/// Time between two lines of progress, ms.
const LOG_MS: u64 = 5_000;

/// What comes in.
pub enum SyncInput {
    /// A peer told its height.
    Position(PeerId, Height, i64),
    /// A peer is gone.
    Gone(PeerId),
    /// A block that was asked for.
    Block(PeerId, Box<CertifiedBlock>),
    /// Headers that were asked for.
    Headers(PeerId, Vec<CertifiedHeader>),
    /// A peer does not keep a height that it was asked for; the lowest that it keeps.
    Unavailable(PeerId, Height, Height),
    /// A verdict on headers.
    HeadersVerdict(u64, bool),
    /// A peer asks which snapshot is served.
    GetSnapshot(PeerId),
    /// A peer asks for a chunk of a snapshot.
    GetChunk(PeerId, (Height, u16, u32)),
    /// A peer says which snapshot it serves.
    Offer(PeerId, Option<Box<Contents>>),
    /// A chunk that was asked for.
    Chunk(PeerId, Box<Chunk>),
    /// Whether a piece of a snapshot is right and kept.
    Piece(u16, bool),
    /// A peer asks for headers; of slot blocks only?
    GetHeaders(PeerId, Height, bool),
    /// A peer asks for blocks.
    GetBlocks(PeerId, Height, u16),
    /// A peer asks for a certificate.
    GetCertificate(PeerId, Height),
    /// A verdict on a certificate.
    Verdict(u64, Result<Verified<Certificate>, Certificate>),
    /// The replica decided a block.
    Applied(Applied),
    /// The node stops.
    Stop,
}

/// Where the thread writes.
pub struct Outlets {
    /// To net.
    pub net: Outlet<NetCommand>,
    /// Wakes net.
    pub wake_net: crate::net::WakeHandle,
    /// To consensus.
    pub reports: Outlet<Report>,
    /// Back from the pool.
    pub inbox: Outlet<SyncInput>,
    /// Pool of verification threads.
    pub pool: crate::node::pool::Pool,
    /// What others see of the node.
    pub shared: Arc<Shared>,
}

/// Blocks that are durable, and those decided after them.
pub struct Blocks {
    /// The durable ones.
    pub ledger: LedgerStore,
    /// The others.
    pub shared: Arc<Shared>,
}

impl sync::BlockReader for Blocks {
    type Error = StorageError;
    fn certified(&self, height: Height) -> Result<Option<(Arc<Block>, Certificate)>, StorageError> {
        let view = self.shared.view();
        if let Some(recent) = view.recent.iter().find(|b| b.certificate.height == height) {
            return Ok(Some((recent.block.clone(), recent.certificate.clone())));
        }
        let snapshot = self.ledger.snapshot()?;
        Ok(snapshot.block(height)?.zip(snapshot.certificate(height)?))
    }
    fn encoded(&self, height: Height) -> Result<Option<Vec<u8>>, StorageError> {
        let view = self.shared.view();
        if let Some(recent) = view.recent.iter().find(|b| b.certificate.height == height) {
            let frame = (&*recent.block, &recent.certificate);
            return Ok(Some(crate::types::codec::encode(&frame)));
        }
        self.ledger.snapshot()?.certified_bytes(height)
    }
    fn slot_headers(
        &self,
        from: Height,
        take: &mut dyn FnMut(CertifiedHeader) -> bool,
    ) -> Result<(), StorageError> {
        let view = self.ledger.snapshot()?;
        view.slot_headers(from, |header, certificate| {
            let mut next = None;
            if header.next_validators_hash != header.validators_hash {
                next = view.validator_set(&header.next_validators_hash)?;
            }
            Ok(take(CertifiedHeader {
                header,
                certificate,
                next,
            }))
        })
    }
    fn first(&self) -> Result<Height, StorageError> {
        Ok(self.ledger.base()?.next())
    }
}

/// A certificate that goes to the pool, with its ticket.
type Unchecked = ((u64, Certificate), Vec<crate::crypto::verify::Check>);

/// The thread's state.
pub struct Syncer {
    /// Clock.
    pub clock: Clock,
    /// The machine.
    pub machine: Machine,
    /// What it serves.
    pub blocks: Blocks,
    /// Where it writes.
    pub out: Outlets,
    /// F3: below a trusted slot header signatures of transactions are not checked.
    pub certified: bool,
    /// When progress was last logged.
    pub told: crate::base::time::MonoUs,
    /// Snapshots.
    pub snapshots: Snapshots,
}

/// What the thread does with snapshots.
pub struct Snapshots {
    /// Those that are served.
    pub shelf: Shelf,
    /// Where they lie.
    pub root: std::path::PathBuf,
    /// Whether one is fetched when blocks would take long or cannot be had.
    pub wanted: bool,
    /// The one that is being fetched.
    pub download: Option<Box<Download>>,
    /// Set when one is whole: the node starts again with it.
    pub restart: Arc<AtomicBool>,
}

impl Syncer {
    /// Runs until [`SyncInput::Stop`] or the queue closes.
    pub fn run(mut self, mut meter: Meter, inbox: &Receiver<SyncInput>) {
        let mut deadline = None;
        if self.snapshots.wanted && self.blocks.ledger.tip() == Height(0) {
            self.begin_download();
        }
        loop {
            let wait = deadline.map_or(BEAT, |at| self.clock.until(at).min(BEAT));
            meter.worked();
            let input = inbox.recv_timeout(wait);
            meter.waited(false);
            match input {
                Ok(SyncInput::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {
                    self.machine.handle(self.clock.now(), Input::Tick)
                }
            }
            // What has come meanwhile is taken together: its signatures are checked together.
            for input in inbox.try_iter().take(TURN_INPUT_MAX) {
                if let SyncInput::Stop = input {
                    return;
                }
                self.take(input);
            }
            let mut certificates = Vec::new();
            while let Some(effect) = self.machine.effect() {
                match effect {
                    Effect::SetDeadline(at) => deadline = at,
                    Effect::Verify {
                        ticket,
                        certificate,
                        checks,
                    } => certificates.push(((ticket, certificate), checks)),
                    other => self.perform(other),
                }
            }
            self.verify(certificates);
            self.fetch(FetchInput::Tick);
            self.show();
            self.out.wake_net.wake();
        }
    }

    /// Gives certificates to the pool, some at a time.
    fn verify(&self, mut certificates: Vec<Unchecked>) {
        while !certificates.is_empty() {
            let rest = certificates.split_off(certificates.len().min(CERTIFICATES_PER_JOB));
            let job = std::mem::replace(&mut certificates, rest);
            let inbox = self.out.inbox.clone();
            self.out.pool.spawn(move || {
                for verdict in Verified::check_many(job) {
                    inbox.put(match verdict {
                        Ok(good) => {
                            let ticket = good.0;
                            SyncInput::Verdict(ticket, Ok(good.map(|(_, certificate)| certificate)))
                        }
                        Err((ticket, certificate)) => SyncInput::Verdict(ticket, Err(certificate)),
                    });
                }
            });
        }
    }

    fn begin_download(&mut self) {
        let snapshots = &mut self.snapshots;
        let begun = Download::new(self.clock.now(), &snapshots.root, &self.blocks.ledger);
        match begun {
            Ok(download) => {
                if let Some((height, _)) = self.machine.root() {
                    log::info!(
                        "snapshots above height {height}, of which a block is trusted, are used only if it is a slot block and on their chain"
                    );
                }
                snapshots.download = Some(Box::new(download));
                self.machine.want_bodies(false);
            }
            Err(error) => {
                snapshots.wanted = false;
                log::error!("no snapshot is fetched: {error}");
            }
        }
    }

    /// The fetch of a snapshot goes on, if there is one.
    fn fetch(&mut self, input: FetchInput) {
        let now = self.clock.now();
        let Some(download) = self.snapshots.download.as_mut() else {
            return;
        };
        let heads = |height| self.machine.slot_head(height);
        match download.take(now, input, &heads, &self.out) {
            Fetched::Going => {}
            Fetched::Given => {
                self.snapshots.download = None;
                self.machine.want_bodies(true);
            }
            Fetched::Whole => {
                log::info!("the snapshot is whole: starting again with it");
                self.snapshots.download = None;
                self.snapshots.wanted = false;
                self.snapshots.restart.store(true, Ordering::Release);
            }
        }
    }

    /// Answers GetSnapshot and GetChunk.
    fn serve_snapshot(&self, peer: PeerId, chunk: Option<(Height, u16, u32)>) {
        let shelf = self.snapshots.shelf.read().clone();
        let Some((height, bucket, index)) = chunk else {
            let contents = shelf
                .first()
                .map(|served| Box::new(served.contents.clone()));
            return self.send(peer, Message::SnapshotInfo(contents));
        };
        let mut found = shelf.iter();
        let found = found.find(|served| served.contents.header.height == height);
        let bytes = found.map(|served| served.dir.chunk(&served.contents, bucket, index));
        match bytes {
            Some(Ok(Some(bytes))) => {
                let chunk = Chunk {
                    height,
                    bucket,
                    index,
                    bytes: crate::base::bounded::BoundedBytes::try_from(bytes).unwrap_or_default(),
                };
                self.send(peer, Message::Chunk(Box::new(chunk)));
            }
            Some(Err(error)) => log::error!("{error}"),
            // 0 is no block: it is the snapshot that is not kept.
            Some(Ok(None)) | None => self.send(peer, Message::Unavailable((height, Height(0)))),
        }
    }

    /// Tells others, and now and then the log, how far it is.
    fn show(&mut self) {
        let now = self.clock.now();
        let progress = self.machine.progress(now);
        let rate = progress.blocks_per_1000_s;
        let left = progress.to.0.saturating_sub(progress.at.0);
        let fetching = self.snapshots.download.as_ref().map(|d| d.progress());
        let pruned = progress.waiting == crate::sync::Waiting::Pruned;
        if pruned && fetching.is_none() && self.snapshots.wanted {
            self.begin_download();
        }
        let view = SyncView {
            active: progress.active,
            target: progress.to,
            ranges: progress.requests,
            bytes: progress.held_bytes,
            peers: progress.asked,
            headers: progress.headers,
            from: progress.from,
            blocks_per_1000_s: rate,
            left_s: (rate > 0).then(|| left.saturating_mul(1_000) / rate),
            waiting: progress.waiting.text(),
            snapshot: fetching.map(|p| (p.height.unwrap_or_default(), p.have)),
        };
        self.out.shared.show_sync(view);
        if progress.active && left > 0 && self.told.plus_ms(LOG_MS) <= now.mono {
            self.told = now.mono;
            if let Some(fetch) = fetching {
                return log::info!(
                    "fetching a snapshot: {} of 257 pieces, {} peers have it, {} bytes under way",
                    fetch.have,
                    fetch.holders,
                    fetch.bytes
                );
            }
            log::info!(
                "catching up: height {} of {}, {}.{} blocks/s, {}; {}",
                progress.at,
                progress.to,
                rate / 1_000,
                rate % 1_000 / 100,
                view.left_s
                    .map_or("time left unknown".into(), |s| format!("{s} s left")),
                view.waiting
            );
        }
    }

    fn position(&mut self, now: Now, peer: sync::Peer, height: Height, score: i64) {
        let input = Input::Position {
            peer,
            height,
            score,
        };
        self.machine.handle(now, input);
        self.fetch(FetchInput::Peer(peer));
    }

    fn take(&mut self, input: SyncInput) {
        let now = self.clock.now();
        match input {
            SyncInput::Position(peer, height, score) => {
                self.position(now, peer.0, height, score);
            }
            SyncInput::Gone(peer) => {
                self.machine.handle(now, Input::Gone { peer: peer.0 });
                self.fetch(FetchInput::Gone(peer.0));
            }
            SyncInput::GetSnapshot(peer) => self.serve_snapshot(peer, None),
            SyncInput::GetChunk(peer, what) => self.serve_snapshot(peer, Some(what)),
            SyncInput::Offer(peer, offer) => self.fetch(FetchInput::Offer(peer.0, offer)),
            SyncInput::Chunk(peer, chunk) => {
                let what = (chunk.height, chunk.bucket, chunk.index);
                let bytes = chunk.bytes.to_vec();
                self.fetch(FetchInput::Chunk(peer.0, what, bytes));
            }
            SyncInput::Piece(piece, good) => self.fetch(FetchInput::Verdict(piece, good)),
            SyncInput::Block(peer, certified) => {
                let CertifiedBlock { block, certificate } = *certified;
                self.machine.handle(
                    now,
                    Input::Block {
                        peer: peer.0,
                        block: Arc::new(block),
                        certificate,
                    },
                );
            }
            SyncInput::Verdict(ticket, outcome) => {
                self.machine.handle(now, Input::Verdict { ticket, outcome })
            }
            SyncInput::Applied(applied) => self.machine.handle(now, Input::Applied(applied)),
            SyncInput::GetBlocks(peer, from, count) => self.serve(peer, from, count),
            SyncInput::GetHeaders(peer, from, slots) => {
                match sync::answer_headers(&self.blocks, from, slots) {
                    Ok(found) => {
                        let found = crate::base::bounded::BoundedVec::take_from(found);
                        self.send(peer, Message::Headers(found));
                    }
                    Err(error) => {
                        log::error!("headers cannot be read for peer {}: {error}", peer.0)
                    }
                }
            }
            SyncInput::Headers(peer, headers) => {
                let peer = peer.0;
                self.machine.handle(now, Input::Headers { peer, headers });
            }
            SyncInput::Unavailable(peer, _, Height(0)) => {
                self.fetch(FetchInput::Unavailable(peer.0))
            }
            SyncInput::Unavailable(peer, height, first) => {
                let peer = peer.0;
                let input = Input::Unavailable {
                    peer,
                    height,
                    first,
                };
                self.machine.handle(now, input);
            }
            SyncInput::HeadersVerdict(ticket, good) => self
                .machine
                .handle(now, Input::HeadersVerdict { ticket, good }),
            SyncInput::GetCertificate(peer, height) => {
                use crate::sync::BlockReader;
                if let Ok(Some((_, certificate))) = self.blocks.certified(height) {
                    self.send(peer, Message::Certificate(Box::new(certificate)));
                }
            }
            SyncInput::Stop => {}
        }
    }

    fn serve(&mut self, peer: PeerId, from: Height, count: u16) {
        use crate::sync::BlockReader;
        let found = sync::answer_encoded(&self.blocks, from, count);
        match found.and_then(|found| Ok((found, self.blocks.first()?))) {
            Ok((found, first)) if found.is_empty() && from < first => {
                self.send(peer, Message::Unavailable((from, first)));
            }
            Ok((found, _)) => {
                for body in found {
                    let body = body.into();
                    let send = NetCommand::SendEncoded(peer, Message::BLOCK, body);
                    self.out.net.put(send);
                }
            }
            Err(error) => log::error!(
                "blocks from {from} cannot be read for peer {}: {error}",
                peer.0
            ),
        }
    }

    fn send(&self, peer: PeerId, message: Message) {
        self.out.send(peer, message);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Request { peer, from, count } => {
                self.send(PeerId(peer), Message::GetBlocks((from, count)))
            }
            Effect::Refresh { peer } => self.out.net.put(NetCommand::Refresh(PeerId(peer))),
            Effect::Headers(items) => {
                if let Some(download) = self.snapshots.download.as_mut() {
                    download.headers(&items);
                }
            }
            Effect::RequestHeaders { peer, from } => {
                self.send(PeerId(peer), Message::GetHeaders((from, true)))
            }
            Effect::VerifyHeaders { ticket, checks } => {
                let inbox = self.out.inbox.clone();
                self.out.pool.spawn(move || {
                    let good = crate::crypto::verify::verify_all(&checks);
                    inbox.put(SyncInput::HeadersVerdict(ticket, good));
                });
            }
            Effect::Deliver {
                block,
                certificate,
                trusted,
            } => self.out.reports.put(Report::Synced(Synced {
                block,
                certificate,
                // F2: without a young root no header is trusted.
                trusted: trusted
                    && self.certified
                    && self.out.shared.view().trust.unanchored.is_none(),
            })),
            Effect::Fault { peer, why } => {
                log::warn!("peer {peer}: {why}");
                self.out
                    .net
                    .put(NetCommand::Fault(PeerId(peer), "wrong blocks"));
            }
            Effect::Conflict {
                peer,
                block,
                certificate,
            } => {
                log::error!(
                    "FORK: peer {peer} showed a certificate for block {} at height {}, where this node holds another \
                     decided block; keep both nodes' data and compare with other operators (block {})",
                    certificate.block,
                    certificate.height,
                    block.id()
                );
            }
            // Taken care of by the loop.
            Effect::SetDeadline(_) | Effect::Verify { .. } => {}
            Effect::Stray { peer } => self.out.reports.put(Report::Strayed(PeerId(peer))),
        }
    }
}
