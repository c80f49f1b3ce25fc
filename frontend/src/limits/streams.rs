//! How many streams are open: of a user, from an address, and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderValue, StatusCode, header};

use super::too_many;
use crate::error::Refusal;

/// Counts streams, and refuses those that are too many.
#[derive(Debug)]
pub struct Streams {
    of_user: u32,
    from_address: u32,
    in_all: u32,
    open: Arc<Mutex<HashMap<Holder, u32>>>,
}

/// Whose streams are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    User(String),
    Address(String),
    All,
}

/// A stream that counts until it is dropped.
#[derive(Debug)]
pub struct Counted {
    holders: [Holder; 3],
    open: Arc<Mutex<HashMap<Holder, u32>>>,
}

impl Streams {
    /// So many at a time of one user, from one address, and in all.
    pub fn new(of_user: u32, from_address: u32, in_all: u32) -> Streams {
        Streams {
            of_user,
            from_address,
            in_all,
            open: Arc::default(),
        }
    }

    /// Counts one more.
    ///
    /// # Errors
    /// 429 where the user or the address has too many, 503 where there are too many in all.
    pub fn enter(&self, user: &str, address: &str) -> Result<Counted, Refusal> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = [
            Holder::User(user.into()),
            Holder::Address(address.into()),
            Holder::All,
        ];
        for (holder, most) in holders
            .iter()
            .zip([self.of_user, self.from_address, self.in_all])
        {
            let has = open.get(holder).copied().unwrap_or(0);
            if has >= most {
                return Err(holder.refuse(has, most));
            }
        }
        for holder in &holders {
            *open.entry(holder.clone()).or_default() += 1;
        }
        Ok(Counted {
            holders,
            open: self.open.clone(),
        })
    }
}

impl Holder {
    fn refuse(&self, has: u32, most: u32) -> Refusal {
        let fewer = "Close some, or follow whole sessions instead of single commands.";
        match self {
            Holder::User(_) => too_many(
                &format!("There are {has} streams open, and a user may have {most}."),
                fewer,
            ),
            Holder::Address(_) => too_many(
                &format!("There are {has} streams open from this address, which may have {most}."),
                fewer,
            ),
            Holder::All => {
                let sentence = format!("There are {has} streams open, and this server has {most}.");
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "PSW503", sentence)
                    .hint("Try again later, or have the server run with more --max-connections.")
                    .header(header::RETRY_AFTER, HeaderValue::from_static("5"))
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for holder in &self.holders {
            if let Some(open) = all.get_mut(holder) {
                *open -= 1;
                if *open == 0 {
                    all.remove(holder);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_counts_while_it_is_open() {
        let streams = Streams::new(1, 2, 3);
        let status = |user, address| streams.enter(user, address).unwrap_err().status.as_u16();
        let first = streams.enter("a", "x").unwrap();
        assert_eq!(status("a", "y"), 429, "the user has one");
        let _second = streams.enter("b", "x").unwrap();
        assert_eq!(status("c", "x"), 429, "the address has two");
        let _third = streams.enter("c", "y").unwrap();
        assert_eq!(status("d", "y"), 503, "there are three");
        drop(first);
        assert!(streams.enter("d", "x").is_ok());
    }
}
