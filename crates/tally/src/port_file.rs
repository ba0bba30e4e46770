//! The file that says where the broker listens, once it does.
//!
//! Invariant: whoever sees the file sees the whole address of a broker that is ready. It is removed before the start, so
//! that an earlier run's file is never taken for this one's, and appears by rename.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Removes what an earlier run left.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the address of the listener.
pub(crate) fn write(path: &Path, address: SocketAddr) -> io::Result<()> {
    let part = part_of(path);
    std::fs::write(&part, format!("{address}\n"))?;
    std::fs::rename(&part, path)
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        remove(&path).unwrap();
        for port in [1, 2] {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            write(&path, address).unwrap();
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                format!("{address}\n")
            );
        }
        remove(&path).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
