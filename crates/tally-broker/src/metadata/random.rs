//! Random bytes for ids, handed in so that tests repeat.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Fills a buffer with bytes that nobody can foresee.
pub(crate) type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// The system's random source.
#[must_use]
pub(crate) fn system_random() -> Random {
    if let Some(random) = crate::simulation::random() {
        return random;
    }
    Box::new(|bytes| {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(filled) => rest = &mut rest[filled..],
                Err(rustix::io::Errno::INTR) => {}
                // No such call on an old kernel or in a strict sandbox. Ids need to be unique, not secret: the keys of
                // std's hash maps are random too.
                Err(_) => {
                    for chunk in rest.chunks_mut(8) {
                        let word = RandomState::new().build_hasher().finish().to_ne_bytes();
                        chunk.copy_from_slice(&word[..chunk.len()]);
                    }
                    return;
                }
            }
        }
    })
}

/// A random UUID (version 4), as the ids of topics and clusters are.
pub(super) fn uuid(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    random(&mut bytes);
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_source_gives_version_4_uuids_that_differ() {
        let mut random = system_random();
        let (first, second) = (uuid(&mut random), uuid(&mut random));
        assert_ne!(first, second);
        assert_eq!(uuid::Uuid::from_bytes(first).get_version_num(), 4);
    }
}
