//! The HTTP side of rpc: routes a request, says who may ask and how often, runs its calls and answers, at once or later.
//!
//! Threads: any number of workers call [`Service::handle`]; whoever learns of a decided block calls
//! [`Service::on_decided`], and somebody calls [`Service::on_time`] when [`Service::next_deadline`] has come. A call that
//! waits is parked with what is left of its request, so no thread ever waits for the chain.

use crate::base::time::{MonoUs, Now};
use crate::net::{HttpResponse, Method, RequestParts};
use crate::rpc::auth::{Refusal, User, Users};
use crate::rpc::context::Context;
use crate::rpc::envelope::{self, Body};
use crate::rpc::error::{RpcError, code};
use crate::rpc::health;
use crate::rpc::job::{Job, Progress};
use crate::rpc::metrics::{self, Metrics};
use crate::rpc::node::{Node, Phase};
use crate::rpc::rate::Buckets;
use crate::rpc::waiters::{Taken, Until, WAIT_MS_MAX, Wait, WaiterId, Waiters};
use crate::rpc::waits;
use crate::types::ids::Txid;
use parking_lot::{Mutex, RwLock};
use std::net::IpAddr;
use std::sync::Arc;

/// A wrong password is answered this much later, ms.
pub const WRONG_PASSWORD_DELAY_MS: u64 = 250;

/// What may be configured.
#[derive(Debug)]
pub struct ServiceConfig {
    /// Who may call.
    pub users: Users,
    /// Requests a second of an address without credentials; 0: no limit.
    pub rate_anonymous: u64,
    /// Calls a second of a user; 0: no limit.
    pub rate_user: u64,
    /// Calls of a batch.
    pub max_batch: usize,
}

struct Limits {
    anonymous: Buckets<IpAddr>,
    users: Buckets<String>,
}

/// What is parked with a waiter.
enum Parked {
    Job(Box<Job>),
    Refusal(HttpResponse),
}

/// The service. `T` names a request to whoever carries the answer back (the net thread's `HttpToken`).
pub struct Service<T> {
    context: Context,
    users: RwLock<Users>,
    max_batch: usize,
    limits: Mutex<Limits>,
    waiters: Mutex<Waiters<T, Parked>>,
}

/// An answer for a request that was answered later.
pub type Late<T> = (T, HttpResponse);

impl<T: Ord + Copy> Service<T> {
    /// A service over a node.
    pub fn new(node: Arc<dyn Node>, metrics: Arc<Metrics>, config: ServiceConfig) -> Service<T> {
        Service {
            context: Context::new(node, metrics),
            users: RwLock::new(config.users),
            max_batch: config.max_batch.min(envelope::BATCH_COUNT_MAX),
            limits: Mutex::new(Limits {
                anonymous: Buckets::new(config.rate_anonymous),
                users: Buckets::new(config.rate_user),
            }),
            waiters: Mutex::new(Waiters::default()),
        }
    }

    /// New users and rates (SIGHUP). Calls that already wait go on.
    pub fn reload(&self, users: Users, rate_anonymous: u64, rate_user: u64) {
        *self.users.write() = users;
        let mut limits = self.limits.lock();
        limits.anonymous.set_rate(rate_anonymous);
        limits.users.set_rate(rate_user);
    }

    /// Answers a request, or parks it (`None`): then the answer comes from one of the `on_` functions, with its ticket.
    pub fn handle(
        &self,
        ticket: T,
        client: IpAddr,
        request: &RequestParts,
    ) -> Option<HttpResponse> {
        let answer = match (request.method, request.path.as_str()) {
            (Method::Post, path) if path == "/" || path.starts_with("/wallet/") => {
                self.post(ticket, client, request)
            }
            (Method::Get | Method::Head, path) => Some(self.get(client, path)),
            _ => Some(HttpResponse::text(404, "not found")),
        };
        answer.inspect(|answer| self.count(answer))
    }

    fn count(&self, answer: &HttpResponse) {
        let status = [("status", status_label(answer.status))];
        self.metrics().http_answers.get_or_create(&status).inc();
    }

    fn metrics(&self) -> &Metrics {
        &self.context.metrics
    }

    fn node(&self) -> &dyn Node {
        self.context.node.as_ref()
    }

    fn get(&self, client: IpAddr, path: &str) -> HttpResponse {
        let now = self.node().now();
        if let Err(late_ms) = self.limits.lock().anonymous.take(now.mono, &client, 1) {
            return self.too_many(late_ms, "anonymous");
        }
        let node = self.node();
        let report = match path {
            "/" => return HttpResponse::new(200, "text/plain; charset=utf-8", index_text(node)),
            "/metrics" => {
                let text = self.metrics().render(node, self.waiters.lock().len());
                return HttpResponse::new(200, metrics::CONTENT_TYPE, text);
            }
            "/health" => {
                let params = &node.facts().genesis.params;
                let (phase, view) = (node.phase(), node.view());
                health::health(&phase, &view, &node.vitals(), params, node.now())
            }
            "/livez" => health::livez(&node.vitals(), node.now()),
            "/readyz" => health::readyz(&node.phase(), &node.view()),
            _ => return HttpResponse::text(404, "not found"),
        };
        let body = format!("{}\n", report.to_json());
        HttpResponse::new(report.status(), "application/json", body)
    }

    fn too_many(&self, late_ms: u64, class: &'static str) -> HttpResponse {
        let label = [("class", class)];
        self.metrics().rate_limited.get_or_create(&label).inc();
        let seconds = late_ms.div_ceil(1_000).max(1);
        HttpResponse::text(
            429,
            "too many requests; slow down, or raise [rpc] rate_user",
        )
        .with_header("Retry-After", seconds.to_string())
    }

    fn post(&self, ticket: T, client: IpAddr, request: &RequestParts) -> Option<HttpResponse> {
        let now = self.node().now();
        let user = self
            .users
            .read()
            .recognise(request.authorization.as_deref());
        let user = match user {
            Ok(user) => user,
            Err(refusal) => return self.refuse(ticket, client, refusal, now),
        };
        let body = match envelope::parse(&request.body, self.max_batch) {
            Ok(body) => body,
            Err(error) => {
                let (status, bytes) = envelope::unreadable(error);
                return Some(json_response(status, bytes));
            }
        };
        let calls = match &body {
            Body::Single(_) => 1,
            Body::Batch(list) => list.len() as u64,
        };
        let taken = self.limits.lock().users.take(now.mono, &user.name, calls);
        if let Err(late_ms) = taken {
            return Some(self.too_many(late_ms, "user"));
        }
        if !is_allowed(&body, &user) {
            return Some(HttpResponse::text(
                403,
                "this user may not call this method; see [rpc] users in timed.toml",
            ));
        }
        let wallet = request.path.strip_prefix("/wallet/").map(unescape);
        self.go_on(ticket, Job::new(body, wallet))
    }

    fn refuse(
        &self,
        ticket: T,
        client: IpAddr,
        refusal: Refusal,
        now: Now,
    ) -> Option<HttpResponse> {
        if let Err(late_ms) = self.limits.lock().anonymous.take(now.mono, &client, 1) {
            return Some(self.too_many(late_ms, "anonymous"));
        }
        let answer = HttpResponse::text(
            401,
            "authorisation needed: the cookie file in the data directory, or a user of [rpc] users",
        )
        .with_header("WWW-Authenticate", "Basic realm=\"jsonrpc\"");
        if refusal != Refusal::Wrong {
            return Some(answer);
        }
        log::warn!("a client at {client} sent a wrong user name or password");
        let deadline = now.mono.plus_ms(WRONG_PASSWORD_DELAY_MS);
        let parked = Parked::Refusal(answer);
        let kept = self
            .waiters
            .lock()
            .insert(ticket, Until::Deadline, deadline, parked);
        match kept {
            Ok(_) => None,
            // No room to delay it: say nothing about the password.
            Err(_) => Some(busy()),
        }
    }

    /// Runs a job until it is answered or waits.
    fn go_on(&self, ticket: T, mut job: Job) -> Option<HttpResponse> {
        loop {
            let wait = match job.run(&self.context) {
                Progress::Done(status, bytes) => return Some(json_response(status, bytes)),
                Progress::Waits(wait) => wait,
            };
            if self.node().phase() == Phase::Stopping {
                job.finish_wait(&self.context, Err(stopping()));
                continue;
            }
            match self.park(ticket, wait, job) {
                Ok(answer) => return answer,
                Err(mut full) => {
                    full.finish_wait(&self.context, Err(too_many_waiters()));
                    job = *full;
                }
            }
        }
    }

    fn park(&self, ticket: T, wait: Wait, job: Job) -> Result<Option<HttpResponse>, Box<Job>> {
        let deadline = self.node().now().mono;
        let deadline = deadline.plus_ms(wait.timeout_ms.min(WAIT_MS_MAX));
        let parked = Parked::Job(Box::new(job));
        let inserted = self
            .waiters
            .lock()
            .insert(ticket, wait.until, deadline, parked);
        let id = match inserted {
            Ok(id) => id,
            Err(Parked::Job(job)) => return Err(job),
            Err(Parked::Refusal(answer)) => return Ok(Some(answer)),
        };
        // It may have come true between the first look and now, and then nobody will tell.
        let Some(outcome) = waits::look(self.node(), wait.until) else {
            return Ok(None);
        };
        Ok(match self.waiters.lock().take(id).map(|taken| taken.rest) {
            Some(Parked::Job(mut job)) => {
                job.finish_wait(&self.context, outcome);
                return Ok(self.go_on(ticket, *job));
            }
            Some(Parked::Refusal(answer)) => Some(answer),
            None => None,
        })
    }

    /// Answers an entry if what it waits for has come true.
    fn look(&self, id: WaiterId, until: Until) -> Option<Late<T>> {
        let outcome = waits::look(self.node(), until)?;
        let taken = self.waiters.lock().take(id)?;
        self.resume(taken, outcome)
    }

    fn resume(
        &self,
        taken: Taken<T, Parked>,
        outcome: Result<serde_json::Value, RpcError>,
    ) -> Option<Late<T>> {
        let answer = match taken.rest {
            Parked::Refusal(answer) => Some(answer),
            Parked::Job(mut job) => {
                job.finish_wait(&self.context, outcome);
                self.go_on(taken.ticket, *job)
            }
        };
        let answer = answer?;
        self.count(&answer);
        Some((taken.ticket, answer))
    }

    fn look_at(&self, found: Vec<(WaiterId, Until)>) -> Vec<Late<T>> {
        let answers = found.into_iter();
        answers
            .filter_map(|(id, until)| self.look(id, until))
            .collect()
    }

    /// A block is decided and the view that shows it is published: these transactions are final, those never will be.
    pub fn on_decided(&self, decided: &[Txid], conflicted: &[Txid]) -> Vec<Late<T>> {
        let found = {
            let waiters = self.waiters.lock();
            let mut found = waiters.on_transactions(decided.iter().chain(conflicted));
            found.extend(waiters.on_tip());
            found
        };
        self.look_at(found)
    }

    /// The time has come for whatever was due.
    pub fn on_time(&self) -> Vec<Late<T>> {
        let now = self.node().now().mono;
        let due = self.waiters.lock().expired(now);
        let answers = due.into_iter().filter_map(|taken| {
            let outcome = waits::timed_out(self.node(), taken.until);
            self.resume(taken, outcome)
        });
        answers.collect()
    }

    /// The node stops: everybody who waits gets an answer.
    pub fn on_stop(&self) -> Vec<Late<T>> {
        let all = self.waiters.lock().drain();
        let answers = all.into_iter();
        answers
            .filter_map(|taken| self.resume(taken, Err(stopping())))
            .collect()
    }

    /// The client of a parked request went away.
    pub fn on_gone(&self, ticket: T) {
        self.waiters.lock().forget(&ticket);
    }

    /// When [`Service::on_time`] has something to do.
    pub fn next_deadline(&self) -> Option<MonoUs> {
        self.waiters.lock().next_deadline()
    }

    /// Requests parked now.
    pub fn waiting(&self) -> usize {
        self.waiters.lock().len()
    }
}

fn json_response(status: u16, mut bytes: Vec<u8>) -> HttpResponse {
    if status == 204 {
        return HttpResponse::new(204, "", Vec::new());
    }
    bytes.push(b'\n');
    HttpResponse::new(status, "application/json", bytes)
}

fn busy() -> HttpResponse {
    HttpResponse::text(503, "too many requests wait; try again").with_header("Retry-After", "1")
}

fn stopping() -> RpcError {
    RpcError::new(code::MISC, "the node is shutting down").reason("stopping")
}

fn too_many_waiters() -> RpcError {
    RpcError::new(code::MISC, "too many calls wait already")
        .reason("busy")
        .hint("ask for the state with gettransactionfinality instead")
}

fn is_allowed(body: &Body, user: &User) -> bool {
    let may = |parsed: &envelope::Parsed| match parsed {
        Ok(request) => user.may(&request.method),
        Err(_) => true,
    };
    match body {
        Body::Single(parsed) => may(parsed),
        Body::Batch(list) => list.iter().all(may),
    }
}

/// A wallet name from a path: percent signs stand for bytes.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        204 => "204",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        429 => "429",
        500 => "500",
        503 => "503",
        _ => "other",
    }
}

fn index_text(node: &dyn Node) -> String {
    let facts = node.facts();
    format!(
        "TimeCoin node, network {}, chain {}, height {}.\n\n\
         POST /          JSON-RPC 1.0 and 2.0 (credentials needed; method 'help' lists the methods)\n\
         GET  /metrics   Prometheus metrics\n\
         GET  /health    checks with reasons; 503 when one fails\n\
         GET  /livez     200 while every thread is alive\n\
         GET  /readyz    200 when synced and able to sign\n",
        facts.network(),
        facts.chain,
        node.view().tip.height
    )
}
