//! How long reading a change and restoring a tree take, on this machine: `cargo run --release --example measure`.
//! Upper folders are in `/dev/shm`, the cache in the temporary folder (`TMPDIR`).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use files::{Cache, Change, Chunk, ChunkSource, Entry, Hash, Limits, Stack, read_upper, restore};

type Failure = Box<dyn std::error::Error>;

/// A tree of 10,000 files in 100 folders.
const FOLDERS: usize = 100;
const FILES: usize = 100;

#[derive(Default)]
struct Store {
    contents: HashMap<Hash, Vec<Chunk>>,
    chunks: HashMap<Hash, Vec<u8>>,
}

/// What a restoring asks: the bytes are not copied.
struct Borrowed<'a>(&'a Store);

impl<'a> ChunkSource for Borrowed<'a> {
    type Bytes = &'a [u8];

    fn contents(&mut self, contents: &[Hash]) -> std::io::Result<Vec<Option<Vec<Chunk>>>> {
        Ok(contents
            .iter()
            .map(|c| self.0.contents.get(c).cloned())
            .collect())
    }

    fn chunks(&mut self, chunks: &[Hash]) -> std::io::Result<Vec<Option<&'a [u8]>>> {
        Ok(chunks
            .iter()
            .map(|c| self.0.chunks.get(c).map(Vec::as_slice))
            .collect())
    }
}

/// Bytes that are never the same twice.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            part.copy_from_slice(&self.0.to_le_bytes()[..part.len()]);
        }
    }
}

fn make_tree(root: &Path, bytes: usize, noise: &mut Noise) -> Result<(), Failure> {
    let mut content = vec![0; bytes];
    for folder in 0..FOLDERS {
        let folder = root.join(format!("folder{folder}"));
        fs::create_dir_all(&folder)?;
        for file in 0..FILES {
            noise.fill(&mut content);
            fs::write(folder.join(format!("file{file}")), &content)?;
        }
    }
    Ok(())
}

fn read(
    cache: &Cache,
    stack: &Stack,
    tree: i64,
    upper: &Path,
    store: &mut Store,
) -> Result<(Change, Duration), Failure> {
    let upper = OwnedFd::from(File::open(upper)?);
    let mut chunks = Vec::new();
    let begin = Instant::now();
    let mut layer = cache.new_layer()?;
    let mut sink = |hash, bytes: &[u8]| {
        chunks.push((hash, bytes.to_vec()));
        Ok(())
    };
    let change = read_upper(
        upper,
        &mut layer,
        &stack.before()?,
        &Limits::default(),
        &mut sink,
    )?;
    cache.extend(stack, tree, layer)?;
    let took = begin.elapsed();
    store.chunks.extend(chunks);
    for content in &change.contents {
        store.contents.insert(content.hash, content.chunks.clone());
    }
    Ok((change, took))
}

/// What this process used of the processors, its children's share (in steps of 10 ms) apart.
fn processor() -> Result<(Duration, Duration), Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<u64> = (stat.rsplit(") ").next().unwrap_or_default())
        .split(' ')
        .map(|f| f.parse().unwrap_or(0))
        .collect();
    let sum = |at: usize| Duration::from_millis(10 * (fields[at] + fields[at + 1]));
    Ok((sum(11), sum(13)))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() -> Result<(), Failure> {
    let place = tempfile::tempdir()?;
    let cache = Cache::open(&place.path().join("cache"), 64 << 30)?;
    let mut noise = Noise(1);
    let mut store = Store::default();
    for (bytes, what) in [
        (4_096, "10,000 files of 4 KB"),
        (107_374, "10,000 files, 1 GB"),
    ] {
        let upper = tempfile::tempdir_in("/dev/shm")?;
        make_tree(upper.path(), bytes, &mut noise)?;
        let used = processor()?.0;
        let (change, took) = read(&cache, &cache.empty(), 1, upper.path(), &mut store)?;
        let used = processor()?.0 - used;
        println!("reading {what}: {took:.1?} ({used:.1?} of a processor)");

        let mut times = Vec::new();
        let used = processor()?;
        for number in 0..3_i64 {
            Command::new("sync").status()?;
            let begin = Instant::now();
            let mut layer = cache.new_layer()?;
            restore(&mut layer, &change.entries, &mut Borrowed(&store))?;
            // Kept until the end: removing it would be measured with the copying.
            cache.extend(&cache.empty(), -1 - number - bytes as i64, layer)?;
            let restored = begin.elapsed();
            Command::new("sync").status()?;
            let copy = place.path().join(format!("copy{bytes}-{number}"));
            let begin = Instant::now();
            Command::new("cp")
                .arg("-a")
                .arg(upper.path())
                .arg(&copy)
                .status()?;
            times.push((restored, begin.elapsed()));
        }
        let restored = median(times.iter().map(|t| t.0).collect());
        let copied = median(times.iter().map(|t| t.1).collect());
        let factor = restored.as_secs_f64() / copied.as_secs_f64();
        println!("restoring them: {restored:.1?}, cp -a: {copied:.1?}, {factor:.2} times as long");
        let now = processor()?;
        let (restored, copied) = ((now.0 - used.0) / 3, (now.1 - used.1) / 3);
        println!("  of a processor: {restored:.1?} and {copied:.1?}");
        drop(upper);
        small_change(&cache, &mut store, &mut noise)?;
    }
    large(&cache, &mut store, &mut noise)
}

/// One file of 4 KB, changed again and again, in the tree of 10,000.
fn small_change(cache: &Cache, store: &mut Store, noise: &mut Noise) -> Result<(), Failure> {
    let mut stack = cache.get(1).ok_or("not in the cache")?;
    let mut times = Vec::new();
    for tree in 2..402 {
        let upper = tempfile::tempdir_in("/dev/shm")?;
        let folder = upper.path().join(format!("folder{}", tree % 50));
        fs::create_dir(&folder)?;
        let mut content = [0; 4096];
        noise.fill(&mut content);
        fs::write(folder.join("file7"), content)?;
        let (_, took) = read(cache, &stack, tree, upper.path(), store)?;
        times.push(took);
        stack = cache.get(tree).ok_or("not in the cache")?;
    }
    let most = times.iter().max().copied().unwrap_or_default();
    let sum: Duration = times.iter().sum();
    let mean = sum / times.len() as u32;
    println!(
        "one file of 4 KB: median {:.1?}, mean with merges {mean:.1?}, most {most:.1?}",
        median(times)
    );
    Ok(())
}

fn large(cache: &Cache, store: &mut Store, noise: &mut Noise) -> Result<(), Failure> {
    let upper = tempfile::tempdir_in("/dev/shm")?;
    let mut file = File::create(upper.path().join("large"))?;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..1024 {
        noise.fill(&mut piece);
        file.write_all(&piece)?;
    }
    let used = processor()?.0;
    let (_, took) = read(cache, &cache.empty(), 5, upper.path(), store)?;
    let used = processor()?.0 - used;
    println!("reading a file of 1 GiB: {took:.1?} ({used:.1?} of a processor)");
    let upper = tempfile::tempdir_in("/dev/shm")?;
    let file = File::create(upper.path().join("sparse"))?;
    file.set_len(1 << 30)?;
    let before = cache.bytes();
    let used = processor()?.0;
    let (change, took) = read(cache, &cache.empty(), 6, upper.path(), store)?;
    let bytes = cache.bytes() - before;
    let used = processor()?.0 - used;
    println!(
        "reading a hole of 1 GiB: {took:.1?} ({used:.1?} of a processor), {bytes} bytes of cache"
    );
    let entries: Vec<Entry> = change.entries;
    let begin = Instant::now();
    let mut layer = cache.new_layer()?;
    restore(&mut layer, &entries, &mut Borrowed(store))?;
    println!("restoring it: {:.1?}", begin.elapsed());
    Ok(())
}
