//! Every container that a machine keeps is compared with a bound: its field must be read by a function `sizes` of its module,
//! which simulations ask all the time (B2), or stand in [`EXEMPT`] with the reason.

use super::source::{Region, Source, tree};

/// Folders whose structs are machines, or parts of one.
const MACHINES: [&str; 5] = [
    "src/consensus",
    "src/ledger/mempool",
    "src/p2p",
    "src/replica",
    "src/sync",
];
/// Types that grow. Bounded lists (`BoundedVec`) carry their bound.
const GROWING: [&str; 6] = [
    "BTreeMap<",
    "BTreeSet<",
    "VecDeque<",
    "Vec<",
    "Lru<",
    "BinaryHeap<",
];

/// Containers without a size of their own: file, fields, why.
const EXEMPT: &[(&str, &[&str], &str)] = &[
    (
        "src/consensus/late.rs",
        &["votes"],
        "told as votes of heights that are over",
    ),
    (
        "src/consensus/tally.rs",
        &["first", "second", "by_value"],
        "two votes of each member of the set, in the rounds that are told",
    ),
    (
        "src/ledger/mempool/lru.rs",
        &["values", "uses"],
        "evicts at its bound; the mempool tells its length",
    ),
    (
        "src/ledger/mempool/mod.rs",
        &["checks", "ancestors"],
        "of one transaction: bounded by its inputs and by the ancestors allowed",
    ),
    (
        "src/ledger/mempool/orphans.rs",
        &["parents", "waiting", "by_wtxid", "by_parent"],
        "the mempool tells how many orphans wait; their parents are their inputs",
    ),
    (
        "src/ledger/mempool/pool.rs",
        &[
            "parents",
            "children",
            "entries",
            "txids",
            "wtxids",
            "reserved",
            "best",
            "worst",
            "worst_of_peer",
            "expiries",
            "shares",
        ],
        "indexes of one pool, whose count and bytes the mempool tells",
    ),
    ("src/p2p/book.rs", &["source"], "a name of at most 16 bytes"),
    (
        "src/p2p/buckets.rs",
        &["parked", "lanes"],
        "of the net thread, which bounds them itself",
    ),
    ("src/p2p/machine.rs", &["out"], "emptied by every input"),
    (
        "src/replica/assembly.rs",
        &["slots", "names"],
        "as long as the list of short ids, which is a bounded list",
    ),
    (
        "src/replica/fork/mod.rs",
        &["returned"],
        "payments of blocks that were taken back: bounded by max_reorg, read by operators",
    ),
    ("src/replica/gate.rs", &["keys"], "told as signer records"),
    (
        "src/replica/machine.rs",
        &["verify", "inputs", "out"],
        "emptied by every input",
    ),
    ("src/replica/machine.rs", &["full"], "names of two disks"),
    (
        "src/replica/requests.rs",
        &["by", "names", "named", "peers", "timers"],
        "told as names offered and peers that offered them",
    ),
    (
        "src/replica/start.rs",
        &[
            "locks",
            "valids",
            "entries",
            "certificates",
            "evidence",
            "statements",
            "recoveries",
            "others",
            "keys",
        ],
        "what a start reads from its own disk; gone when it is over",
    ),
    (
        "src/sync/fetch.rs",
        &["chunks", "holders", "have", "checking", "jobs"],
        "one snapshot, whose length certified headers commit to; no machine of a simulated node",
    ),
    (
        "src/sync/headers.rs",
        &["items"],
        "one frame of headers, a bounded list",
    ),
    (
        "src/sync/mod.rs",
        &["eras"],
        "one for each fork that was ended, with a majority of the set",
    ),
    (
        "src/sync/window.rs",
        &["candidates"],
        "told as the sync window, by count and bytes",
    ),
];

/// A field of a struct.
struct Field {
    line: usize,
    name: String,
    text: String,
}

/// Fields of structs that are shipped. Those that are public belong to messages and settings, not to machines.
fn fields(source: &Source) -> Vec<Field> {
    let (mut found, mut closing) = (Vec::new(), None);
    for (index, line) in source.raw.lines().enumerate() {
        let text = line.trim();
        let indent = &line[..line.len() - line.trim_start().len()];
        if closing.as_deref() == Some(line) {
            closing = None;
        } else if text.contains("struct ") && text.ends_with('{') && !text.starts_with("//") {
            closing = Some(format!("{indent}}}"));
        } else if closing.is_some()
            && source.region(index + 1) == Region::Product
            && !text.starts_with("pub ")
            && let Some((name, of)) = text.split_once(": ")
            && !text.starts_with("//")
        {
            let name = name.rsplit(' ').next().unwrap_or_default();
            found.push(Field {
                line: index + 1,
                name: name.to_owned(),
                text: of.to_owned(),
            });
        }
    }
    found
}

/// The text of all functions of a folder that tell sizes.
fn told(sources: &[Source]) -> String {
    let mut told = String::new();
    for source in sources {
        let lines: Vec<&str> = source.raw.lines().collect();
        for (line, name, length) in source.functions() {
            if name.starts_with("sizes") || name == "waiting" {
                let body = &lines[line - 1..lines.len().min(line - 1 + length)];
                told.extend(body.iter().flat_map(|line| [line, "\n"]));
            }
        }
    }
    told
}

/// Whether a field is read in a text.
fn reads(text: &str, field: &str) -> bool {
    let read = format!(".{field}");
    text.match_indices(&read).any(|(start, _)| {
        let after = text[start + read.len()..].chars().next();
        !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn every_container_of_a_machine_is_compared_with_a_bound() {
    let (mut complaints, mut there) = (Vec::new(), Vec::new());
    for folder in MACHINES {
        let sources = tree(folder);
        let told = told(&sources);
        for source in &sources {
            for field in fields(source) {
                let grows = GROWING.iter().any(|word| {
                    let at = field.text.match_indices(word);
                    at.into_iter()
                        .any(|(start, _)| !field.text[..start].ends_with("Bounded"))
                });
                let known = EXEMPT.iter().any(|(path, names, _)| {
                    *path == source.path && names.contains(&field.name.as_str())
                });
                there.push((source.path.clone(), field.name.clone()));
                if grows && !known && !reads(&told, &field.name) {
                    let (path, line, name) = (&source.path, field.line, &field.name);
                    complaints.push(format!("{path}:{line}: no function `sizes` reads `{name}`"));
                }
            }
        }
    }
    for (path, names, _) in EXEMPT {
        for name in *names {
            if !there.contains(&(path.to_string(), name.to_string())) {
                complaints.push(format!("{path}: there is no field `{name}`"));
            }
        }
    }
    super::settle(
        complaints,
        "a container that grows has a bound, and `sizes` compares it",
    );
}
