//! The bound of what requests hold in memory together: bodies count from the arrival of their bytes until the answer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that bodies may be, together. Cheap to clone.
#[derive(Clone)]
pub struct Bodies {
    free: Arc<Semaphore>,
}

/// The bytes of one body, given back when dropped.
#[derive(Default)]
pub struct Held {
    permit: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// At most `bytes`, and no less than one body of the largest size has to fit.
    pub fn new(bytes: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }
    }

    /// Counts more bytes of a body; `false`: there is no room for them. Never waits.
    #[must_use]
    pub fn take(&self, held: &mut Held, bytes: usize) -> bool {
        let Ok(bytes) = u32::try_from(bytes) else { return false };
        let Ok(more) = Arc::clone(&self.free).try_acquire_many_owned(bytes) else { return false };
        match &mut held.permit {
            Some(permit) => permit.merge(more),
            None => held.permit = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_the_room_and_give_it_back() {
        let bodies = Bodies::new(100);
        let (mut first, mut second) = (Held::default(), Held::default());
        assert!(bodies.take(&mut first, 50) && bodies.take(&mut first, 10));
        assert!(!bodies.take(&mut second, 41), "60 are held");
        assert!(bodies.take(&mut second, 40));
        drop(first);
        assert!(bodies.take(&mut second, 60), "all but the second's 40 were given back");
        assert!(!bodies.take(&mut second, 1));
    }
}
