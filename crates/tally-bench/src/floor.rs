//! The floor: the least that any broker must do for the load, to compare real ones with. No broker: it keeps no state but
//! byte positions, checks nothing but checksums, and answers only the requests of the load.
//!
//! A thread for each connection reads into one reused buffer of 256 KiB, takes requests apart by hand, checks the
//! checksum of each batch, patches offsets where the bytes lie, appends with one `pwrite` per batch, and answers all requests of one
//! read with one small write. A transaction costs it the appends that it costs a broker which writes each record alone:
//! partitions, data, offsets, decision, markers, end. Fetches are a small header and `sendfile`.

use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tally_protocol::batch::CRC_START;

const BUFFER_BYTES: usize = 256 * 1024;
/// Answers that are smaller are copied into one write instead of being sent piece by piece.
const COPIED_BYTES: u64 = 16 * 1024;
/// Bytes of a coordinator's record, as large as those of a real one with three partitions.
const STATE_BYTES: usize = 220;
/// Bytes of an end marker.
const MARKER_BYTES: usize = 78;
/// Bytes of a committed offset in a transaction.
const OFFSET_BYTES: usize = 170;

/// Runs until standard input ends.
pub(crate) fn serve(data: &Path, port_file: &Path) -> Result<()> {
    let address = listen(data)?;
    let part = port_file.with_extension("part");
    fs::write(&part, address.to_string())?;
    fs::rename(part, port_file)?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// Serves on a free port for as long as the process lives.
pub(crate) fn listen(data: &Path) -> Result<SocketAddr> {
    fs::create_dir_all(data)?;
    let store = Arc::new(Store {
        data: data.to_owned(),
        partitions: RwLock::new(HashMap::new()),
        states: Partition::create(&data.join("states"))?,
        offsets: Partition::create(&data.join("offsets"))?,
    });
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                if let Err(error) = Connection::new(&store, stream).run() {
                    eprintln!("floor: {error:#}");
                }
            });
        }
    });
    Ok(address)
}

struct Store {
    data: PathBuf,
    partitions: RwLock<HashMap<(String, i32), Arc<Partition>>>,
    states: Arc<Partition>,
    offsets: Arc<Partition>,
}

impl Store {
    /// The partition; it comes into being with the first batch.
    fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>> {
        let key = (topic.to_owned(), index);
        let known = self
            .partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(partition) = known.get(&key) {
            return Ok(Arc::clone(partition));
        }
        drop(known);
        let mut all = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(partition) = all.get(&key) {
            return Ok(Arc::clone(partition));
        }
        let partition = Partition::create(&self.data.join(format!("{topic}-{index}")))?;
        all.insert(key, Arc::clone(&partition));
        Ok(partition)
    }

    /// Forgets all topics.
    fn clear(&self) -> Result<()> {
        let mut all = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for ((topic, index), _) in all.drain() {
            fs::remove_file(self.data.join(format!("{topic}-{index}")))?;
        }
        Ok(())
    }
}

struct Partition {
    file: File,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    end: u64,
    next_offset: i64,
    /// Base offset and position of each batch.
    batches: Vec<(i64, u64)>,
}

impl Partition {
    fn create(path: &Path) -> Result<Arc<Partition>> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Arc::new(Partition {
            file,
            log: Mutex::default(),
        }))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stamps the offset into a batch and appends it.
    fn append(&self, batch: &mut [u8], records: i64) -> Result<i64> {
        let mut log = self.log();
        let offset = log.next_offset;
        let position = log.end;
        batch[..8].copy_from_slice(&offset.to_be_bytes());
        self.file.write_all_at(batch, position)?;
        log.batches.push((offset, position));
        log.next_offset += records;
        log.end += batch.len() as u64;
        Ok(offset)
    }

    /// Appends a batch that the broker itself would write.
    fn append_own<const N: usize>(&self, producer: (i64, i16)) -> Result<()> {
        let mut batch = [0; N];
        let length = i32::try_from(N - 12)?;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[43..51].copy_from_slice(&producer.0.to_be_bytes());
        batch[51..53].copy_from_slice(&producer.1.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_START..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        self.append(&mut batch, 1).map(|_| ())
    }
}

struct Connection<'a> {
    store: &'a Store,
    stream: TcpStream,
    out: Vec<u8>,
    /// The partitions of the transaction that is open here.
    transaction: Vec<Arc<Partition>>,
    has_offsets: bool,
    /// The partition of the last batch, with its name.
    partitions: HashMap<String, Vec<Option<Arc<Partition>>>>,
}

/// What the beginning of every request says.
struct Head {
    key: i16,
    version: i16,
    correlation_id: i32,
}

impl<'a> Connection<'a> {
    fn new(store: &'a Store, stream: TcpStream) -> Connection<'a> {
        Connection {
            store,
            stream,
            out: Vec::new(),
            transaction: Vec::new(),
            has_offsets: false,
            partitions: HashMap::new(),
        }
    }

    fn run(mut self) -> Result<()> {
        self.stream.set_nodelay(true)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut buffer[filled..])?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
            let mut at = 0;
            while let Some(length) = buffer[at..filled].first_chunk::<4>() {
                let length = usize::try_from(i32::from_be_bytes(*length))?;
                if filled - at < 4 + length {
                    if buffer.len() < 4 + length {
                        buffer.resize(4 + length, 0);
                    }
                    break;
                }
                self.answer(&mut buffer[at + 4..at + 4 + length])?;
                at += 4 + length;
            }
            buffer.copy_within(at..filled, 0);
            filled -= at;
            self.flush()?;
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn answer(&mut self, frame: &mut [u8]) -> Result<()> {
        let mut reader = Reader { frame, at: 0 };
        let head = Head {
            key: reader.i16()?,
            version: reader.i16()?,
            correlation_id: reader.i32()?,
        };
        let client = usize::try_from(reader.i16()?).unwrap_or(0);
        reader.skip(client + 1)?;
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.out
            .extend_from_slice(&head.correlation_id.to_be_bytes());
        self.out.push(0);
        match head.key {
            0 => self.produce(&mut reader)?,
            1 => return self.fetch(&mut reader, start),
            20 => {
                self.partitions.clear();
                self.store.clear()?;
            }
            24 => self.add_partitions(&mut reader)?,
            25 => self.add_offsets(&mut reader)?,
            26 => self.end(&mut reader, head.version)?,
            28 => self.commit_offsets(&mut reader)?,
            key => bail!("the load has no request of key {key}"),
        }
        self.close_frame(start, 0);
        Ok(())
    }

    /// Writes the length of the answer that begins at `start`, which `behind` more bytes follow.
    fn close_frame(&mut self, start: usize, behind: usize) {
        let length = (self.out.len() - start - 4 + behind) as u32;
        self.out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn partition(&mut self, topic: &str, index: i32) -> Result<Arc<Partition>> {
        let place = usize::try_from(index)?;
        if let Some(Some(known)) = self.partitions.get(topic).and_then(|all| all.get(place)) {
            return Ok(Arc::clone(known));
        }
        let partition = self.store.partition(topic, index)?;
        let all = self.partitions.entry(topic.to_owned()).or_default();
        all.resize((place + 1).max(all.len()), None);
        all[place] = Some(Arc::clone(&partition));
        Ok(partition)
    }

    fn join(&mut self, partition: &Arc<Partition>) -> bool {
        let is_known = self
            .transaction
            .iter()
            .any(|one| Arc::ptr_eq(one, partition));
        if !is_known {
            self.transaction.push(Arc::clone(partition));
        }
        !is_known
    }

    fn produce(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let is_transactional = reader.text()?.is_some();
        reader.skip(2 + 4)?;
        let topics = reader.count()?;
        put_count(&mut self.out, topics);
        for _ in 0..topics {
            let topic = reader.text()?.context("a topic has a name")?.to_owned();
            let partitions = reader.count()?;
            put_text(&mut self.out, &topic);
            put_count(&mut self.out, partitions);
            let mut is_new = false;
            for _ in 0..partitions {
                let index = reader.i32()?;
                let partition = self.partition(&topic, index)?;
                let length = reader.count()?;
                let at = reader.at;
                reader.skip(length + 1)?;
                let batch = &mut reader.frame[at..at + length];
                ensure!(length > 61, "a batch that is too short");
                let crc = crc32c::crc32c(&batch[CRC_START..]);
                ensure!(crc.to_be_bytes() == batch[17..21], "a wrong checksum");
                if is_transactional {
                    let producer = (
                        reader_i64(batch, 43),
                        i16::from_be_bytes([batch[51], batch[52]]),
                    );
                    if self.join(&partition) && !is_new {
                        is_new = true;
                        self.store.states.append_own::<STATE_BYTES>(producer)?;
                    }
                }
                let batch = &mut reader.frame[at..at + length];
                let records = i32::from_be_bytes([batch[57], batch[58], batch[59], batch[60]]);
                let offset = partition.append(batch, i64::from(records))?;
                self.out.extend_from_slice(&index.to_be_bytes());
                self.out.extend_from_slice(&[0; 2]);
                self.out.extend_from_slice(&offset.to_be_bytes());
                self.out.extend_from_slice(&(-1i64).to_be_bytes());
                self.out.extend_from_slice(&0i64.to_be_bytes());
                self.out.extend_from_slice(&[1, 0, 0]);
            }
            reader.skip(1)?;
            self.out.push(0);
        }
        self.out.extend_from_slice(&[0; 4]);
        self.out.push(0);
        Ok(())
    }

    /// Of version 12; partitions without a session, all of one topic.
    fn fetch(&mut self, reader: &mut Reader<'_>, start: usize) -> Result<()> {
        reader.skip(4 + 4 + 4 + 4 + 1 + 4 + 4)?;
        let topics = reader.count()?;
        ensure!(topics == 1, "the load fetches from one topic");
        self.out.extend_from_slice(&[0; 4 + 2 + 4]);
        put_count(&mut self.out, 1);
        let topic = reader.text()?.context("a topic has a name")?.to_owned();
        put_text(&mut self.out, &topic);
        let partitions = reader.count()?;
        put_count(&mut self.out, partitions);
        let mut plan = Vec::with_capacity(partitions);
        for _ in 0..partitions {
            let index = reader.i32()?;
            reader.skip(4)?;
            let offset = reader.i64()?;
            reader.skip(4 + 8)?;
            let bytes_max = u64::try_from(reader.i32()?)?;
            reader.skip(1)?;
            let partition = self.partition(&topic, index)?;
            let log = partition.log();
            let found = log.batches.partition_point(|(base, _)| *base <= offset);
            let position = log.batches[found.max(1) - 1].1;
            let next = log
                .batches
                .get(found)
                .map_or(log.end, |(_, position)| *position);
            let bytes = (log.end - position).min(bytes_max.max(next - position));
            let next_offset = log.next_offset;
            drop(log);
            self.out.extend_from_slice(&index.to_be_bytes());
            self.out.extend_from_slice(&[0; 2]);
            self.out.extend_from_slice(&next_offset.to_be_bytes());
            self.out.extend_from_slice(&next_offset.to_be_bytes());
            self.out.extend_from_slice(&0i64.to_be_bytes());
            self.out.push(0);
            self.out.extend_from_slice(&(-1i32).to_be_bytes());
            put_count(&mut self.out, bytes as usize);
            if bytes < COPIED_BYTES {
                let at = self.out.len();
                self.out.resize(at + bytes as usize, 0);
                partition
                    .file
                    .read_exact_at(&mut self.out[at..], position)?;
            } else {
                plan.push((self.out.len(), partition, position, bytes));
            }
            self.out.push(0);
        }
        self.out.extend_from_slice(&[0, 0]);
        let behind: u64 = plan.iter().map(|(_, _, _, bytes)| bytes).sum();
        self.close_frame(start, behind as usize);
        let mut sent = 0;
        for (until, partition, position, bytes) in plan {
            self.stream.write_all(&self.out[sent..until])?;
            sent = until;
            send_file(&self.stream, &partition.file, position, bytes)?;
        }
        self.out.drain(..sent);
        self.flush()
    }

    fn add_partitions(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        reader.text()?;
        let producer = (reader.i64()?, reader.i16()?);
        let topics = reader.count()?;
        self.out.extend_from_slice(&[0; 4]);
        put_count(&mut self.out, topics);
        for _ in 0..topics {
            let topic = reader.text()?.context("a topic has a name")?.to_owned();
            let partitions = reader.count()?;
            put_text(&mut self.out, &topic);
            put_count(&mut self.out, partitions);
            for _ in 0..partitions {
                let index = reader.i32()?;
                let partition = self.partition(&topic, index)?;
                self.join(&partition);
                self.out.extend_from_slice(&index.to_be_bytes());
                self.out.extend_from_slice(&[0; 3]);
            }
            reader.skip(1)?;
            self.out.push(0);
        }
        self.out.push(0);
        self.store.states.append_own::<STATE_BYTES>(producer)
    }

    fn add_offsets(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        reader.text()?;
        let producer = (reader.i64()?, reader.i16()?);
        self.has_offsets = true;
        self.out.extend_from_slice(&[0; 4 + 2 + 1]);
        self.store.states.append_own::<STATE_BYTES>(producer)
    }

    fn commit_offsets(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        reader.text()?;
        reader.text()?;
        let producer = (reader.i64()?, reader.i16()?);
        reader.skip(4)?;
        reader.text()?;
        reader.text()?;
        if !self.has_offsets {
            self.has_offsets = true;
            self.store.states.append_own::<STATE_BYTES>(producer)?;
        }
        self.store.offsets.append_own::<OFFSET_BYTES>(producer)?;
        let topics = reader.count()?;
        ensure!(topics == 1, "the load commits offsets of one topic");
        let topic = reader.text()?.context("a topic has a name")?;
        self.out.extend_from_slice(&[0; 4]);
        put_count(&mut self.out, 1);
        put_text(&mut self.out, topic);
        put_count(&mut self.out, 1);
        self.out.extend_from_slice(&[0; 4 + 2 + 1]);
        self.out.extend_from_slice(&[0, 0]);
        Ok(())
    }

    fn end(&mut self, reader: &mut Reader<'_>, version: i16) -> Result<()> {
        reader.text()?;
        let producer = (reader.i64()?, reader.i16()?);
        self.store.states.append_own::<STATE_BYTES>(producer)?;
        for partition in self.transaction.drain(..) {
            partition.append_own::<MARKER_BYTES>(producer)?;
        }
        if std::mem::take(&mut self.has_offsets) {
            self.store.offsets.append_own::<MARKER_BYTES>(producer)?;
        }
        self.store.states.append_own::<STATE_BYTES>(producer)?;
        self.out.extend_from_slice(&[0; 4 + 2]);
        if version >= 5 {
            self.out.extend_from_slice(&producer.0.to_be_bytes());
            let next = producer.1.wrapping_add(1).max(0);
            self.out.extend_from_slice(&next.to_be_bytes());
        }
        self.out.push(0);
        Ok(())
    }
}

fn send_file(stream: &TcpStream, file: &File, position: u64, bytes: u64) -> Result<()> {
    let mut at = position;
    while at < position + bytes {
        let left = usize::try_from(position + bytes - at)?;
        let sent = rustix::fs::sendfile(stream, file, Some(&mut at), left)?;
        ensure!(sent > 0, "a file that became shorter");
    }
    Ok(())
}

fn reader_i64(bytes: &[u8], at: usize) -> i64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(number)
}

/// A request, read from its beginning.
struct Reader<'a> {
    frame: &'a mut [u8],
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self, bytes: usize) -> Result<()> {
        self.at += bytes;
        ensure!(self.at <= self.frame.len(), "a request that is too short");
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let at = self.at;
        self.skip(N)?;
        Ok(self.frame[at..at + N].try_into()?)
    }

    fn i16(&mut self) -> Result<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Result<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            value |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a number that is too long")
    }

    /// A length of the compact form; null is 0.
    fn count(&mut self) -> Result<usize> {
        Ok(self.varint()?.saturating_sub(1))
    }

    fn text(&mut self) -> Result<Option<&str>> {
        let length = self.varint()?;
        let Some(length) = length.checked_sub(1) else {
            return Ok(None);
        };
        let at = self.at;
        self.skip(length)?;
        Ok(Some(std::str::from_utf8(&self.frame[at..at + length])?))
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let mut rest = count + 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}
