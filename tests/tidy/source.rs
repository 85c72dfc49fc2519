//! A source file as the tidy tests see it: code without comments and strings, its functions, and which lines are tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Code that is shipped.
    Product,
    /// Code that only tests run.
    Test,
}

/// A source file.
pub struct Source {
    /// Path from the top of the tree.
    pub path: String,
    /// Its text.
    pub raw: String,
    /// The same lines, with the inside of comments and literals blanked.
    code: Vec<String>,
    /// Lines that are tests, counted from 1.
    tests: BTreeSet<usize>,
}

/// The top of the tree.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, in order of its path.
pub fn tree(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    paths.sort();
    let mut sources: Vec<Source> = paths
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).expect("a source file is UTF-8");
            let path = path.strip_prefix(root()).expect("below the top");
            Source::new(&path.to_string_lossy(), &text)
        })
        .collect();
    let test_modules: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let is_test = |module: &String| {
            source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/"))
        };
        if test_modules.iter().any(is_test) {
            source.tests = (1..=source.code.len()).collect();
        }
    }
    sources
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.map(|entry| entry.expect("a directory entry").path()) {
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

impl Source {
    /// The file `path` with this text.
    pub fn new(path: &str, raw: &str) -> Self {
        let code: Vec<String> = blank(raw).lines().map(str::to_owned).collect();
        let tests = if path.starts_with("src/") {
            test_lines(&code)
        } else {
            (1..=code.len()).collect()
        };
        Source {
            path: path.to_owned(),
            raw: raw.to_owned(),
            code,
            tests,
        }
    }

    /// The module right below `src` that this file belongs to; None for lib.rs, programs and tests.
    pub fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let module = below.split_once('/')?.0;
        (module != "bin").then_some(module)
    }

    /// What line `line` belongs to.
    pub fn region(&self, line: usize) -> Region {
        if self.tests.contains(&line) {
            Region::Test
        } else {
            Region::Product
        }
    }

    /// Lines whose code holds `word`, counted from 1. Where `word` begins or ends like a name, it must be a whole name there.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let holds = |line: &str| {
            line.match_indices(word).any(|(start, _)| {
                let before = line[..start].chars().next_back();
                let after = line[start + word.len()..].chars().next();
                let begins = !word.starts_with(is_name) || !before.is_some_and(is_name);
                let ends = !word.ends_with(is_name) || !after.is_some_and(is_name);
                begins && ends
            })
        };
        let lines = self.code.iter().enumerate();
        lines
            .filter(|(_, line)| holds(line))
            .map(|(index, _)| index + 1)
            .collect()
    }

    /// First modules of all `crate::` paths, with their lines.
    pub fn crate_imports(&self) -> Vec<(usize, String)> {
        let text = self.code.join("\n");
        let mut found = Vec::new();
        for (start, word) in text.match_indices("crate::") {
            let line = text[..start].matches('\n').count() + 1;
            let rest = &text[start + word.len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => first_names(group),
                None => vec![first_name(rest)],
            };
            found.extend(names.into_iter().map(|name| (line, name)));
        }
        found
    }

    /// Functions: line, name, and number of lines from `fn` to the closing brace. The tree is formatted, so that a brace in the
    /// column of the function closes it.
    pub fn functions(&self) -> Vec<(usize, String, usize)> {
        let mut found = Vec::new();
        for (index, line) in self.code.iter().enumerate() {
            let Some(name) = function_name(line) else {
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let closing = format!("{}}}", " ".repeat(indent));
            let after = self.code.iter().skip(index);
            let length = after.take_while(|line| line.trim_end() != closing).count() + 1;
            let one_line = line.trim_end().ends_with('}') || line.trim_end().ends_with(';');
            found.push((index + 1, name, if one_line { 1 } else { length }));
        }
        found
    }

    /// Paths (without `.rs`) of modules that this file declares under `#[cfg(test)]`.
    fn test_modules(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        let folder = match path.rsplit_once('/') {
            Some((folder, "mod" | "lib")) => folder,
            _ => path,
        };
        let mut found = Vec::new();
        for (index, line) in self.code.iter().enumerate() {
            if line.trim() != "#[cfg(test)]" {
                continue;
            }
            let following = self.code.iter().zip(self.raw.lines()).skip(index + 1);
            let attributes = following.take_while(|(code, _)| code.trim().starts_with("#["));
            let file = attributes
                .filter_map(|(_, raw)| raw.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"));
            if let Some(file) = file.last() {
                let beside = self.path.rsplit_once('/').map_or("", |(beside, _)| beside);
                found.push(format!("{beside}/{}", file.trim_end_matches(".rs")));
            } else if let Some(declared) = self.code.get(index + 1)
                && let Some((_, name)) = declared.trim().trim_end_matches(';').rsplit_once("mod ")
            {
                found.push(format!("{folder}/{name}"));
            }
        }
        found
    }
}

fn function_name(line: &str) -> Option<String> {
    let (before, after) = line.split_once("fn ")?;
    let modifiers = [
        "pub",
        "const",
        "extern",
        "unsafe",
        "pub(crate)",
        "pub(super)",
    ];
    let is_item = before
        .split_whitespace()
        .all(|word| modifiers.contains(&word));
    let name = first_name(after);
    (is_item && !name.is_empty()).then_some(name)
}

fn first_name(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// First names of the elements of a `{...}` group, given what follows its opening brace.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut element = String::new();
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.push(std::mem::take(&mut element)),
            '{' => depth += 1,
            '}' => depth -= 1,
            c if depth == 0 => element.push(c),
            _ => {}
        }
    }
    names.push(element);
    let names = names.iter().map(|element| first_name(element.trim()));
    names.filter(|name| !name.is_empty()).collect()
}

/// Lines of `#[cfg(test)]` items with a body.
fn test_lines(code: &[String]) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    for (index, line) in code.iter().enumerate() {
        if line.trim() != "#[cfg(test)]" {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        for (offset, body) in code.iter().enumerate().skip(index) {
            lines.insert(offset + 1);
            if body.trim_end() == closing
                || (offset > index && body.trim_end().ends_with(';') && offset == index + 1)
            {
                break;
            }
        }
    }
    lines
}

/// The text with the inside of comments, strings and character literals replaced by blanks; lines stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        match end {
            Some(end) => {
                let inside = &chars[at..end.min(chars.len())];
                out.extend(inside.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}

/// If a comment or literal begins at `at`: where it ends.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    let find = |from: usize, pattern: &[char]| {
        let rest = chars.get(from..).unwrap_or_default();
        let found = rest
            .windows(pattern.len())
            .position(|window| window == pattern);
        found.map_or(chars.len(), |offset| from + offset + pattern.len())
    };
    match (chars[at], next) {
        ('/', Some('/')) => Some(find(at, &['\n']).saturating_sub(1).max(at + 1)),
        ('/', Some('*')) => Some(find(at + 2, &['*', '/'])),
        ('r', Some('"' | '#'))
            if at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') =>
        {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            if chars.get(at + 1 + hashes) != Some(&'"') {
                return None;
            }
            let mut pattern = vec!['"'];
            pattern.extend(std::iter::repeat_n('#', hashes));
            Some(find(at + 2 + hashes, &pattern))
        }
        ('"', _) => Some(escaped_end(chars, at + 1, '"')),
        ('\'', Some('\\')) => Some(escaped_end(chars, at + 1, '\'')),
        ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

/// Where a literal with escapes ends, given where its inside begins.
fn escaped_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}
