//! What a network of four real processes on this machine reaches, beside the sync time of its disk in the same minute.
//!
//! `cargo bench --bench cluster -- latency kills=5` runs the parts whose names are given, all of them otherwise, with sizes
//! of one's own. Every part starts a devnet in a directory of its own below `TIMECOIN_BENCH_DIR` (default: Cargo's) and
//! ends it. Figures are printed, never judged: what they depend on most is the disk.

mod faults;
mod flood;
mod network;
mod parts;
mod stranger;
#[path = "../../tests/cluster/tls.rs"]
mod tls;

use std::process::ExitCode;

/// A part: its name, what it shows, and what runs it.
struct Part {
    name: &'static str,
    shows: &'static str,
    run: fn(&Sizes) -> Result<Report, String>,
}

const PARTS: [Part; 7] = [
    Part {
        name: "start",
        shows: "`timed devnet` typed until the first payment is final",
        run: parts::start,
    },
    Part {
        name: "latency",
        shows: "payment sent until it is reported final, one at a time",
        run: parts::latency,
    },
    Part {
        name: "idle",
        shows: "cost of a node of an idle network",
        run: parts::idle,
    },
    Part {
        name: "recovery",
        shows: "process start until it answers with the height it was killed at",
        run: faults::recovery,
    },
    Part {
        name: "kill",
        shows: "leader killed under load: longest gap between decided blocks",
        run: faults::kill,
    },
    Part {
        name: "flood",
        shows: "payments one at a time while 50 strangers flood, into a sink and into the nodes",
        run: flood::flood,
    },
    Part {
        name: "load",
        shows: "a constant rate of payments through all nodes",
        run: parts::load,
    },
];

/// How large the parts are.
struct Sizes {
    starts: u64,
    payments: u64,
    idle: u64,
    coins: u64,
    restarts: u64,
    kills: u64,
    rate: u64,
    seconds: u64,
}

const FULL: Sizes = Sizes {
    starts: 5,
    payments: 200,
    idle: 30,
    coins: 100_000,
    restarts: 10,
    kills: 20,
    rate: 1_000,
    seconds: 60,
};

/// With `--test`: does it work at all?
const TINY: Sizes = Sizes {
    starts: 1,
    payments: 3,
    idle: 1,
    coins: 200,
    restarts: 1,
    kills: 1,
    rate: 20,
    seconds: 1,
};

impl Sizes {
    fn set(&mut self, name: &str, value: u64) -> bool {
        let field = match name {
            "starts" => &mut self.starts,
            "payments" => &mut self.payments,
            "idle" => &mut self.idle,
            "coins" => &mut self.coins,
            "restarts" => &mut self.restarts,
            "kills" => &mut self.kills,
            "rate" => &mut self.rate,
            "seconds" => &mut self.seconds,
            _ => return false,
        };
        *field = value.max(1);
        true
    }
}

/// Figures of one part, with the sync time of the disk before and after it.
struct Report {
    rows: Vec<(&'static str, String)>,
    sync_us: [u64; 2],
}

/// Microseconds as a person reads them.
fn ms(us: u64) -> String {
    format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10)
}

/// Median and greatest of some times.
fn spread(mut times_us: Vec<u64>) -> String {
    times_us.sort_unstable();
    let median = times_us.get(times_us.len() / 2).copied();
    let most = times_us.last().copied();
    let count = times_us.len();
    let [median, most] = [median, most].map(Option::unwrap_or_default);
    format!("p50 {}  worst {}  of {count}", ms(median), ms(most))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut sizes = match arguments.iter().any(|argument| argument == "--test") {
        true => TINY,
        false => FULL,
    };
    let mut wanted = Vec::new();
    for argument in arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
    {
        match argument.split_once('=') {
            None => wanted.push(argument.as_str()),
            Some((name, value)) => {
                let set = value.parse().is_ok_and(|value| sizes.set(name, value));
                if !set {
                    eprintln!(
                        "cluster: '{argument}' is no size; known: starts, payments, idle, coins, restarts, kills, rate, seconds"
                    );
                    return ExitCode::from(64);
                }
            }
        }
    }
    let mut code = ExitCode::SUCCESS;
    for part in PARTS {
        // Names of benchmarks of other files may be given too.
        if !wanted.is_empty() && !wanted.contains(&part.name) {
            continue;
        }
        println!("\n{}: {}", part.name, part.shows);
        match (part.run)(&sizes) {
            Ok(report) => {
                let [before, after] = report.sync_us.map(ms);
                for (name, figure) in report.rows {
                    println!("  {name:<24} {figure}");
                }
                println!(
                    "  {:<24} {before} before, {after} after",
                    "d (median fdatasync)"
                );
            }
            Err(error) => {
                println!("  failed: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
