//! Words to systemd: ready, reloading, stopping, status, and the watchdog's beat.
//!
//! Job: sd_notify(3). Inputs: the node's lifecycle. Outputs: datagrams to NOTIFY_SOCKET; nothing if systemd did not start us.
//! Never: fails the node: a word that systemd does not hear is logged, and systemd's own timeouts decide.

use std::time::Duration;

use sd_notify::NotifyState;

/// The ledger is recovered, sockets listen, RPC answers (never waits for peers).
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// An orderly stop has begun.
pub fn stopping() {
    send(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: making everything durable"),
    ]);
}

/// Every thread has beaten since the last call. Call it at least every [`watchdog_interval`], and only if that is true.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often to call [`watchdog`]: half the time after which systemd kills; None if no watchdog is set.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().and_then(half)
}

fn half(timeout: Duration) -> Option<Duration> {
    Some(timeout / 2).filter(|interval| !interval.is_zero())
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!(error:% = error; "systemd does not hear sd_notify");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_twice_per_timeout() {
        assert_eq!(half(Duration::from_secs(30)), Some(Duration::from_secs(15)));
        assert_eq!(half(Duration::ZERO), None, "no watchdog, no beat");
    }

    #[test]
    fn without_systemd_nothing_is_sent_and_nothing_fails() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            ready("height 0");
            stopping();
        }
    }
}
