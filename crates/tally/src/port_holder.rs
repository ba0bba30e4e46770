//! Who listens on a port, read from /proc for an error message. Best effort: other users' processes cannot be read.

use std::fs;
use std::path::Path;

/// A process that listens on a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// The process that listens on a TCP port of this machine.
pub(crate) fn holder_of(port: u16) -> Option<Holder> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let links: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if links.is_empty() {
        return None;
    }
    let process = fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        has_open(&entry.path(), &links).then_some((pid, entry.path()))
    });
    let (pid, path) = process?;
    let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
    Some(Holder {
        pid,
        name: name.trim().to_owned(),
    })
}

/// Inodes of the sockets that listen on `port`, from a table of /proc/net: the second column is the local address in
/// hexadecimal, the fourth the state (0A is LISTEN), the tenth the inode.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let is_listening = columns.get(1)?.ends_with(&suffix) && *columns.get(3)? == "0A";
            is_listening.then(|| columns.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

fn has_open(process: &Path, links: &[String]) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    files.flatten().any(|file| {
        fs::read_link(file.path()).is_ok_and(|target| {
            target
                .to_str()
                .is_some_and(|target| links.iter().any(|link| link == target))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_our_own_port_is_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(
            holder_of(port).map(|holder| holder.pid),
            Some(std::process::id())
        );
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7001 1\n\
             1: 0100007F:2384 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 7002 1\n\
             2: 0100007F:2385 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7003 1\n";
        assert_eq!(listening_inodes(table, 9092), ["7001"]);
        assert_eq!(listening_inodes("", 9092), [""; 0]);
    }
}
