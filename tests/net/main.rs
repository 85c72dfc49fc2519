//! The net layer over real sockets on loopback.

mod hostile;
mod http;
mod peers;
mod support;
