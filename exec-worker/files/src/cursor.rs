//! A place in a tree of folders, of any depth, by few descriptors and no long path.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fchmod, fstat};
use rustix::io::Errno;

use crate::beneath::{chmod_path, open, open_far, open_folder};
use crate::error::{At, Error};

/// So many of the folders above are kept open.
const WINDOW: usize = 16;

/// Read, write and search, for the owner.
const USABLE: u32 = 0o700;

/// A folder beneath a root, and the way to it.
///
/// A folder that its owner may not read, write or search is changed so that he may, until the cursor leaves it.
#[derive(Debug)]
pub(crate) struct Cursor {
    root: OwnedFd,
    path: Vec<u8>,
    /// The path's length at each depth, from 1.
    ends: Vec<usize>,
    /// Those at the end of the way; the last is where the cursor stands.
    open: VecDeque<OwnedFd>,
    /// Depths and modes of those that were changed.
    changed: Vec<(usize, u32)>,
}

impl Cursor {
    /// Stands at the root: a folder opened for reading.
    pub(crate) fn new(root: OwnedFd) -> Cursor {
        Cursor {
            root,
            path: Vec::new(),
            ends: Vec::new(),
            open: VecDeque::new(),
            changed: Vec::new(),
        }
    }

    /// A cursor at the same root.
    pub(crate) fn another(&self) -> Result<Cursor, Error> {
        let root = self.root.try_clone().at("open folder", b"")?;
        Ok(Cursor::new(root))
    }

    /// The folder where it stands, open for reading.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.open.back().unwrap_or(&self.root).as_fd()
    }

    /// From the root.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(crate) fn depth(&self) -> usize {
        self.ends.len()
    }

    /// Goes into a folder.
    pub(crate) fn enter(&mut self, name: &[u8]) -> Result<(), Error> {
        let opened = self.enter_quietly(name);
        opened.at("open folder", &crate::path::join(&self.path, name))
    }

    /// Goes into a folder, if there is one of that name.
    pub(crate) fn try_enter(&mut self, name: &[u8]) -> Result<bool, Error> {
        match self.enter_quietly(name) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(e) => Err(e).at("open folder", &crate::path::join(&self.path, name)),
        }
    }

    fn enter_quietly(&mut self, name: &[u8]) -> rustix::io::Result<()> {
        let fd = match open_folder(self.fd(), name) {
            Err(Errno::ACCESS) => {
                let closed = open(self.fd(), name, OFlags::PATH | OFlags::DIRECTORY)?;
                let mode = fstat(&closed)?.st_mode & 0o7777;
                chmod_path(&closed, mode | USABLE)?;
                self.changed.push((self.depth() + 1, mode));
                match open_folder(self.fd(), name) {
                    Ok(fd) => fd,
                    Err(e) => {
                        self.changed.pop();
                        return Err(e);
                    }
                }
            }
            opened => {
                let fd = opened?;
                let mode = fstat(&fd)?.st_mode & 0o7777;
                if mode & USABLE != USABLE {
                    fchmod(&fd, Mode::from_raw_mode(mode | USABLE))?;
                    self.changed.push((self.depth() + 1, mode));
                }
                fd
            }
        };
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.ends.push(self.path.len());
        self.open.push_back(fd);
        if self.open.len() > WINDOW {
            self.open.pop_front();
        }
        Ok(())
    }

    /// The mode that the folder shall have once it is left.
    pub(crate) fn set_mode(&mut self, mode: u32) -> Result<(), Error> {
        let depth = self.depth();
        self.changed.retain(|&(at, _)| at != depth);
        fchmod(self.fd(), Mode::from_raw_mode(mode | USABLE))
            .at("change the mode of", &self.path)?;
        if mode & USABLE != USABLE {
            self.changed.push((depth, mode));
        }
        Ok(())
    }

    /// Goes back to the folder above; at the root it stays.
    pub(crate) fn leave(&mut self) -> Result<(), Error> {
        let Some(_) = self.ends.last() else {
            return Ok(());
        };
        self.close_again()?;
        self.open.pop_back();
        self.ends.pop();
        self.path.truncate(self.ends.last().copied().unwrap_or(0));
        if self.open.is_empty() && !self.ends.is_empty() {
            self.reopen()?;
        }
        Ok(())
    }

    /// Gives the folder its own mode back.
    fn close_again(&mut self) -> Result<(), Error> {
        if let Some(&(depth, mode)) = self.changed.last()
            && depth == self.depth()
        {
            self.changed.pop();
            fchmod(self.fd(), Mode::from_raw_mode(mode)).at("change the mode of", &self.path)?;
        }
        Ok(())
    }

    /// Opens the last folders of the way anew: half a window, so that the next steps back find them open.
    fn reopen(&mut self) -> Result<(), Error> {
        let depth = self.ends.len();
        let first = depth.saturating_sub(WINDOW / 2).max(1);
        let mut from = self.ends[first - 1];
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = open_far(&self.root, &self.path[..from], flags).at("open folder", &self.path)?;
        self.open.push_back(fd);
        for &end in &self.ends[first..] {
            let fd =
                open_folder(self.fd(), &self.path[from + 1..end]).at("open folder", &self.path)?;
            self.open.push_back(fd);
            from = end;
        }
        Ok(())
    }

    /// Goes to the folder of that path, by way of what both paths share.
    pub(crate) fn go(&mut self, path: &[u8]) -> Result<(), Error> {
        while !self.is_within(path) {
            self.leave()?;
        }
        let rest = &path[self.path.len()..];
        for name in rest.split(|&b| b == b'/').filter(|n| !n.is_empty()) {
            self.enter(name)?;
        }
        Ok(())
    }

    /// Whether the way to `path` leads through here.
    pub(crate) fn is_within(&self, path: &[u8]) -> bool {
        self.path.is_empty()
            || (path.starts_with(&self.path)
                && matches!(path.get(self.path.len()), None | Some(b'/')))
    }
}

impl Drop for Cursor {
    /// What was changed on the way gets its mode back; where that fails, the folder is thrown away anyway.
    fn drop(&mut self) {
        while !self.changed.is_empty() && self.depth() > 0 {
            if self.leave().is_err() {
                break;
            }
        }
    }
}
