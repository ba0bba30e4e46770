//! What a topic may be called (log-and-fetch rule 11.1), and ids as text.

/// Longest name of a topic: with what Kafka adds to it, it must fit into a file name of 255 bytes.
const NAME_CHARS_MAX: usize = 249;

/// Why a name is refused: INVALID_TOPIC_EXCEPTION (17).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NameError {
    /// Nothing, or one of the names of directories.
    #[error("a topic cannot be called {0:?}; choose another name")]
    Reserved(String),
    /// Too long.
    #[error(
        "a topic name has at most {NAME_CHARS_MAX} characters, this one {0}: choose a shorter one"
    )]
    TooLong(usize),
    /// A character that is not allowed.
    #[error("topic name {0:?}: only letters, digits, '.', '_' and '-' are allowed")]
    Character(String),
    /// Dots and underscores are the same in the names of metrics.
    #[error(
        "topic {name} differs from {other} only in '.' and '_', which metrics do not tell apart; choose another name"
    )]
    Collides {
        /// The new name.
        name: String,
        /// The topic that is there.
        other: String,
    },
}

/// Checks a name by itself.
pub(crate) fn check(name: &str) -> Result<(), NameError> {
    if matches!(name, "" | "." | "..") {
        return Err(NameError::Reserved(name.to_owned()));
    }
    if name.len() > NAME_CHARS_MAX {
        return Err(NameError::TooLong(name.chars().count()));
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.chars().all(is_allowed) {
        return Err(NameError::Character(name.to_owned()));
    }
    Ok(())
}

/// The name by which topics must differ.
pub(super) fn canonical(name: &str) -> String {
    name.replace('.', "_")
}

/// Sixteen bytes as 22 characters of base64url without padding, the form of cluster ids.
pub(crate) fn base64url(bytes: [u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let number = u128::from_be_bytes(bytes);
    // 128 bits are 21 groups of six and a last one of two, which is filled up with zeros.
    let group = |index: u32| {
        let bits = if index == 21 {
            (number << 4) & 63
        } else {
            (number >> (122 - 6 * index)) & 63
        };
        usize::try_from(bits).expect("six bits fit")
    };
    (0..22)
        .map(|index| char::from(ALPHABET[group(index)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_that_of_the_rfc() {
        // RFC 4648 test data and Python's urlsafe_b64encode.
        assert_eq!(base64url(*b"foobarfoobarfoob"), "Zm9vYmFyZm9vYmFyZm9vYg");
        assert_eq!(base64url([0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64url([255; 16]), "_____________________w");
    }
}
