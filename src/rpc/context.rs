//! What a method is called with.

use crate::base::time::{MonoUs, Now};
use crate::rpc::error::{RpcError, code};
use crate::rpc::metrics::Metrics;
use crate::rpc::node::{Node, NodeView};
use crate::rpc::reader::Chain;
use crate::types::address::Network;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all calls share.
pub struct Context {
    /// The node.
    pub node: Arc<dyn Node>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    active: Mutex<BTreeMap<u64, (&'static str, MonoUs)>>,
    next: AtomicU64,
}

/// Marks a call as running until it is dropped; shown by getrpcinfo.
pub struct Running<'a> {
    context: &'a Context,
    id: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.context.active.lock().remove(&self.id);
    }
}

impl Context {
    /// A context over a node.
    pub fn new(node: Arc<dyn Node>, metrics: Arc<Metrics>) -> Context {
        Context {
            node,
            metrics,
            active: Mutex::new(BTreeMap::new()),
            next: AtomicU64::new(0),
        }
    }
    /// Notes that a method runs. At most one entry a worker thread.
    pub fn running(&self, method: &'static str) -> Running<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let started = self.node.now().mono;
        self.active.lock().insert(id, (method, started));
        Running { context: self, id }
    }
    /// Methods that run now, and since when.
    pub fn active(&self) -> Vec<(&'static str, MonoUs)> {
        self.active.lock().values().copied().collect()
    }
}

/// One call.
pub struct Call<'a> {
    /// What all calls share.
    pub context: &'a Context,
    /// The picture of the node taken when the call began.
    pub view: Arc<NodeView>,
    /// The clocks then.
    pub now: Now,
    /// Wallet named in the path, if any.
    pub wallet: Option<&'a str>,
}

impl Call<'_> {
    /// The node.
    pub fn node(&self) -> &dyn Node {
        self.context.node.as_ref()
    }
    /// The chain as reported up to now.
    pub fn chain(&self) -> Chain<'_> {
        Chain::new(self.node(), &self.view)
    }
    /// The network.
    pub fn network(&self) -> Network {
        self.node().facts().network()
    }
    /// -1 with a reason: this part of the request is right, but the answer is gone or not kept here.
    pub fn not_kept(what: &str) -> RpcError {
        RpcError::new(code::MISC, format!("{what} not available (pruned data)")).reason("pruned")
    }
}
