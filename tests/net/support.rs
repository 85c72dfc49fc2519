//! A net thread for tests: a handler that writes everything down and lets the test run code on the thread.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use timecoin::net::{
    Class, CloseReason, ConnId, ConnInfo, DialError, DialId, FrameRule, Handler, HttpRequest,
    HttpResponse, HttpToken, Io, LocalAddrs, NetConfig, NodeIdentity, Reactor, WakeHandle,
};

/// Generous: a state that has not come by then never will.
pub const PATIENCE: Duration = Duration::from_secs(300);

type Job = Box<dyn FnOnce(&mut Io) + Send>;

#[derive(Debug)]
pub enum Seen {
    Connected(ConnId, ConnInfo),
    Frame(ConnId, u8, Vec<u8>),
    Closed(ConnId, CloseReason),
    DialFailed(DialId, DialError),
    Http(HttpRequest),
    HttpGone(HttpToken),
    Deadline,
}

/// Frame types of the tests: class in the low three bits, a second type per class for the limit tests.
pub fn rule(frame_type: u8) -> Option<FrameRule> {
    let class = *Class::ALL.get(usize::from(frame_type & 7))?;
    match frame_type >> 3 {
        0 => Some(FrameRule {
            limit: 4 << 20,
            class,
        }),
        1 => Some(FrameRule { limit: 100, class }),
        _ => None,
    }
}

struct Recorder {
    seen: mpsc::Sender<Seen>,
    jobs: mpsc::Receiver<Job>,
    echo_http: bool,
}

impl Recorder {
    fn note(&self, seen: Seen) {
        // The test may have seen enough and dropped its end.
        let _ = self.seen.send(seen);
    }
}

impl Handler for Recorder {
    fn on_connected(&mut self, _io: &mut Io, conn: ConnId, info: &ConnInfo) {
        self.note(Seen::Connected(conn, *info));
    }

    fn on_frame(&mut self, _io: &mut Io, conn: ConnId, frame_type: u8, payload: Vec<u8>) {
        self.note(Seen::Frame(conn, frame_type, payload));
    }

    fn on_closed(&mut self, _io: &mut Io, conn: ConnId, why: &CloseReason) {
        self.note(Seen::Closed(conn, why.clone()));
    }

    fn on_dial_failed(&mut self, _io: &mut Io, dial: DialId, why: &DialError) {
        self.note(Seen::DialFailed(dial, why.clone()));
    }

    fn on_http(&mut self, io: &mut Io, request: HttpRequest) {
        if self.echo_http && request.parts.path != "/hold" {
            let parts = &request.parts;
            let body = [parts.path.as_bytes(), b":", &parts.body].concat();
            let response = HttpResponse::new(200, "application/json", body);
            assert!(
                io.respond(request.token, &response),
                "a fresh request takes its answer"
            );
            assert!(
                !io.respond(request.token, &response),
                "a request is answered once"
            );
        }
        self.note(Seen::Http(request));
    }

    fn on_http_gone(&mut self, _io: &mut Io, token: HttpToken) {
        self.note(Seen::HttpGone(token));
    }

    fn on_wake(&mut self, io: &mut Io) {
        while let Ok(job) = self.jobs.try_recv() {
            job(io);
        }
    }

    fn on_deadline(&mut self, _io: &mut Io) {
        self.note(Seen::Deadline);
    }

    fn frame_rule(&self, _conn: ConnId, frame_type: u8) -> Option<FrameRule> {
        rule(frame_type)
    }
}

pub struct Node {
    pub key: [u8; 32],
    pub addrs: LocalAddrs,
    pub seen: mpsc::Receiver<Seen>,
    jobs: mpsc::Sender<Job>,
    wake: WakeHandle,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts a node with both listeners on loopback, ports chosen by the system.
    pub fn start(seed: u8) -> Node {
        Node::start_with(seed, |_| {})
    }

    pub fn start_with(seed: u8, adjust: impl FnOnce(&mut NetConfig)) -> Node {
        let identity = NodeIdentity::from_seed(&[seed; 32]).unwrap();
        let key = identity.public();
        let mut config = NetConfig::new(identity);
        config.p2p_listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.http_listen = vec!["127.0.0.1:0".parse().unwrap()];
        adjust(&mut config);
        let (mut reactor, wake) = Reactor::new(config).unwrap();
        let addrs = reactor.local_addrs();
        let (seen_in, seen) = mpsc::channel();
        let (jobs, jobs_out) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut handler = Recorder {
                seen: seen_in,
                jobs: jobs_out,
                echo_http: true,
            };
            reactor.run(&mut handler, &stopped, |_| {}).unwrap();
        });
        Node {
            key,
            addrs,
            seen,
            jobs,
            wake,
            stop,
            thread: Some(thread),
        }
    }

    pub fn p2p(&self) -> SocketAddr {
        self.addrs.p2p[0]
    }

    /// A plain TCP connection to the HTTP listener.
    pub fn http(&self) -> TcpStream {
        connect(self.addrs.http[0])
    }

    /// Runs code on the net thread and waits for its result.
    pub fn ask<R: Send + 'static>(&self, job: impl FnOnce(&mut Io) -> R + Send + 'static) -> R {
        let (answer, result) = mpsc::channel();
        self.jobs
            .send(Box::new(move |io| {
                let _ = answer.send(job(io));
            }))
            .unwrap();
        self.wake.wake();
        result.recv_timeout(PATIENCE).expect("the net thread runs")
    }

    /// Waits for the first event that `pick` wants; others are thrown away.
    pub fn wait<R>(&self, what: &str, mut pick: impl FnMut(Seen) -> Option<R>) -> R {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(seen) => {
                    if let Some(result) = pick(seen) {
                        return result;
                    }
                }
                Err(_) => panic!("never seen: {what}"),
            }
        }
    }

    /// Waits until a question about the net thread's state is answered with yes.
    pub fn wait_until(
        &self,
        what: &str,
        mut question: impl FnMut(&mut Io) -> bool + Send + Clone + 'static,
    ) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut asked = question.clone();
            if self.ask(move |io| asked(io)) {
                return;
            }
            question = question.clone();
            assert!(Instant::now() < end, "never reached: {what}");
            std::thread::yield_now();
        }
    }

    pub fn wait_connected(&self) -> (ConnId, ConnInfo) {
        self.wait("a connection", |seen| match seen {
            Seen::Connected(conn, info) => Some((conn, info)),
            _ => None,
        })
    }

    pub fn wait_closed(&self) -> CloseReason {
        self.wait_closed_conn().1
    }

    pub fn wait_closed_conn(&self) -> (ConnId, CloseReason) {
        self.wait("the end of a connection", |seen| match seen {
            Seen::Closed(conn, why) => Some((conn, why)),
            _ => None,
        })
    }

    pub fn wait_dial_failed(&self) -> DialError {
        self.wait_dial_failed_id().1
    }

    pub fn wait_dial_failed_id(&self) -> (DialId, DialError) {
        self.wait("the end of a dial", |seen| match seen {
            Seen::DialFailed(dial, why) => Some((dial, why)),
            _ => None,
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake.wake();
        let result = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            result.unwrap().expect("the net thread ends in order");
        }
    }
}

/// Connects two nodes; returns the connection as each sees it.
pub fn link(from: &Node, to: &Node) -> ((ConnId, ConnInfo), (ConnId, ConnInfo)) {
    let (address, key) = (to.p2p(), to.key);
    from.ask(move |io| io.dial(address, Some(key)));
    (from.wait_connected(), to.wait_connected())
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}
