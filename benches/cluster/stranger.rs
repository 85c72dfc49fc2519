//! A peer of no good intent, on an address of its own and a small share of a core: it shakes hands and sends.

use rustix::time::{ClockId, clock_gettime};
use rustls::ClientConnection;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use timecoin::base::rng::Rng;

use crate::tls;

/// Between two looks at a connection that takes nothing.
const LOOK: Duration = Duration::from_millis(5);
/// After a connection that was refused.
const REFUSED: Duration = Duration::from_millis(50);
/// Longest connecting or shaking hands.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a stranger does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Valid,
    BadSignature,
    UnknownCoin,
    Noise,
    Reconnect,
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Kind::Valid,
        Kind::BadSignature,
        Kind::UnknownCoin,
        Kind::Noise,
        Kind::Reconnect,
    ];
}

/// What all of them did.
#[derive(Default)]
pub struct Counts {
    handshakes: AtomicU64,
    refused: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    cpu_us: AtomicU64,
    longest_us: AtomicU64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let share = of(&self.cpu_us) as f64 / of(&self.longest_us).max(1) as f64;
        write!(
            f,
            "{} handshakes, {} refused, {} frames, {:.1} MB, {share:.2} of a core",
            of(&self.handshakes),
            of(&self.refused),
            of(&self.frames),
            of(&self.bytes) as f64 / 1e6,
        )
    }
}

/// One of them.
pub struct Stranger {
    pub kind: Kind,
    pub from: Ipv4Addr,
    pub target: SocketAddr,
    pub number: usize,
    pub hello: Vec<u8>,
    pub frames: Vec<Vec<u8>>,
    /// Of a core, at most.
    pub share: f64,
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn rest(time: Duration) {
    std::thread::park_timeout(time);
}

impl Stranger {
    /// Floods until `stop`.
    pub fn flood(&self, counts: &Counts, stop: &AtomicBool) {
        let (begin, cpu_before) = (Instant::now(), cpu());
        let mut rng = Rng::new(self.number as u64);
        while !stop.load(Ordering::Acquire) {
            match self.connect(&mut rng, begin, stop) {
                Some((mut tls, mut stream)) => {
                    counts.handshakes.fetch_add(1, Ordering::Relaxed);
                    if self.kind != Kind::Reconnect {
                        self.send(&mut tls, &mut stream, &mut rng, (begin, stop, counts));
                    }
                }
                None => {
                    counts.refused.fetch_add(1, Ordering::Relaxed);
                    rest(REFUSED);
                }
            }
            self.pace(begin);
        }
        let spent = (cpu() - cpu_before).as_micros() as u64;
        counts.cpu_us.fetch_add(spent, Ordering::Relaxed);
        let took = begin.elapsed().as_micros() as u64;
        counts.longest_us.fetch_max(took, Ordering::Relaxed);
    }

    /// Waits until the share of the core is kept.
    fn pace(&self, begin: Instant) {
        let due = Duration::from_secs_f64(cpu().as_secs_f64() / self.share);
        if let Some(wait) = due.checked_sub(begin.elapsed()) {
            rest(wait.min(Duration::from_millis(200)));
        }
    }

    fn connect(
        &self,
        rng: &mut Rng,
        begin: Instant,
        stop: &AtomicBool,
    ) -> Option<(ClientConnection, TcpStream)> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        socket.bind(&SocketAddr::from((self.from, 0)).into()).ok()?;
        socket.connect_timeout(&self.target.into(), PATIENCE).ok()?;
        socket.set_nonblocking(true).ok()?;
        let mut stream = TcpStream::from(socket);
        // A new node key each time: only the address stays.
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
        let mut tls = tls::session(seed)?;
        let until = Instant::now() + PATIENCE;
        while tls.is_handshaking() {
            if Instant::now() > until || stop.load(Ordering::Acquire) {
                return None;
            }
            move_bytes(&mut tls, &mut stream)?;
            self.pace(begin);
        }
        Some((tls, stream))
    }

    fn send(
        &self,
        tls: &mut ClientConnection,
        stream: &mut TcpStream,
        rng: &mut Rng,
        (begin, stop, counts): (Instant, &AtomicBool, &Counts),
    ) {
        tls.set_buffer_limit(Some(1 << 20));
        if tls.writer().write_all(&self.hello).is_err() {
            return;
        }
        let mut next = 0;
        while !stop.load(Ordering::Acquire) {
            if !tls.wants_write() {
                let noise;
                let bytes = match self.frames.get(next % self.frames.len().max(1)) {
                    Some(frame) => frame,
                    None => {
                        noise = (0..2_000).map(|_| rng.next_u64() as u8).collect();
                        &noise
                    }
                };
                next += 1;
                if tls.writer().write_all(bytes).is_err() {
                    return;
                }
                counts.frames.fetch_add(1, Ordering::Relaxed);
                counts
                    .bytes
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            if move_bytes(tls, stream).is_none() {
                return;
            }
            if tls.wants_write() {
                rest(LOOK);
            }
            self.pace(begin);
        }
    }
}

/// Reads what there is and throws it away, writes what fits; `None` when the connection is over.
fn move_bytes(tls: &mut ClientConnection, stream: &mut TcpStream) -> Option<()> {
    let mut idle = true;
    loop {
        match tls.read_tls(stream) {
            Ok(0) => return None,
            Ok(_) => {
                idle = false;
                tls.process_new_packets().ok()?;
                let mut scratch = [0; 4_096];
                while tls.reader().read(&mut scratch).is_ok_and(|count| count > 0) {}
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return None,
        }
    }
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(_) => idle = false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return None,
        }
    }
    if idle {
        rest(LOOK);
    }
    Some(())
}
