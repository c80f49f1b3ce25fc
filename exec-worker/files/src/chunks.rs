//! Cutting contents into chunks where their bytes say so, so that a small change of a large file changes few.

use std::sync::OnceLock;

use fastcdc::v2020::FastCDC;
use sha2::{Digest, Sha256};

use crate::entry::{Chunk, Content, Hash};

/// No shorter chunk is cut, but for a content's last: a content of at most so many bytes is one chunk.
pub(crate) const CHUNK_MIN: usize = 32 * 1024;
const CHUNK_AVERAGE: usize = 128 * 1024;
/// The most bytes of a chunk.
pub const CHUNK_MAX: usize = 512 * 1024;

pub(crate) static ZEROS: [u8; CHUNK_MAX] = [0; CHUNK_MAX];

/// How long the first chunk of these bytes is. If they are not a content's last, they are at least
/// [`CHUNK_MAX`].
pub(crate) fn cut(bytes: &[u8]) -> usize {
    if bytes.len() <= CHUNK_MIN {
        return bytes.len();
    }
    FastCDC::new(bytes, CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX)
        .cut(0, bytes.len())
        .1
}

/// The chunk that is cut from zeros without an end.
pub(crate) fn zeros() -> Chunk {
    static CHUNK: OnceLock<Chunk> = OnceLock::new();
    *CHUNK.get_or_init(|| {
        let length = cut(&ZEROS);
        Chunk {
            hash: Hash::of(&ZEROS[..length]),
            size: length as u32,
        }
    })
}

/// Cuts bytes that are in memory; gives each chunk to `each`.
pub fn chunks_of(bytes: &[u8], each: &mut dyn FnMut(Hash, &[u8])) -> Content {
    let mut chunks = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(cut(rest));
        let hash = Hash::of(chunk);
        each(hash, chunk);
        chunks.push(Chunk {
            hash,
            size: chunk.len() as u32,
        });
        rest = after;
    }
    Content {
        hash: whole(bytes, &chunks),
        size: bytes.len() as u64,
        chunks,
    }
}

/// The hash of all bytes, which is known where there is one chunk.
fn whole(bytes: &[u8], chunks: &[Chunk]) -> Hash {
    match chunks {
        [only] => only.hash,
        _ => Hash(Sha256::digest(bytes).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a pattern, the same for the same seed.
    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn chunks_are_a_content_and_within_their_sizes() {
        let bytes = noise(5_000_000, 1);
        let mut joined = Vec::new();
        let content = chunks_of(&bytes, &mut |hash, chunk| {
            assert_eq!(hash, Hash::of(chunk));
            joined.extend_from_slice(chunk);
        });
        assert!(joined == bytes);
        assert_eq!(content.hash, Hash::of(&bytes));
        let (last, others) = content.chunks.split_last().unwrap();
        assert!(last.size as usize <= CHUNK_MAX);
        for chunk in others {
            assert!((CHUNK_MIN..=CHUNK_MAX).contains(&(chunk.size as usize)));
        }
        let average = bytes.len() / content.chunks.len();
        assert!((64 * 1024..256 * 1024).contains(&average), "{average}");
    }

    #[test]
    fn a_byte_put_in_changes_few_chunks() {
        let bytes = noise(5_000_000, 2);
        let before = chunks_of(&bytes, &mut |_, _| {});
        let mut longer = bytes;
        longer.insert(2_500_000, b'x');
        let after = chunks_of(&longer, &mut |_, _| {});
        let new = after.chunks.iter().filter(|c| !before.chunks.contains(c));
        assert!(new.count() <= 3);
    }

    #[test]
    fn small_contents_are_one_chunk_and_an_empty_one_none() {
        assert_eq!(chunks_of(b"", &mut |_, _| {}).chunks, []);
        let small = chunks_of(&[7; CHUNK_MIN], &mut |_, _| {});
        assert_eq!(small.chunks.len(), 1);
        assert_eq!(small.hash, small.chunks[0].hash);
    }

    #[test]
    fn zeros_are_cut_alike_however_many_follow() {
        let zeros = zeros();
        let content = chunks_of(&vec![0; 3 * CHUNK_MAX + 5], &mut |_, _| {});
        assert_eq!(content.chunks[0], zeros);
        assert_eq!(content.chunks[1], zeros);
    }
}
