//! Clients that speak something else than Kafka's protocol: TLS on a listener without it, HTTP on the Kafka port.
//!
//! Each is closed like any other bad frame. What people are told is what it was, and once for each address: a probe that
//! comes every few seconds says nothing new (user-experience.md section 11). Which addresses were told of is bounded.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// Addresses that are kept in mind; those of further ones are not told of.
const ADDRESSES_MAX: usize = 1000;

/// What a connection speaks instead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Foreign {
    Tls,
    Http,
}

impl Foreign {
    /// What the first bytes of a frame that can't be one are.
    pub(crate) fn of(bytes: &[u8]) -> Option<Foreign> {
        const METHODS: [&[u8]; 9] = [
            b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN", b"PRI ",
        ];
        match bytes {
            // A record of a handshake, of any version of the protocol.
            [22, 3, 0..=4, ..] => Some(Foreign::Tls),
            _ if METHODS.iter().any(|method| bytes.starts_with(method)) => Some(Foreign::Http),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Foreign::Tls => "TLS",
            Foreign::Http => "HTTP",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Foreign::Tls => "set security.protocol=PLAINTEXT there",
            Foreign::Http => {
                "this port is for Kafka clients, tally.http.listeners is for health checks"
            }
        }
    }
}

/// Who was told of so far.
#[derive(Debug, Default)]
pub(crate) struct Foreigners(Mutex<BTreeSet<(IpAddr, Foreign)>>);

impl Foreigners {
    /// Says it, the first time.
    pub(crate) fn tell(&self, foreign: Foreign, peer: SocketAddr, port: u16) {
        let address = peer.ip().to_canonical();
        if self.is_first(foreign, address) {
            let (name, remedy) = (foreign.name(), foreign.remedy());
            tracing::warn!(
                "W1101 listener.foreign: {address} speaks {name} to PLAINTEXT listener {port}; {remedy}"
            );
        }
    }

    fn is_first(&self, foreign: Foreign, address: IpAddr) -> bool {
        // Nothing that can panic happens under the lock.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < ADDRESSES_MAX && told.insert((address, foreign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn first_bytes_tell_what_it_is() {
        assert_eq!(Foreign::of(&[22, 3, 1, 2, 0, 1]), Some(Foreign::Tls));
        assert_eq!(Foreign::of(b"GET / HTTP/1.1\r\n"), Some(Foreign::Http));
        assert_eq!(Foreign::of(b"PRI * HTTP/2.0"), Some(Foreign::Http));
        for bytes in [&[][..], &[22], &[0, 0, 0, 20], b"GETS", &[127; 8]] {
            assert_eq!(Foreign::of(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn each_address_is_told_of_once_and_so_many_of_them() {
        let told = Foreigners::default();
        let address = |number: u32| IpAddr::from(Ipv4Addr::from(number));
        assert!(told.is_first(Foreign::Tls, address(1)));
        assert!(!told.is_first(Foreign::Tls, address(1)));
        assert!(told.is_first(Foreign::Http, address(1)));
        let more = (2..5000).filter(|number| told.is_first(Foreign::Tls, address(*number)));
        assert_eq!(more.count(), ADDRESSES_MAX - 2);
    }
}
