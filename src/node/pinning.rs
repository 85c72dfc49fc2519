//! Cores: which a thread may use, and which it really does.
//!
//! Job: pin the calling thread, read masks back, list the threads of a process. Inputs: [`CoreSet`]s of `[threads]`.
//! Outputs: the effective mask, as the kernel tells it. Never: reports a wish as a fact.

use std::io;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::config::{CORE_COUNT_MAX, CoreSet};
use super::exit::Exit;

/// Why a thread could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The kernel refused.
    #[error(
        "cannot pin thread {thread} to cores {wanted}: {source}; cores of this machine that the process may use: {available}"
    )]
    Refused {
        /// Name of the thread.
        thread: String,
        /// Cores asked for.
        wanted: CoreSet,
        /// Cores there are.
        available: CoreSet,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Some of the cores are not to be had.
    #[error(
        "thread {thread} was to run on cores {wanted} but may only use {effective}; correct [threads] in the configuration"
    )]
    Partial {
        /// Name of the thread.
        thread: String,
        /// Cores asked for.
        wanted: CoreSet,
        /// Cores got.
        effective: CoreSet,
    },
}

impl PinError {
    /// The exit code of a program that stops because of this.
    pub fn exit(&self) -> Exit {
        Exit::Config
    }
}

/// A thread of a process and the cores it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Name of the thread, as the kernel keeps it (at most 15 bytes).
    pub thread: String,
    /// Cores the scheduler may put it on.
    pub cores: CoreSet,
}

/// Pins the calling thread and reads the mask back; does nothing if `wanted` floats. Answers the effective cores.
pub fn pin_current(thread: &str, wanted: &CoreSet) -> Result<CoreSet, PinError> {
    let available = current().unwrap_or_default();
    if wanted.floats() {
        return Ok(available);
    }
    let refused = |source: rustix::io::Errno| PinError::Refused {
        thread: thread.to_owned(),
        wanted: wanted.clone(),
        available: available.clone(),
        source: source.into(),
    };
    let mut mask = CpuSet::new();
    for core in wanted.iter() {
        mask.set(usize::from(core));
    }
    sched_setaffinity(None, &mask).map_err(refused)?;
    let effective = cores_of(&sched_getaffinity(None).map_err(refused)?);
    if effective == *wanted {
        Ok(effective)
    } else {
        Err(PinError::Partial {
            thread: thread.to_owned(),
            wanted: wanted.clone(),
            effective,
        })
    }
}

/// The cores that the calling thread may use.
pub fn current() -> io::Result<CoreSet> {
    Ok(cores_of(&sched_getaffinity(None)?))
}

/// The threads of a process, by name, with the cores they may use. A thread that ends meanwhile is left out.
pub fn placements(process: u32) -> io::Result<Vec<Placement>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let (Some(id), Ok(name)) = (
            number.and_then(Pid::from_raw),
            std::fs::read_to_string(path.join("comm")),
        ) else {
            continue;
        };
        if let Ok(mask) = sched_getaffinity(Some(id)) {
            found.push(Placement {
                thread: name.trim_end().to_owned(),
                cores: cores_of(&mask),
            });
        }
    }
    found.sort_by(|a, b| a.thread.cmp(&b.thread));
    Ok(found)
}

fn cores_of(mask: &CpuSet) -> CoreSet {
    (0..CORE_COUNT_MAX)
        .filter(|core| usize::from(*core) < CpuSet::MAX_CPU && mask.is_set(usize::from(*core)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` on a thread of its own, so that no other test inherits a mask.
    fn on_a_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::Builder::new().name("pin-test".into());
        thread
            .spawn(body)
            .expect("thread")
            .join()
            .expect("no panic")
    }

    #[test]
    fn a_pinned_thread_is_where_it_was_put() {
        let first = current().expect("mask").iter().next().expect("a core");
        let wanted: CoreSet = [first].into_iter().collect();
        let expected = wanted.clone();
        let seen = on_a_thread(move || {
            let effective = pin_current("pin-test", &wanted).expect("pinned");
            let placements = placements(std::process::id()).expect("task list");
            (effective, placements)
        });
        assert_eq!(seen.0, expected, "the mask read back is the one set");
        assert!(
            seen.1
                .iter()
                .any(|place| place.thread == "pin-test" && place.cores == expected),
            "the list of threads shows it: {:?}",
            seen.1
        );
    }

    #[test]
    fn cores_that_do_not_exist_are_an_error_not_a_wish() {
        let wanted = CoreSet::parse("1023").expect("grammar");
        let error =
            on_a_thread(move || pin_current("pin-test", &wanted)).expect_err("no such core");
        assert_eq!(error.exit(), Exit::Config);
        assert!(error.to_string().contains("1023"), "{error}");
    }

    #[test]
    fn a_floating_thread_keeps_its_cores() {
        let before = current().expect("mask");
        let after =
            on_a_thread(|| pin_current("pin-test", &CoreSet::default())).expect("nothing to do");
        assert_eq!(after, before);
    }
}
