//! Reading the tree: its files, and Rust text with comments and literals
//! blanked out, so that a rule sees only code.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A text file of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// From the root of the tree, with `/`.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
    /// Its content without comments and literals, line for line; Rust only.
    pub(crate) code: String,
}

impl Source {
    /// A file as it would be read from the tree.
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = if path.ends_with(".rs") { blank_comments_and_literals(text) } else { String::new() };
        Source { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// The root of the tree.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file that belongs to the project, sorted by path.
pub(crate) fn tree() -> &'static [Source] {
    static TREE: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let mut files = Vec::new();
        walk(root(), &mut files);
        files.sort();
        files.iter().filter_map(|path| read(path)).collect()
    });
    &TREE
}

fn read(path: &Path) -> Option<Source> {
    let relative = path.strip_prefix(root()).ok()?.to_string_lossy().replace('\\', "/");
    // Fixtures are bytes that a program wrote, not text of the project.
    let text = String::from_utf8(std::fs::read(path).ok()?).ok()?;
    Some(Source::new(&relative, &text))
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let entry = entry.expect("a readable folder");
        let name = entry.file_name();
        let path = entry.path();
        let skipped = ["target", ".git", "node_modules", "fixtures", "corpus", "artifacts"].iter().any(|s| name == *s);
        if skipped {
            continue;
        }
        if entry.file_type().expect("a file type").is_dir() {
            walk(&path, files);
        } else if name != "Cargo.lock" {
            files.push(path);
        }
    }
}

/// `text` with every comment, string and character literal replaced by spaces.
pub(crate) fn blank_comments_and_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = token_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` if none does.
fn token_end(chars: &[char], at: usize) -> usize {
    let next = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    match chars[at] {
        '/' if next(1) == '/' => (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()),
        '/' if next(1) == '*' => block_comment_end(chars, at),
        '"' => string_end(chars, at + 1),
        '\'' if next(1) == '\\' => (at + 3..chars.len()).find(|i| chars[*i] == '\'').map_or(chars.len(), |i| i + 1),
        '\'' if next(2) == '\'' => at + 3,
        'r' if !continues_a_word(chars, at) => raw_string_end(chars, at),
        _ => at,
    }
}

fn continues_a_word(chars: &[char], at: usize) -> bool {
    // `br"…"` and `cr"…"` are raw strings too.
    let before = |n: usize| at.checked_sub(n).map(|i| chars[i]);
    match before(1) {
        Some('b' | 'c') => before(2).is_some_and(is_word),
        Some(c) => is_word(c),
        None => false,
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_u32);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') if depth == 1 => return at + 2,
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `at` stands on an `r`: the end of the raw string, or `at` if it is none.
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let closes =
        |i: &usize| chars[*i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (open + 1..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes)
}

/// Part of an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The numbers (from 1) of the lines of `code` where `word` stands as a whole
/// word followed by what `rest` accepts.
pub(crate) fn lines_with_word(code: &str, word: &str, rest: impl Fn(&str) -> bool) -> Vec<usize> {
    let found = |line: &str| {
        line.match_indices(word).any(|(i, _)| {
            let before = line[..i].chars().next_back();
            let after = &line[i + word.len()..];
            !before.is_some_and(is_word) && !after.chars().next().is_some_and(is_word) && rest(after)
        })
    };
    code.lines().enumerate().filter(|(_, line)| found(line)).map(|(n, _)| n + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let text =
            "let a = \"x // \\\" y\"; // gone\n/* a /* b */ c */ let b = 'x';\nlet c: &'static str = r#\"q\"r\"#;\n";
        let code = blank_comments_and_literals(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>().join(" "),
            "let a = ; let b = ; let c: &'static str = ;"
        );
    }

    #[test]
    fn a_word_is_found_whole() {
        let code = "use sled;\nlet led = unsled::x();\nsled::open()";
        assert_eq!(lines_with_word(code, "sled", |_| true), [1, 3]);
        assert_eq!(lines_with_word(code, "sled", |rest| rest.starts_with("::")), [3]);
    }
}
