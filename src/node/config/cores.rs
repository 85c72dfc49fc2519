//! The affinity grammar of `[threads]`: which cores a thread may run on.
//!
//! Job: text -> set of core numbers. Inputs: a configuration value. Outputs: [`CoreSet`].
//! Never: asks the machine which cores exist (that is `node::pinning`).
//!
//! Grammar: empty or `float` = any core; otherwise parts joined by commas, each `N`, `A-B`, or `A-B/S` (every S-th core from A to B).

use std::collections::BTreeSet;
use std::fmt;

/// Highest core number the grammar takes, plus one: the size of the kernel's static `cpu_set_t`.
pub const CORE_COUNT_MAX: u16 = 1024;

/// Cores a thread may run on; empty means "any" (the thread floats).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreSet(BTreeSet<u16>);

impl CoreSet {
    /// Reads the affinity grammar. The error says what is wrong with which part.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text == "float" {
            return Ok(CoreSet::default());
        }
        let mut cores = BTreeSet::new();
        for part in text.split(',') {
            let (first, last, step) = parse_part(part.trim())?;
            cores.extend((first..=last).step_by(usize::from(step)));
        }
        Ok(CoreSet(cores))
    }

    /// True if no core is named: the thread is not pinned.
    pub fn floats(&self) -> bool {
        self.0.is_empty()
    }

    /// The cores, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    /// How many cores are named; 0 if the thread floats.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<u16> for CoreSet {
    fn from_iter<I: IntoIterator<Item = u16>>(cores: I) -> Self {
        CoreSet(cores.into_iter().collect())
    }
}

/// Canonical form: runs joined as `A-B`; `float` if empty.
impl fmt::Display for CoreSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("float");
        }
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for core in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == core => *last = core,
                _ => runs.push((core, core)),
            }
        }
        for (index, (first, last)) in runs.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// One part of the grammar: (first, last, step).
fn parse_part(part: &str) -> Result<(u16, u16, u16), String> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, parse_number(step, part)?),
        None => (part, 1),
    };
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (parse_number(first, part)?, parse_number(last, part)?),
        None => {
            let core = parse_number(range, part)?;
            (core, core)
        }
    };
    if step == 0 {
        return Err(format!("\"{part}\" has the step 0"));
    }
    if first > last {
        return Err(format!("\"{part}\" runs backwards"));
    }
    if last >= CORE_COUNT_MAX {
        return Err(format!("core {last} is beyond {}", CORE_COUNT_MAX - 1));
    }
    Ok((first, last, step))
}

fn parse_number(text: &str, part: &str) -> Result<u16, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("\"{part}\" is not N, A-B or A-B/STEP"))
}

#[cfg(test)]
mod tests {
    use super::{CORE_COUNT_MAX, CoreSet};
    use proptest::prelude::*;

    fn cores(text: &str) -> Vec<u16> {
        CoreSet::parse(text).expect("valid").iter().collect()
    }

    #[test]
    fn grammar_names_the_cores_it_says() {
        assert_eq!(cores(""), [0u16; 0], "empty floats");
        assert_eq!(cores("float"), [0u16; 0], "float floats");
        assert_eq!(cores("3"), [3]);
        assert_eq!(cores("0-3"), [0, 1, 2, 3]);
        assert_eq!(cores("0-7/2"), [0, 2, 4, 6]);
        assert_eq!(cores(" 5, 0-1 ,1"), [0, 1, 5], "sorted, without repeats");
    }

    #[test]
    fn nonsense_is_refused_with_the_part_that_is_wrong() {
        for text in ["a", "3-1", "0-3/0", "1,,2", "-1", "0-", "1024", "99999"] {
            let error = CoreSet::parse(text).expect_err(text);
            assert!(!error.is_empty(), "{text} must say why");
        }
    }

    proptest! {
        #[test]
        fn display_parses_back(set in proptest::collection::btree_set(0..CORE_COUNT_MAX, 0..40)) {
            let cores: CoreSet = set.into_iter().collect();
            prop_assert_eq!(CoreSet::parse(&cores.to_string()), Ok(cores));
        }

        #[test]
        fn any_text_is_answered_without_panic(text in ".{0,40}") {
            let _ = CoreSet::parse(&text);
        }
    }
}
