//! The templates of a node: JSON and YAML files in a folder, read when they are
//! asked for and read again when they have changed. A file that is wrong hides no
//! other.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use taskmesh_core::shelf::Shelved;
use taskmesh_core::template::{Catalogue, Template, TemplateError};
use taskmesh_core::{BlobHash, limits};

/// Why a file gave no template. The others are there.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read: correct its mode, or whatever the system says.
    #[error("can't be read: {0}")]
    Unreadable(io::Error),
    /// It is too large: split it, a template by includes.
    #[error("has more than {limit} bytes; split it")]
    TooLarge {
        /// What it may have.
        limit: usize,
    },
    /// It is no JSON.
    #[error("is no JSON: {0}")]
    Json(serde_json::Error),
    /// It is no YAML, or more than one document.
    #[error("is no YAML document: {0}")]
    Yaml(String),
    /// It holds no template, or a wrong one.
    #[error(transparent)]
    Wrong(#[from] TemplateError),
    /// Another file has a template of that name and version.
    #[error("{name} is in {} already, and not the same; give one of them another version", other.display())]
    Taken {
        /// Name and version.
        name: String,
        /// The file that was taken.
        other: PathBuf,
    },
    /// Another node has called it something else.
    #[error("is {name}, and was announced as another")]
    Another {
        /// Name and version.
        name: String,
    },
    /// Not all of what another node announced, or something else.
    #[error("has another content than was announced")]
    Damaged,
    /// There are too many files; this one was left out.
    #[error("is one too many: a folder may have {} templates", limits::TEMPLATES)]
    TooMany,
}

/// A file that gave no template.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub error: Arc<FileError>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

/// A folder of templates.
#[derive(Debug, Default)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    catalogue: Arc<Catalogue>,
    origins: BTreeMap<String, PathBuf>,
    broken: Vec<Broken>,
    shared: Vec<(Shelved, Arc<Template>)>,
}

/// A file as it was read.
#[derive(Debug)]
struct File {
    version: Version,
    content: Result<Arc<Template>, Arc<FileError>>,
}

/// What tells a file from what it was. Two writes within one tick of the clock
/// differ in size, or are of two files (editors write anew and rename).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(found: &Metadata) -> Version {
        Version {
            file: (found.dev(), found.ino()),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Folder {
    /// The folder at `path`, which need not be there; nothing is read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Folder {
        Folder { path, ..Folder::default() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what has changed since the last call. A folder that is not there has
    /// no templates.
    ///
    /// # Errors
    /// The folder can't be listed; what was known stays known.
    pub fn refresh(&mut self) -> io::Result<()> {
        let found = match list(&self.path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let unchanged = found.len() == self.files.len()
            && found.iter().all(|(path, version)| self.files.get(path).is_some_and(|file| file.version == *version));
        if unchanged {
            return Ok(());
        }
        let mut before = std::mem::take(&mut self.files);
        for (n, (path, version)) in found.into_iter().enumerate() {
            let known = before.remove(&path).filter(|file| file.version == version);
            let content = match known {
                Some(file) if n < limits::TEMPLATES => file.content,
                _ if n < limits::TEMPLATES => read(&path).map(Arc::new).map_err(Arc::new),
                _ => Err(Arc::new(FileError::TooMany)),
            };
            self.files.insert(path, File { version, content });
        }
        self.collect();
        Ok(())
    }

    /// Puts what the files hold together; of two with one name, the first by the
    /// file's name is taken.
    fn collect(&mut self) {
        let mut catalogue = Catalogue::default();
        self.origins.clear();
        self.broken.clear();
        for (path, file) in &self.files {
            let error = match &file.content {
                Ok(template) => match catalogue.insert(template.clone()) {
                    Ok(()) => {
                        self.origins.insert(template.to_string(), path.clone());
                        continue;
                    }
                    Err(there) if there.document() == template.document() => continue,
                    Err(there) => {
                        let name = there.to_string();
                        let other = self.origins.get(&name).cloned().unwrap_or_default();
                        Arc::new(FileError::Taken { name, other })
                    }
                },
                Err(error) => error.clone(),
            };
            self.broken.push(Broken { path: path.clone(), error });
        }
        self.shared = catalogue.iter().map(|template| (shelved(template), template.clone())).collect();
        self.catalogue = Arc::new(catalogue);
    }

    /// The templates, as they were at the last [`Folder::refresh`].
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.clone()
    }

    /// The file of a template.
    #[must_use]
    pub fn origin(&self, template: &Template) -> Option<&Path> {
        self.origins.get(&template.to_string()).map(PathBuf::as_path)
    }

    /// The files that gave none.
    #[must_use]
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }
}

/// What other nodes are told of a template.
fn shelved(template: &Template) -> Shelved {
    Shelved {
        id: template.id().into(),
        version: template.version().to_string().into(),
        hash: BlobHash::of(&document_text(template)),
    }
}

/// A template as nodes hand it over.
fn document_text(template: &Template) -> Vec<u8> {
    template.document().to_string().into_bytes()
}

/// The folder of templates of a running node, for all who ask it. Every call
/// touches the disk, but for [`Shelf::read`].
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Mutex<Folder>>);

impl Shelf {
    /// The folder at `path`, which need not be there.
    #[must_use]
    pub fn new(path: PathBuf) -> Shelf {
        Shelf(Arc::new(Mutex::new(Folder::new(path))))
    }

    fn folder(&self) -> MutexGuard<'_, Folder> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refreshed(&self) -> MutexGuard<'_, Folder> {
        let mut folder = self.folder();
        if let Err(error) = folder.refresh() {
            tracing::warn!(%error, path = %folder.path().display(), "the folder of templates can't be read");
        }
        folder
    }

    /// The templates as they are now.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.refreshed().catalogue()
    }

    /// What other nodes are told of them, and which files gave none, and why.
    #[must_use]
    pub fn look(&self) -> (Vec<Shelved>, Vec<String>) {
        let folder = self.refreshed();
        let shared = folder.shared.iter().map(|(shelved, _)| shelved.clone()).collect();
        (shared, folder.broken().iter().map(ToString::to_string).collect())
    }

    /// Up to `len` bytes from `offset` of the template with this hash, if one has it.
    #[must_use]
    pub fn read(&self, hash: BlobHash, offset: u64, len: usize) -> Option<Vec<u8>> {
        let template = self.folder().shared.iter().find(|(shelved, _)| shelved.hash == hash)?.1.clone();
        let text = document_text(&template);
        Some(text.into_iter().skip(usize::try_from(offset).ok()?).take(len).collect())
    }
}

/// The template that another node handed over as `text`.
///
/// # Errors
/// It is not the one that was asked for.
pub fn handed_over(wanted: &Shelved, text: &[u8]) -> Result<Template, FileError> {
    if BlobHash::of(text) != wanted.hash {
        return Err(FileError::Damaged);
    }
    let document: Value = serde_json::from_slice(text).map_err(FileError::Json)?;
    let template = Template::read(&document)?;
    if template.id() != &*wanted.id || template.version().to_string() != *wanted.version {
        return Err(FileError::Another { name: template.to_string() });
    }
    Ok(template)
}

/// The files that may hold templates, by name. Hidden ones are those of editors.
fn list(folder: &Path) -> io::Result<Vec<(PathBuf, Version)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || Syntax::of(&path).is_none() {
            continue;
        }
        // What went away in the meantime is not there.
        let Ok(about) = std::fs::metadata(&path) else { continue };
        if about.is_file() {
            found.push((path, Version::of(&about)));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    // What is too many is told by the first of them.
    found.truncate(limits::TEMPLATES + 1);
    Ok(found)
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Json,
    Yaml,
}

impl Syntax {
    fn of(path: &Path) -> Option<Syntax> {
        match path.extension()?.to_str()? {
            "json" => Some(Syntax::Json),
            "yaml" | "yml" => Some(Syntax::Yaml),
            _ => None,
        }
    }
}

/// Whether a file of this name can hold a template.
#[must_use]
pub fn is_template_file(path: &Path) -> bool {
    Syntax::of(path).is_some()
}

/// Reads one file: YAML, unless its name ends in `.json`.
///
/// # Errors
/// It can't be read, or holds no template.
pub fn read(path: &Path) -> Result<Template, FileError> {
    Ok(Template::read(&document(path, limits::TEMPLATE_BYTES)?)?)
}

/// Reads what a file of at most `limit` bytes holds: YAML, unless its name ends in
/// `.json`.
///
/// # Errors
/// It can't be read, is too large, or is neither.
pub fn document(path: &Path, limit: usize) -> Result<Value, FileError> {
    let file = std::fs::File::open(path).map_err(FileError::Unreadable)?;
    let mut text = String::new();
    file.take(limit as u64 + 1).read_to_string(&mut text).map_err(FileError::Unreadable)?;
    if text.len() > limit {
        return Err(FileError::TooLarge { limit });
    }
    parse(Syntax::of(path).unwrap_or(Syntax::Yaml), &text)
}

fn parse(syntax: Syntax, text: &str) -> Result<Value, FileError> {
    match syntax {
        Syntax::Json => serde_json::from_str(text).map_err(FileError::Json),
        Syntax::Yaml => yaml(text).map_err(|e| FileError::Yaml(first_line(&e.to_string()))),
    }
}

/// The parser shows the place as well, with as much of the file as it likes.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

/// YAML 1.2: `no` is a text, a key that is there twice is a mistake, and aliases
/// can't make a small file large.
fn yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: limits::NESTING,
            max_nodes: limits::DEFINITION_BYTES,
            max_total_scalar_bytes: 2 * limits::DEFINITION_BYTES,
            max_documents: 1,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
    };
    serde_saphyr::from_str_with_options(text, options)
}

#[cfg(test)]
mod tests;
