//! The memory that large requests take together (LR-158, `queued.max.request.bytes`).
//!
//! Owns the count of what may still be taken. Invariants: a request takes all that it announces before more than a small
//! buffer of it is read, and gives it back when it is answered or its connection ends, so nobody who has his share waits
//! for another; who comes first is served first. A request that is larger than the limit waits for all of it.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted: whole units, so that the largest memory fits into the count.
const UNIT_BYTES: usize = 1024;
/// What a machine is taken to have when it does not say.
const MACHINE_BYTES: usize = 2 << 30;
/// The share of the machine's memory that requests may have when no limit is set.
const SHARE: usize = 4;

/// What all connections may hold.
#[derive(Debug)]
pub(crate) struct RequestMemory {
    units: u32,
    free: Arc<Semaphore>,
}

/// What one request holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "kept for its drop")] OwnedSemaphorePermit);

impl RequestMemory {
    /// With `queued.max.request.bytes`; below 1 a share of what the machine has.
    pub(crate) fn new(queued_max_request_bytes: i64) -> RequestMemory {
        let bytes = match usize::try_from(queued_max_request_bytes) {
            Ok(bytes) if bytes > 0 => bytes,
            _ => machine_bytes() / SHARE,
        };
        let units = units(bytes);
        RequestMemory {
            units,
            free: Arc::new(Semaphore::new(units as usize)),
        }
    }

    /// Takes what a request of `bytes` needs, as soon as it is there.
    pub(crate) async fn take(&self, bytes: usize) -> Held {
        let units = units(bytes).min(self.units);
        let permit = Arc::clone(&self.free).acquire_many_owned(units).await;
        Held(permit.expect("nobody closes it"))
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// The memory of the machine, or of the control group that the broker is in.
fn machine_bytes() -> usize {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| number(&text));
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:"))?;
            number(line.trim_end().strip_suffix("kB")?)?.checked_mul(1024)
        });
    match (group, machine) {
        (Some(group), Some(machine)) => group.min(machine),
        (known, None) | (None, known) => known.unwrap_or(MACHINE_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;
    use tokio::task::yield_now;

    #[test]
    fn lr158_who_comes_first_is_served_first_and_the_largest_is_served_too() {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = Arc::new(RequestMemory::new(100 * 1024));
            let small = memory.take(60 * 1024).await;
            let (of_large, of_next) = (Arc::clone(&memory), Arc::clone(&memory));
            let large = tokio::spawn(async move { of_large.take(1 << 30).await });
            yield_now().await;
            let next = tokio::spawn(async move { of_next.take(1).await });
            yield_now().await;
            assert!(!large.is_finished() && !next.is_finished());
            drop(small);
            let large = large.await.unwrap();
            assert!(!next.is_finished());
            drop(large);
            drop(next.await.unwrap());
            assert_eq!(memory.free.available_permits(), 100);
        });
    }

    #[test]
    fn a_limit_of_none_is_a_share_of_the_machine() {
        assert_eq!(RequestMemory::new(-1).units, units(machine_bytes() / SHARE));
        assert!(RequestMemory::new(-1).units > 64 << 10);
    }
}
