//! Protobuf messages of objects: made when first asked for, kept with the object as far as there is room.

use super::Stored;
use bytes::Bytes;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of messages that are kept in all; more are made anew each time.
const ROOM: usize = 32 << 20;
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// The message of one state of an object; its room is free again when nobody has that state any more.
#[derive(Debug, Default)]
pub(super) struct Message(OnceLock<Bytes>);

impl Stored {
    /// The object's message, which `make` makes unless it is kept.
    pub fn message<E>(&self, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Bytes, E> {
        if let Some(kept) = self.message.0.get() {
            return Ok(kept.clone());
        }
        let message = Bytes::from(make()?);
        let size = message.len();
        if KEPT.fetch_add(size, Ordering::Relaxed) + size > ROOM || self.message.0.set(message.clone()).is_err() {
            KEPT.fetch_sub(size, Ordering::Relaxed);
        }
        Ok(message)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Some(kept) = self.0.get() {
            KEPT.fetch_sub(kept.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Meta;
    use std::convert::Infallible;

    fn stored() -> Stored {
        Stored::of(Bytes::new(), Meta::default())
    }

    #[test]
    fn messages_are_made_once_while_there_is_room() {
        let one = stored();
        let made = |size: usize| move || Ok::<_, Infallible>(vec![1; size]);
        assert_eq!(one.message(made(10)).map(|m| m.len()), Ok(10));
        assert_eq!(one.clone().message(made(11)).map(|m| m.len()), Ok(10), "it is shared by all who have the object");
        let large = stored();
        assert_eq!(large.message(made(ROOM)).map(|m| m.len()), Ok(ROOM));
        assert_eq!(large.message(made(11)).map(|m| m.len()), Ok(11), "it was too large to be kept");
        drop(one);
        assert_eq!(large.message(made(1000)).map(|m| m.len()), Ok(11), "this one is kept");
    }
}
