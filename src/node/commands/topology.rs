//! `timed topology`: threads with the cores they were given and the cores they have, and the queues between them.

use crate::node::commands::{CommandError, Output, table};
use crate::node::config::{Config, CoreSet};
use crate::node::datadir::DataDir;
use crate::node::pinning::placements;
use crate::node::queues::TABLE;
use serde_json::json;

/// What the configuration says of a thread, by the thread's name.
fn wanted(config: &Config, thread: &str) -> Option<CoreSet> {
    let threads = &config.threads;
    let cores = match thread {
        "net" => &threads.net,
        "consensus" => &threads.consensus,
        "storage" => &threads.storage,
        "signer" => &threads.signer,
        "sync" => &threads.sync,
        "rpc" => &threads.rpc,
        name if name.starts_with("pool") => &threads.pool_cores,
        _ => return None,
    };
    Some(cores.clone())
}

fn wish(cores: Option<CoreSet>) -> String {
    match cores {
        None => "-".to_owned(),
        Some(cores) if cores.floats() => "any".to_owned(),
        Some(cores) => cores.to_string(),
    }
}

/// Of the running node if there is one, else of the configuration alone.
pub(super) fn topology(config: &Config) -> Result<Output, CommandError> {
    let process = DataDir::new(&config.node.datadir).running_process();
    let mut threads: Vec<(String, String, Option<String>)> = Vec::new();
    match process {
        Some(pid) => {
            let path = format!("/proc/{pid}");
            let found = placements(pid)
                .map_err(|error| CommandError::io("read", std::path::Path::new(&path), &error))?;
            for placement in found {
                let wish = wish(wanted(config, &placement.thread));
                threads.push((placement.thread, wish, Some(placement.cores.to_string())));
            }
            threads.sort();
        }
        None => {
            for name in [
                "consensus",
                "net",
                "pool",
                "rpc",
                "signer",
                "storage",
                "sync",
            ] {
                threads.push((name.to_owned(), wish(wanted(config, name)), None));
            }
        }
    }
    let head = match process {
        Some(pid) => format!("node: process {pid}\n\n"),
        None => {
            "no node runs in this data directory: what follows is the configuration\n\n".to_owned()
        }
    };
    let rows = threads.iter().map(|(name, wish, real)| {
        let real = real.clone().unwrap_or_else(|| "-".to_owned());
        vec![name.clone(), wish.clone(), real]
    });
    let threads_table = table(
        &["thread", "cores configured", "cores in force"],
        rows.collect(),
    );
    let rows = TABLE.iter().map(|row| {
        let words = [row.name, row.producers, row.consumer, row.when_full];
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        words.insert(1, row.capacity.to_string());
        words
    });
    let queues_table = table(
        &["queue", "capacity", "filled by", "emptied by", "when full"],
        rows.collect(),
    );
    let threads = threads
        .iter()
        .map(|(name, wish, real)| json!({ "thread": name, "configured": wish, "effective": real }));
    let queues = TABLE.iter().map(|row| {
        json!({
            "queue": row.name, "capacity": row.capacity, "producers": row.producers,
            "consumer": row.consumer, "when_full": row.when_full,
        })
    });
    Ok(Output {
        text: format!("{head}{threads_table}\n{queues_table}"),
        json: json!({
            "pid": process,
            "threads": threads.collect::<Vec<_>>(),
            "queues": queues.collect::<Vec<_>>(),
        }),
    })
}
