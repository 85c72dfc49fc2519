//! What a crash, a power cut or a full disk leaves behind: always a whole ledger, and nothing that was acknowledged lost.
//!
//! Some of these tests run themselves again as a child process that is killed or starved of disk.

use super::env::DATA_FILE;
use super::testing::TempDir;
use super::tests::{blocks, open, small_genesis};
use super::*;
use crate::base::rng::Rng;
use crate::ledger::decided::DecidedBlock;
use crate::ledger::testkit::Net;
use crate::types::ids::Height;
use proptest::prelude::*;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Names the directory for a test that runs as a child; without it that test has nothing to do.
const CHILD_DIR: &str = "TIMECOIN_TEST_STORE";
const BLOCKS: u64 = 40;

/// The same chain in every process.
fn chain() -> Vec<DecidedBlock> {
    blocks(&mut Net::new(small_genesis()), BLOCKS)
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// This test binary as a child that runs one test only, through a shell that may set limits first.
fn child(test: &str, dir: &std::path::Path, limits: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{limits} exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args([&format!("storage::crash::{test}"), "--exact", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped());
    command
}

#[test]
fn child_commits_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let (all, store) = (chain(), open(&dir));
    let mut group = 1;
    while store.tip() < Height(BLOCKS) {
        let at = store.tip().0 as usize;
        store.commit(&all[at..all.len().min(at + group)]).unwrap();
        println!("durable {}", store.tip());
        group = group % 3 + 1;
    }
}

#[test]
fn killed_at_any_commit_the_ledger_is_whole_and_keeps_what_was_durable() {
    let dir = TempDir::new("crash-kill");
    let all = chain();
    let mut reached = 0;
    for kill_after in [0, 1, 2, 4, 7, 3, 20] {
        let mut process = child("child_commits_until_it_is_killed", dir.path(), "")
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut durable = lines
            .map_while(Result::ok)
            .filter_map(|line| line.split("durable ").nth(1)?.parse::<u64>().ok());
        let last = durable.by_ref().take(kill_after).last();
        process.kill().unwrap();
        // What it still said before the kill took effect counts as well.
        let last = durable.last().or(last).unwrap_or(reached);
        process.wait().unwrap();
        let store = open(dir.path());
        let tip = store.tip().0;
        assert!(
            tip >= last,
            "S5: height {last} was durable, the tip is {tip}"
        );
        let report = store.verify(&mut |_, _, _| {}).unwrap();
        assert_eq!(report.height, Height(tip));
        if tip > 0 {
            assert_eq!(store.state(), all[tip as usize - 1].delta.after);
        }
        reached = tip;
    }
}

#[test]
fn child_writes_until_the_disk_is_full() {
    let Some(dir) = child_dir() else { return };
    let (store, signer) = KvStore::open(&dir, [1; 32]).unwrap();
    assert_eq!(signer, Signer::Sure);
    let write = |i: u32| store.write(&[(i.to_be_bytes().to_vec(), Some(vec![1; 20_000]))]);
    let mut done = 0;
    let error = loop {
        match write(done) {
            Ok(()) => done += 1,
            Err(e) => break e,
        }
    };
    assert!(error.is_full(), "{error}");
    assert!(
        write(done).unwrap_err().is_full(),
        "S5: tried again, still full"
    );
    store
        .write(&[(0u32.to_be_bytes().to_vec(), None)])
        .unwrap_or_else(|e| assert!(e.is_full(), "{e}"));
    println!("written {done}");
}

#[test]
fn a_full_disk_is_told_from_a_broken_one_and_loses_nothing() {
    let dir = TempDir::new("crash-full");
    KvStore::create(dir.path(), [1; 32]).unwrap();
    // A file size limit stands for a full disk: the write that reaches it is cut short, the next is refused.
    let limits = "trap '' XFSZ; ulimit -f 3000;";
    let output = child("child_writes_until_the_disk_is_full", dir.path(), limits)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let written = text.lines().find_map(|line| line.split("written ").nth(1));
    let written: usize = written.unwrap().trim().parse().unwrap();
    let (store, signer) = KvStore::open(dir.path(), [1; 32]).unwrap();
    assert_eq!(signer, Signer::Sure);
    let found = store.load().unwrap().len();
    assert!(
        written > 10 && (found == written || found + 1 == written),
        "nothing is lost"
    );
    store
        .write(&[(vec![9; 4], Some(vec![2; 100_000]))])
        .unwrap();
}

#[test]
fn child_looks_at_a_damaged_ledger() {
    let Some(dir) = child_dir() else { return };
    let store = LedgerStore::open(&dir, 1 << 30, &small_genesis());
    if let Err(e) = store.and_then(|store| store.verify(&mut |_, _, _| {})) {
        std::process::exit(i32::from(e.exit_code()));
    }
}

#[test]
fn a_lost_page_is_corruption_and_never_a_signal() {
    let dir = TempDir::new("crash-pages");
    let (whole, hurt) = (dir.path().join("whole"), dir.path().join("hurt"));
    open(&whole).commit(&chain()[..8]).unwrap();
    let good = std::fs::read(whole.join(DATA_FILE)).unwrap();
    let pages = good.len() / 4_096;
    let mut corrupt = 0;
    for page in (2..pages).step_by((pages / 12).max(1)) {
        let mut bad = good.clone();
        bad[page * 4_096..][..4_096].fill(0);
        std::fs::create_dir_all(&hurt).unwrap();
        std::fs::write(hurt.join(DATA_FILE), &bad).unwrap();
        let output = child("child_looks_at_a_damaged_ledger", &hurt, "")
            .output()
            .unwrap();
        match output.status.code() {
            // A free page: nobody misses it.
            Some(0) => {}
            Some(65) => corrupt += 1,
            other => assert_eq!(other, Some(65), "page {page}: {output:?}"),
        }
    }
    assert!(corrupt > 0, "some page held something");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn after_a_power_cut_any_written_pages_leave_the_commit_before(seed in any::<u64>(), first in 1usize..6, more in 1usize..6) {
        let dir = TempDir::new("crash-power");
        let mut net = Net::new(small_genesis());
        let all = blocks(&mut net, (first + more) as u64);
        let data = dir.path().join(DATA_FILE);
        let store = open(dir.path());
        store.commit(&all[..first]).unwrap();
        drop(store);
        let before = std::fs::read(&data).unwrap();
        let store = open(dir.path());
        store.commit(&all[first..]).unwrap();
        drop(store);
        let mut torn = std::fs::read(&data).unwrap();
        // The meta pages go last: the cut came before them, after some of the other pages.
        let mut rng = Rng::new(seed);
        for (page, old) in before.chunks(4_096).enumerate() {
            if page < 2 || rng.below(2) == 0 {
                torn[page * 4_096..][..old.len()].copy_from_slice(old);
            }
        }
        std::fs::write(&data, &torn).unwrap();
        let store = open(dir.path());
        prop_assert_eq!(store.tip(), Height(first as u64), "all or nothing");
        store.verify(&mut |_, _, _| {}).unwrap();
        store.commit(&all[first..]).unwrap();
        store.verify(&mut |_, _, _| {}).unwrap();
    }
}
