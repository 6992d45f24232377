//! Manifests from files, folders and standard input.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use calico_model::manifest::{self, ManifestError};
use calico_model::resource::Document;

/// Whether folders below a folder are read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the files of the folder itself.
    Flat,
    /// All below.
    Recursive,
}

/// Input that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A file or folder cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document is wrong.
    #[error("{from}: {problem}")]
    Wrong {
        /// The file, or `standard input`.
        from: String,
        /// What is wrong.
        problem: Box<ManifestError>,
    },
}

/// Reads all resources of a file, of the `.yaml`, `.yml` and `.json` files of a folder in name order, or, for `-`, of
/// standard input.
///
/// # Errors
/// When the file or folder itself cannot be read. A document that is wrong is an error among the documents.
pub fn read(source: &Path, depth: Depth) -> Result<Vec<Result<Document, InputError>>, InputError> {
    if source == Path::new("-") {
        let mut text = Vec::new();
        let limit = u64::try_from(manifest::MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        let read = io::stdin().take(limit).read_to_end(&mut text);
        read.map_err(|source| InputError::Unreadable { path: "standard input".into(), source })?;
        return Ok(documents("standard input", &text));
    }
    let mut files = Vec::new();
    if is_folder(source)? {
        collect(source, depth, &mut files)?;
        files.sort();
    } else {
        files.push(source.to_owned());
    }
    let mut all = Vec::new();
    for file in files {
        let text = fs::read(&file).map_err(unreadable(&file))?;
        all.extend(documents(&file.display().to_string(), &text));
    }
    Ok(all)
}

fn documents(from: &str, text: &[u8]) -> Vec<Result<Document, InputError>> {
    let wrong = |problem| InputError::Wrong { from: from.to_owned(), problem: Box::new(problem) };
    manifest::parse(text).into_iter().map(|read| read.map_err(wrong)).collect()
}

fn collect(folder: &Path, depth: Depth, files: &mut Vec<PathBuf>) -> Result<(), InputError> {
    for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        if is_folder(&path)? {
            // A link to a folder may lead back up; what it leads to is read where it is.
            let is_link = fs::symlink_metadata(&path).map_err(unreadable(&path))?.is_symlink();
            if depth == Depth::Recursive && !is_link {
                collect(&path, depth, files)?;
            }
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            files.push(path);
        }
    }
    Ok(())
}

fn is_folder(path: &Path) -> Result<bool, InputError> {
    fs::metadata(path).map(|metadata| metadata.is_dir()).map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> InputError + '_ {
    |source| InputError::Unreadable { path: path.to_owned(), source }
}
