//! Bounds that the operating system sets on this process.
//!
//! Job: raise the number of open files to what the configuration needs. Inputs: how many. Outputs: how many there are.
//! Never: lowers a bound, and never fails the node: it says what is missing.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a node holds open beside its connections: databases, log, key files, event queues.
const FILES_BESIDE_CONNECTIONS: u64 = 64;

/// Raises the bound on open files so that `connections` fit, as far as the system lets us. Answers how many connections fit now:
/// fewer than asked for means that the operator should raise LimitNOFILE or `ulimit -n`.
pub fn make_room_for(connections: u64) -> u64 {
    let wanted = connections.saturating_add(FILES_BESIDE_CONNECTIONS);
    let limit = getrlimit(Resource::Nofile);
    // None is "no bound".
    let (Some(now), most) = (limit.current, limit.maximum) else {
        return connections;
    };
    if now >= wanted {
        return connections;
    }
    let next = most.map_or(wanted, |most| wanted.min(most));
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(next),
            maximum: most,
        },
    );
    let open = if raised.is_ok() { next.max(now) } else { now };
    open.saturating_sub(FILES_BESIDE_CONNECTIONS)
        .min(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_and_never_taken_away() {
        let before = getrlimit(Resource::Nofile).current;
        assert_eq!(make_room_for(1), 1, "a few always fit");
        let room = make_room_for(2_000);
        let after = getrlimit(Resource::Nofile).current;
        assert!(after.is_none() || after >= before, "never lowered");
        assert!(
            after.is_none_or(|files| files >= room + FILES_BESIDE_CONNECTIONS),
            "what it promises is there"
        );
    }
}
