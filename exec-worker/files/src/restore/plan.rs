//! Whether a listing is that of a tree, and what is to be made of it.

use std::collections::HashMap;

use crate::entry::{Entry, Hash, Kind};
use crate::error::Error;
use crate::path::is_name;

/// A file that is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'a> {
    pub entry: &'a Entry,
    pub content: Hash,
}

/// A listing by kind, each in its order.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    pub folders: Vec<&'a Entry>,
    pub symlinks: Vec<(&'a Entry, &'a [u8])>,
    pub files: Vec<File<'a>>,
    /// Further names, and the first of each.
    pub links: Vec<(&'a Entry, &'a Entry)>,
}

impl<'a> Plan<'a> {
    pub(super) fn of(entries: &'a [Entry]) -> Result<Plan<'a>, Error> {
        let mut plan = Plan::default();
        let mut first: HashMap<u64, &Entry> = HashMap::new();
        for entry in entries {
            if !entry.path.split(|&b| b == b'/').all(is_name) {
                return Err(wrong(entry, "not a path within home"));
            }
            match entry.kind {
                Kind::Folder => plan.folders.push(entry),
                Kind::Symlink => match entry.target.as_deref() {
                    Some(target) if !target.is_empty() => plan.symlinks.push((entry, target)),
                    _ => return Err(wrong(entry, "a symlink without a target")),
                },
                Kind::File => {
                    let content = entry
                        .content
                        .ok_or_else(|| wrong(entry, "a file without a content"))?;
                    if let Some(link) = entry.link
                        && let Some(&known) = first.get(&link)
                    {
                        if known.content != entry.content {
                            return Err(wrong(entry, "a hard link of a file with another content"));
                        }
                        plan.links.push((entry, known));
                        continue;
                    }
                    if let Some(link) = entry.link {
                        first.insert(link, entry);
                    }
                    plan.files.push(File { entry, content });
                }
                Kind::Gone => return Err(wrong(entry, "gone, in the listing of a tree")),
            }
        }
        Ok(plan)
    }
}

fn wrong(entry: &Entry, reason: &'static str) -> Error {
    Error::Listing {
        path: entry.path.clone(),
        reason,
    }
}
