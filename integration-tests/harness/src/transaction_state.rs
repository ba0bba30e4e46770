//! The one question that librdkafka does not ask: in which state a transaction is (DescribeTransactions version 0).

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DESCRIBE_TRANSACTIONS: i16 = 65;
const CORRELATION_ID: i32 = 7;

/// The state, by its name.
pub(crate) async fn state_of(broker: SocketAddr, transactional_id: &str) -> Result<String> {
    let mut stream = TcpStream::connect(broker).await?;
    stream.write_all(&request(transactional_id)?).await?;
    let length = usize::try_from(stream.read_i32().await?)?;
    ensure!(length < 1 << 20, "an answer of {length} bytes");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    state_in(&answer).context("DescribeTransactions: not understood")
}

/// Header version 2, then a compact array of one compact string, each followed by no tagged fields.
fn request(transactional_id: &str) -> Result<Vec<u8>> {
    let length = u8::try_from(transactional_id.len() + 1)?;
    ensure!(length < 128, "the id is too long for one byte of length");
    let mut frame = vec![0; 4];
    frame.extend(DESCRIBE_TRANSACTIONS.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(CORRELATION_ID.to_be_bytes());
    frame.extend([255, 255, 0, 2, length]);
    frame.extend(transactional_id.as_bytes());
    frame.push(0);
    let size = i32::try_from(frame.len() - 4)?;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    Ok(frame)
}

/// Correlation id, no tagged fields, throttle time; an array of one: error code, id, state, and more.
fn state_in(answer: &[u8]) -> Option<String> {
    let rest = answer.strip_prefix(&CORRELATION_ID.to_be_bytes())?;
    let rest = rest.get(1 + 4..)?;
    let (&count, rest) = rest.split_first()?;
    let (error, rest) = rest.split_at_checked(2)?;
    if count != 2 || error != [0, 0] {
        return None;
    }
    let (_id, rest) = compact_string(rest)?;
    let (state, _) = compact_string(rest)?;
    String::from_utf8(state.to_vec()).ok()
}

fn compact_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length).checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_from_an_answer() {
        let mut answer = vec![0, 0, 0, 7, 0, 0, 0, 0, 0, 2, 0, 0, 2, b'x', 6];
        answer.extend(b"Empty");
        assert_eq!(state_in(&answer).as_deref(), Some("Empty"));
        answer[11] = 51;
        assert_eq!(state_in(&answer), None);
        assert_eq!(state_in(&[]), None);
    }
}
