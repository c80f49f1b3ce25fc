//! Writing a new file from its beginning to its end, with holes for its zeros.

use std::os::fd::OwnedFd;

use rustix::fs::ftruncate;
use rustix::io::{Errno, pwrite};

/// The unit of a hole.
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct SparseFile {
    fd: OwnedFd,
    position: u64,
    /// Where the last byte that was written ends.
    written: u64,
    allocated: u64,
}

impl SparseFile {
    /// An empty file.
    pub(crate) fn new(fd: OwnedFd) -> SparseFile {
        SparseFile {
            fd,
            position: 0,
            written: 0,
            allocated: 0,
        }
    }

    /// Goes over zeros.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.position += bytes;
    }

    /// Writes these bytes next.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let zeros = self.run(rest, true);
            self.skip(zeros as u64);
            rest = &rest[zeros..];
            let data = self.run(rest, false);
            self.write_all(&rest[..data])?;
            rest = &rest[data..];
        }
        Ok(())
    }

    /// How many of the first bytes are in blocks that are zero, or not.
    fn run(&self, bytes: &[u8], zero: bool) -> usize {
        let mut length = 0;
        while length < bytes.len() {
            let within = ((self.position + length as u64) % BLOCK as u64) as usize;
            let piece = (BLOCK - within).min(bytes.len() - length);
            if (bytes[length..length + piece] == ZEROS[..piece]) != zero {
                break;
            }
            length += piece;
        }
        length
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.allocated += bytes.len() as u64;
        while !bytes.is_empty() {
            let count = match pwrite(&self.fd, bytes, self.position) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e),
            };
            self.position += count as u64;
            bytes = &bytes[count..];
        }
        self.written = self.position;
        Ok(())
    }

    /// Ends the file here: its descriptor, and how many bytes it takes on the disk, about.
    pub(crate) fn finish(self) -> Result<(OwnedFd, u64), Errno> {
        if self.written < self.position {
            ftruncate(&self.fd, self.position)?;
        }
        Ok((self.fd, self.allocated.next_multiple_of(BLOCK as u64)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_become_holes_and_all_bytes_are_kept() {
        let mut expected = vec![0_u8; 3_000_000];
        expected[5..9].copy_from_slice(b"here");
        expected[2_000_000..2_000_010].fill(7);
        let mut file = tempfile::tempfile().unwrap();
        let mut sparse = SparseFile::new(OwnedFd::from(file.try_clone().unwrap()));
        for piece in expected.chunks(77_777) {
            sparse.write(piece).unwrap();
        }
        let (_, allocated) = sparse.finish().unwrap();
        assert!(allocated <= 8192 + 4096, "{allocated}");
        let mut found = Vec::new();
        File::read_to_end(&mut file, &mut found).unwrap();
        assert!(found == expected);
        assert!(file.metadata().unwrap().blocks() * 512 <= 65_536);
    }
}
