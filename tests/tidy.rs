//! The tree as a test: layers, sizes, banned words, no async runtime. What the style promises, a reader need not check.

#[path = "tidy/containers.rs"]
mod containers;
#[path = "tidy/source.rs"]
mod source;

use source::{Region, Source, tree};

/// The layers, lowest first. A module imports what is in a lower row, never its own row's other modules.
const LAYERS: [&[&str]; 9] = [
    &["base"],
    &["crypto"],
    &["types"],
    &["ledger"],
    &["consensus", "p2p", "sync"],
    &["replica"],
    &["storage", "net", "wallet", "sim"],
    &["rpc"],
    &["node"],
];
/// Highest row that `sim` may import: proof that everything below it is pure.
const SIM_IMPORTS_MAX: usize = 5;
/// Modules without clock, thread, hash order, float, socket or file.
const CORE: [&str; 7] = [
    "base",
    "types",
    "ledger",
    "consensus",
    "p2p",
    "sync",
    "replica",
];
/// Longest file, in lines: about 600.
const FILE_LINES_MAX: usize = 620;
/// Longest function outside tests, in lines: about 70.
const FUNCTION_LINES_MAX: usize = 80;

/// Where a word is banned.
enum Where {
    /// In all code.
    Everywhere,
    /// In the modules of [`CORE`].
    Core,
    /// In all code under `src` but these files or folders.
    Except(&'static [&'static str]),
}

/// A banned word.
struct Ban {
    word: &'static str,
    place: Where,
    in_tests: bool,
    why: &'static str,
}

const fn ban(word: &'static str, place: Where, in_tests: bool, why: &'static str) -> Ban {
    Ban {
        word,
        place,
        in_tests,
        why,
    }
}

const CLOCKS: &[&str] = &["src/node/", "src/net/reactor", "src/bin/"];
const PURE: &str = "the core is pure: a thread or the simulator does this";
const TYPED: &str = "return a typed error; if it cannot happen, write .expect(\"PROOF: why\")";

const BANS: &[Ban] = &[
    ban(
        "Instant::now",
        Where::Except(CLOCKS),
        false,
        "time enters as data",
    ),
    ban(
        "SystemTime::now",
        Where::Except(CLOCKS),
        false,
        "time enters as data",
    ),
    ban("Instant", Where::Core, false, PURE),
    ban("SystemTime", Where::Core, false, PURE),
    ban(
        "HashMap",
        Where::Core,
        false,
        "hash order differs from run to run; use BTreeMap",
    ),
    ban(
        "HashSet",
        Where::Core,
        false,
        "hash order differs from run to run; use BTreeSet",
    ),
    ban("f32", Where::Core, false, "no float reaches an effect"),
    ban("f64", Where::Core, false, "no float reaches an effect"),
    ban("std::thread", Where::Core, false, PURE),
    ban("std::fs", Where::Core, false, PURE),
    ban("std::net", Where::Core, false, PURE),
    ban("getrandom", Where::Core, false, PURE),
    ban(
        "unbounded(",
        Where::Everywhere,
        true,
        "every queue is bounded",
    ),
    ban(
        "mpsc::channel(",
        Where::Everywhere,
        false,
        "every queue is bounded",
    ),
    ban(
        "unsafe",
        Where::Except(&["src/storage/env.rs"]),
        true,
        "one file may, and proves it",
    ),
    ban(".unwrap()", Where::Everywhere, false, TYPED),
    ban(".expect(", Where::Everywhere, false, TYPED),
    ban("panic!(", Where::Everywhere, false, TYPED),
    ban("unreachable!(", Where::Everywhere, false, TYPED),
    ban(
        "unimplemented!(",
        Where::Everywhere,
        true,
        "unfinished code is not merged",
    ),
    ban(
        "todo!(",
        Where::Everywhere,
        true,
        "unfinished code is not merged",
    ),
    ban("dbg!(", Where::Everywhere, true, "use the log"),
    ban(
        "[allow(",
        Where::Everywhere,
        true,
        "mend what the lint says",
    ),
    ban(
        "[expect(",
        Where::Everywhere,
        true,
        "mend what the lint says",
    ),
    ban(
        ".await",
        Where::Everywhere,
        true,
        "threads and machines, no async",
    ),
    ban(
        "bincode::",
        Where::Except(&["src/types/codec.rs"]),
        true,
        "one canonical codec",
    ),
    ban(
        "lmdb::",
        Where::Except(&["src/storage/"]),
        true,
        "one module knows the database",
    ),
    ban(
        "lmdb_sys::",
        Where::Except(&["src/storage/"]),
        true,
        "one module knows the database",
    ),
];

/// Banned in comments too.
const BANNED_MARKS: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Packages that would bring an async runtime.
const ASYNC_RUNTIMES: [&str; 7] = [
    "tokio",
    "async-std",
    "smol",
    "async-executor",
    "async-io",
    "futures-executor",
    "glommio",
];

/// Fails with all complaints at once, if there are any.
fn settle(complaints: Vec<String>, rule: &str) {
    assert!(complaints.is_empty(), "{rule}:\n{}", complaints.join("\n"));
}

/// The row of the layer table that holds `module`.
fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Why `module` may not import `other`; None if it may.
fn forbidden_import(module: &str, other: &str) -> Option<String> {
    let (mine, theirs) = (row(module)?, row(other)?);
    if module == other {
        None
    } else if module == "sim" && theirs > SIM_IMPORTS_MAX {
        Some("sim imports the pure layers only".into())
    } else if theirs == mine {
        Some("siblings never import one another".into())
    } else if theirs > mine {
        Some("imports go strictly downward".into())
    } else {
        None
    }
}

#[test]
fn imports_go_strictly_downward() {
    let mut complaints = Vec::new();
    for source in tree("src") {
        let Some(module) = source.module() else {
            continue;
        };
        if row(module).is_none() {
            complaints.push(format!("{}: {module} is in no layer", source.path));
        }
        for (line, other) in source.crate_imports() {
            if let Some(why) = forbidden_import(module, &other) {
                complaints.push(format!("{}:{line}: imports {other}: {why}", source.path));
            }
        }
    }
    settle(complaints, "layers of ARCHITECTURE.md");
}

#[test]
fn files_and_functions_are_read_in_one_sitting() {
    let mut complaints = Vec::new();
    for source in all_sources() {
        let lines = source.raw.lines().count();
        if lines > FILE_LINES_MAX {
            complaints.push(format!(
                "{}: {lines} lines, more than {FILE_LINES_MAX}",
                source.path
            ));
        }
        for (line, name, length) in source.functions() {
            if length > FUNCTION_LINES_MAX && source.region(line) == Region::Product {
                complaints.push(format!(
                    "{}:{line}: {name} has {length} lines, more than {FUNCTION_LINES_MAX}",
                    source.path
                ));
            }
        }
    }
    settle(complaints, "sizes");
}

#[test]
fn banned_words_stay_out() {
    let mut complaints = Vec::new();
    for source in all_sources() {
        for ban in BANS.iter().filter(|ban| applies(ban, &source)) {
            for line in source.lines_with(ban.word) {
                if (ban.in_tests || source.region(line) == Region::Product)
                    && !proven(ban, &source, line)
                {
                    complaints.push(format!("{}:{line}: {}: {}", source.path, ban.word, ban.why));
                }
            }
        }
        for (index, line) in source.raw.lines().enumerate() {
            // This file names the marks that it bans.
            if source.path != "tests/tidy.rs" && BANNED_MARKS.iter().any(|mark| line.contains(mark))
            {
                complaints.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    settle(complaints, "banned words");
}

fn applies(ban: &Ban, source: &Source) -> bool {
    match ban.place {
        Where::Everywhere => true,
        Where::Core => source.module().is_some_and(|module| CORE.contains(&module)),
        Where::Except(places) => {
            source.path.starts_with("src/")
                && !places.iter().any(|place| source.path.starts_with(place))
        }
    }
}

/// True for an `.expect(` whose message, on its line or the next, proves that it cannot fail.
fn proven(ban: &Ban, source: &Source, line: usize) -> bool {
    ban.word == ".expect("
        && source
            .raw
            .lines()
            .skip(line - 1)
            .take(2)
            .any(|text| text.contains("PROOF:"))
}

#[test]
fn no_async_runtime_is_in_the_lock_file() {
    let lock = std::fs::read_to_string(source::root().join("Cargo.lock")).expect("Cargo.lock");
    let names = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let found: Vec<String> = names
        .filter(|name| ASYNC_RUNTIMES.contains(name))
        .map(str::to_owned)
        .collect();
    settle(found, "no async runtime, not even unused");
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let complaints = all_sources()
        .into_iter()
        .filter(|source| !source.raw.starts_with("//!"))
        .map(|source| format!("{}: no //! header", source.path));
    settle(complaints.collect(), "module headers");
}

fn all_sources() -> Vec<Source> {
    ["src", "tests", "benches"]
        .into_iter()
        .flat_map(tree)
        .collect()
}

/// The tests below prove that the rules above bite.
mod bites {
    use super::*;

    #[test]
    fn layers() {
        assert!(forbidden_import("ledger", "types").is_none());
        assert!(forbidden_import("ledger", "ledger").is_none());
        assert!(forbidden_import("types", "ledger").is_some(), "upward");
        assert!(forbidden_import("p2p", "sync").is_some(), "siblings");
        assert!(forbidden_import("sim", "replica").is_none());
        assert!(
            forbidden_import("sim", "storage").is_some(),
            "siblings, and impure"
        );
        let source = Source::new(
            "src/types/x.rs",
            "use crate::{base::limits, node::{exit, keys}, rpc};\nfn f() { crate::net::g() }\n// crate::sim\n",
        );
        let imports: Vec<String> = source
            .crate_imports()
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        assert_eq!(
            imports,
            ["base", "node", "rpc", "net"],
            "groups and paths count, comments do not"
        );
    }

    #[test]
    fn regions_and_words() {
        let text = "//! x\nfn a() {\n    x.unwrap();\n}\n// y.unwrap()\nconst S: &str = \"z.unwrap()\";\n\
                    #[cfg(test)]\nmod tests {\n    fn b() {\n        x.unwrap();\n    }\n}\n";
        let source = Source::new("src/node/x.rs", text);
        assert_eq!(
            source.lines_with(".unwrap()"),
            [3, 10],
            "code only, not comments or strings"
        );
        assert_eq!(
            (source.region(3), source.region(10)),
            (Region::Product, Region::Test)
        );
        assert_eq!(Source::new("tests/x.rs", text).region(3), Region::Test);
        let functions: Vec<(usize, String, usize)> = source.functions();
        assert_eq!(functions, [(2, "a".to_owned(), 3), (9, "b".to_owned(), 3)]);
        assert!(
            Source::new("src/x.rs", "let f32x = 1; let half = 0xf32;")
                .lines_with("f32")
                .is_empty(),
            "whole words only"
        );
        let proof = Source::new(
            "src/x.rs",
            "//!\n    .expect(\n        \"PROOF: bounded\",\n    )\n",
        );
        let expect = BANS
            .iter()
            .find(|ban| ban.word == ".expect(")
            .expect("in the table");
        assert!(
            proven(expect, &proof, 2),
            "a proof may stand on the next line"
        );
    }
}
