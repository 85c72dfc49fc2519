//! The calls of one HTTP request, run one after the other. A job can be put aside when a call waits and taken up again,
//! so a batch may hold a wait in its middle.

use crate::rpc::args::Args;
use crate::rpc::context::{Call, Context};
use crate::rpc::envelope::{self, ANSWER_BYTES_MAX, Body, Header, Parsed, Request};
use crate::rpc::error::{RpcError, code};
use crate::rpc::node::Phase;
use crate::rpc::registry::{self, MethodSpec, Reply};
use crate::rpc::waiters::Wait;
use serde_json::Value;
use std::vec;

/// Where a job stands.
#[derive(Debug)]
pub enum Progress {
    /// HTTP status and body.
    Done(u16, Vec<u8>),
    /// Its current call waits; call [`Job::finish_wait`] with the outcome, then [`Job::run`] again.
    Waits(Wait),
}

/// The calls of one request.
#[derive(Debug)]
pub struct Job {
    calls: vec::IntoIter<Parsed>,
    wallet: Option<String>,
    /// The call that waits.
    current: Option<(Header, &'static str)>,
    answer: Answer,
}

/// The answer as it grows.
#[derive(Debug)]
struct Answer {
    batch: bool,
    bytes: Vec<u8>,
    count: usize,
    status: u16,
}

impl Answer {
    fn push(&mut self, header: &Header, outcome: Result<Value, RpcError>) {
        if !self.batch {
            self.status = envelope::status(header, &outcome);
        }
        if header.is_notification() {
            return;
        }
        if self.batch {
            self.status = 200;
            self.bytes.push(if self.count == 0 { b'[' } else { b',' });
        }
        self.count += 1;
        self.bytes
            .extend_from_slice(&envelope::encode(header, outcome));
    }

    fn finish(&mut self) -> Progress {
        let mut bytes = std::mem::take(&mut self.bytes);
        if self.batch {
            if bytes.is_empty() {
                bytes.push(b'[');
            }
            bytes.push(b']');
        }
        Progress::Done(self.status, bytes)
    }
}

impl Job {
    /// A job for a body; `wallet` is the one named in the path.
    pub fn new(body: Body, wallet: Option<String>) -> Job {
        let (calls, batch) = match body {
            Body::Single(call) => (vec![call], false),
            Body::Batch(list) => (list, true),
        };
        let answer = Answer {
            batch,
            bytes: Vec::new(),
            count: 0,
            // An empty batch is answered by an empty list, as Bitcoin Core does.
            status: if batch && !calls.is_empty() { 204 } else { 200 },
        };
        Job {
            wallet,
            current: None,
            calls: calls.into_iter(),
            answer,
        }
    }

    /// Runs calls until all are answered or one waits.
    pub fn run(&mut self, context: &Context) -> Progress {
        for parsed in self.calls.by_ref() {
            let request = match parsed {
                Ok(request) => request,
                Err(fault) => {
                    let (header, error) = *fault;
                    count(context, "invalid", error.code);
                    self.answer.push(&header, Err(error));
                    continue;
                }
            };
            let Request {
                header,
                method,
                params,
            } = request;
            if self.answer.bytes.len() > ANSWER_BYTES_MAX {
                let error = RpcError::new(code::MISC, "the answer of this batch is too large")
                    .hint("ask for less in one batch");
                self.answer.push(&header, Err(error));
                continue;
            }
            let (name, outcome) = dispatch(context, self.wallet.as_deref(), &method, params);
            let outcome = match outcome {
                Ok(Reply::Wait(wait)) => {
                    self.current = Some((header, name));
                    return Progress::Waits(wait);
                }
                Ok(Reply::Value(value)) => Ok(value),
                Err(error) => Err(error),
            };
            count(context, name, code_of(&outcome));
            self.answer.push(&header, outcome);
        }
        self.answer.finish()
    }

    /// The outcome of the call that waited.
    pub fn finish_wait(&mut self, context: &Context, outcome: Result<Value, RpcError>) {
        if let Some((header, name)) = self.current.take() {
            count(context, name, code_of(&outcome));
            self.answer.push(&header, outcome);
        }
    }
}

fn code_of(outcome: &Result<Value, RpcError>) -> i32 {
    outcome.as_ref().map_or_else(|error| error.code, |_| 0)
}

fn count(context: &Context, method: &'static str, code: i32) {
    let labels = [("method", method), ("code", code_label(code))];
    context.metrics.rpc_calls.get_or_create(&labels).inc();
}

/// Codes as label values; the set is closed, so nobody can make labels.
fn code_label(code: i32) -> &'static str {
    const CODES: [(i32, &str); 19] = [
        (0, "0"),
        (-1, "-1"),
        (-3, "-3"),
        (-4, "-4"),
        (-5, "-5"),
        (-6, "-6"),
        (-8, "-8"),
        (-12, "-12"),
        (-13, "-13"),
        (-14, "-14"),
        (-18, "-18"),
        (-19, "-19"),
        (-22, "-22"),
        (-25, "-25"),
        (-26, "-26"),
        (-27, "-27"),
        (-28, "-28"),
        (-32600, "-32600"),
        (-32601, "-32601"),
    ];
    let found = CODES.iter().find(|(known, _)| *known == code);
    found.map_or("other", |(_, label)| label)
}

/// Finds and runs a method.
fn dispatch(
    context: &Context,
    wallet: Option<&str>,
    method: &str,
    params: Value,
) -> (&'static str, Result<Reply, RpcError>) {
    let (spec, params) = match registry::resolve(method, params) {
        Ok(found) => found,
        Err(error) => return ("unknown", Err(error)),
    };
    let started = context.node.now().mono;
    let running = context.running(spec.name);
    let outcome = call(context, wallet, spec, params);
    drop(running);
    let took = context.node.now().mono.since(started);
    let time = context
        .metrics
        .rpc_duration
        .get_or_create(&[("method", spec.name)]);
    time.observe(took as f64 / 1e6);
    (spec.name, outcome)
}

fn call(
    context: &Context,
    wallet: Option<&str>,
    spec: &MethodSpec,
    params: Value,
) -> Result<Reply, RpcError> {
    if let (Phase::WarmingUp(what), false) = (context.node.phase(), spec.while_starting) {
        return Err(RpcError::new(code::WARMUP, what).reason("warming-up"));
    }
    let args = Args::new(spec, params)?;
    let call = Call {
        context,
        view: context.node.view(),
        now: context.node.now(),
        wallet,
    };
    (spec.run)(&call, &args)
}
