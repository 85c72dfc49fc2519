//! Generated tables of timecoin-protocol(7) and of ARCHITECTURE.md: parameters, limits, frames, queues, signing contexts.

use std::fmt::Write;
use std::path::Path;

use super::{Row, assert_fresh, assert_page, render_rows, splice_between};
use crate::node::queues;
use crate::p2p::messages::Message;
use crate::types::address::Network;
use crate::types::params::{ConsensusLimits, Params};

/// One entry: name, help, value.
type Entry = (&'static str, &'static str, u64);

fn row((name, help, _): &Entry, values: &str) -> Row {
    Row {
        name: (*name).to_owned(),
        synopsis: String::new(),
        help: format!("{} {values}.", help.trim()),
        args: Vec::new(),
    }
}

/// Table B1, with the value of each network.
fn parameters() -> String {
    let [main, test, dev] =
        [Network::Main, Network::Test, Network::Dev].map(|network| Params::of(network).entries());
    let rows = main.iter().zip(&test).zip(&dev).map(|((main, test), dev)| {
        let values = match (main.2 == test.2, test.2 == dev.2) {
            (true, true) => format!("Everywhere {}", main.2),
            (true, false) => format!("Main and test {}, dev {}", main.2, dev.2),
            (false, true) => format!("Main {}, test and dev {}", main.2, dev.2),
            (false, false) => format!("Main {}, test {}, dev {}", main.2, test.2, dev.2),
        };
        row(main, &values)
    });
    render_rows(&rows.collect::<Vec<_>>())
}

/// The consensus limits of table B2.
fn limits() -> String {
    let entries = ConsensusLimits::of(Network::Main).entries();
    let rows = entries
        .iter()
        .map(|entry| row(entry, &format!("At most {}", entry.2)));
    render_rows(&rows.collect::<Vec<_>>())
}

/// Table B2b as implemented.
fn frames() -> String {
    let mut out = String::from(
        ".Bl -column \"OperatorProof\" \"type\" \"4194304 bytes\" \"Consensus\"\n.It Sy frame Ta Sy type Ta Sy limit Ta Sy class\n",
    );
    for code in Message::CODES {
        if let (Some(name), Some((limit, class))) = (Message::name(*code), Message::rule(*code)) {
            let class = format!("{class:?}").to_lowercase();
            let _ = writeln!(out, ".It {name} Ta {code} Ta {limit} Ta {class}");
        }
    }
    out.push_str(".El\n");
    out
}

/// The table of queues, for ARCHITECTURE.md.
fn queue_table() -> String {
    let mut out = String::from(
        "| queue | capacity | filled by | emptied by | when it is full |\n|---|---|---|---|---|\n",
    );
    for row in queues::TABLE {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            row.name, row.capacity, row.producers, row.consumer, row.when_full
        );
    }
    out
}

#[test]
fn timecoin_protocol_7_is_fresh() {
    let parts = [
        ("parameters", parameters()),
        ("limits", limits()),
        ("frames", frames()),
    ];
    assert_page("timecoin-protocol.7", &parts);
}

#[test]
fn the_queues_of_architecture_md_are_fresh() {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let page = std::fs::read_to_string(full).expect("the page is there");
    let (begin, end) = (
        "<!-- BEGIN GENERATED queues -->\n",
        "<!-- END GENERATED -->\n",
    );
    let fresh = splice_between(&page, begin, end, &queue_table()).expect("markers");
    assert_fresh("ARCHITECTURE.md", &fresh);
}
