//! Where a content store is, and where in it an object. What a row says of that is hostile: an address counts only where
//! this store could have given it out.

use std::path::PathBuf;
use std::str::FromStr;

use files::Hash;
use uuid::Uuid;

/// Leaves room for the key in what a row may hold.
const LONGEST: usize = 900;
/// Hexadecimal digits of a hash, and of what makes each key another.
const HASH_DIGITS: usize = 64;
const UNIQUE_DIGITS: usize = 32;

/// A content store's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreAddress {
    /// What all addresses of its objects begin with.
    base: String,
    place: Place,
}

/// What kind of store it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `file:///var/lib/pg_shell/content`
    Folder(PathBuf),
    /// `s3://bucket/prefix`
    Bucket {
        /// Its name.
        name: String,
        /// What keys in it begin with, without slashes around; may be empty.
        prefix: String,
    },
}

impl FromStr for StoreAddress {
    type Err = String;

    /// Only what has one spelling is taken: addresses are compared as texts.
    fn from_str(text: &str) -> Result<StoreAddress, String> {
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.len() > LONGEST {
            return Err(format!("it has more than {LONGEST} bytes"));
        }
        let place = if let Some(path) = text.strip_prefix("file:///") {
            plain(path)?;
            Place::Folder(PathBuf::from(format!("/{path}")))
        } else if let Some(rest) = text.strip_prefix("s3://") {
            plain(rest)?;
            let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            Place::Bucket {
                name: name.to_owned(),
                prefix: prefix.to_owned(),
            }
        } else {
            return Err("file:///FOLDER or s3://BUCKET/PREFIX is wanted".into());
        };
        Ok(StoreAddress {
            base: format!("{text}/"),
            place,
        })
    }
}

/// Names with slashes between.
fn plain(path: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = |name: &str| !["", ".", ".."].contains(&name) && name.chars().all(is_plain);
    if path.split('/').all(is_name) {
        Ok(())
    } else {
        Err("names in it have letters, digits, \"-\", \"_\" and \".\", and none is \"..\"".into())
    }
}

impl StoreAddress {
    /// What all addresses of its objects begin with.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What kind of store it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// An address for an object that holds a chunk. None has had it before: what is removed never stands where
    /// something was written anew.
    pub fn new_object(&self, chunk: Hash) -> String {
        let hash = chunk.to_string();
        let unique = Uuid::new_v4().simple();
        format!("{}{}/{hash}-{unique}", self.base, &hash[..2])
    }

    /// The key of an object of this store; `None` for any other address.
    pub fn key<'a>(&self, url: &'a str) -> Option<Key<'a>> {
        let key = url.strip_prefix(&self.base)?;
        let (folder, name) = key.split_once('/')?;
        let (hash, unique) = name.split_once('-')?;
        let hex = |text: &str, digits| {
            text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        (hex(hash, HASH_DIGITS) && hex(unique, UNIQUE_DIGITS) && folder == &hash[..2])
            .then_some(Key(key))
    }
}

/// An object's name within its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    /// As text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether it was given to this chunk.
    pub fn is_of(self, chunk: Hash) -> bool {
        self.0[3..].starts_with(&chunk.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(text: &str) -> StoreAddress {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_says_where_and_has_one_spelling() {
        let folder = Place::Folder("/var/lib/content".into());
        assert_eq!(store("file:///var/lib/content").place(), &folder);
        assert_eq!(
            store("file:///var/lib/content/"),
            store("file:///var/lib/content")
        );
        let bucket = |name: &str, prefix: &str| Place::Bucket {
            name: name.into(),
            prefix: prefix.into(),
        };
        assert_eq!(store("s3://b").place(), &bucket("b", ""));
        assert_eq!(store("s3://b/one/two").place(), &bucket("b", "one/two"));
        for wrong in [
            "",
            "/var/lib/content",
            "file://",
            "file:///",
            "file://host/folder",
            "file:///var/../etc",
            "file:///var//lib",
            "file:///a%2fb",
            "s3://",
            "s3:///prefix",
            "s3://key:secret@bucket",
            "s3://bucket?x",
            "S3://bucket",
            "https://bucket.example/",
            "http://169.254.169.254/latest",
            &format!("file:///{}", "x".repeat(1000)),
        ] {
            assert!(wrong.parse::<StoreAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_object_is_where_its_store_has_put_it_and_nowhere_else() {
        let store = store("s3://bucket/prefix");
        let chunk = Hash::of(b"x");
        let url = store.new_object(chunk);
        let key = store.key(&url).unwrap();
        assert!(key.is_of(chunk) && !key.is_of(Hash::of(b"y")));
        assert_ne!(store.new_object(chunk), url);
        let name = key.as_str();
        for wrong in [
            "file:///etc/passwd",
            "http://169.254.169.254/latest/meta-data",
            "s3://bucket/prefix/",
            "s3://bucket/prefix/../other",
            &format!("s3://bucket/{name}"),
            &format!("s3://other/prefix/{name}"),
            &format!("s3://bucket/prefix/../prefix/{name}"),
            &format!("s3://bucket/prefix//{name}"),
            &format!("s3://bucket/prefix/{name}/.."),
            &format!("s3://bucket/prefix/{}", name.to_uppercase()),
            &format!("s3://bucket/prefix/ff{}", &name[2..]),
            &format!("s3://bucket/prefix/{name}?x"),
            &format!("s3://bucket/prefix/{}", &name[..name.len() - 1]),
        ] {
            assert_eq!(store.key(wrong), None, "{wrong}");
        }
    }
}
