//! A check of request bodies that runs before the codec crate decodes them.
//!
//! The crate reserves memory for an array on the word of its count: a frame of twenty bytes can abort the process
//! (api-matrix.md section 3.3). So every body is first walked by one interpreter over a static description of its
//! layout. It refuses
//! - a count whose elements, each at its smallest, do not fit the bytes left;
//! - strings and byte fields that reach behind the end;
//! - more than [`ELEMENTS_MAX`] elements in arrays, because each is larger in memory than on the wire: a partition's
//!   number of four bytes becomes a row of an answer;
//! - more than [`crate::wire::TAGGED_FIELDS_MAX`] tagged fields in one section.
//!
//! Null where null is not allowed, and text that is not UTF-8, is left to the crate, which refuses them. Produce and Fetch
//! have no description: [`crate::request`] reads them by hand under the same rules.

use crate::api_table as api;
use crate::wire::{Malformed, Reader};

/// The most elements that the arrays of one request may hold in all: more partitions than one node will
/// ever carry.
pub const ELEMENTS_MAX: usize = 1 << 18;

/// One field of a structure, present in the versions `since..=until`.
#[derive(Clone, Copy)]
struct Field {
    kind: Kind,
    since: i16,
    until: i16,
}

#[derive(Clone, Copy)]
enum Kind {
    /// A number, boolean or uuid of so many bytes.
    Fixed(usize),
    /// A string, nullable or not.
    Text,
    /// Bytes, nullable or not.
    Blob,
    /// An array of elements of so many bytes.
    FixedArray(usize),
    /// An array of strings.
    TextArray,
    /// An array of structures.
    Array(&'static [Field]),
    /// A structure after a byte of 1, or nothing after any other byte.
    Optional(&'static [Field]),
}

const I8: Field = always(Kind::Fixed(1));
const I16: Field = always(Kind::Fixed(2));
const I32: Field = always(Kind::Fixed(4));
const I64: Field = always(Kind::Fixed(8));
const UUID: Field = always(Kind::Fixed(16));
const TEXT: Field = always(Kind::Text);
const BLOB: Field = always(Kind::Blob);
const I32S: Field = always(Kind::FixedArray(4));
const TEXTS: Field = always(Kind::TextArray);

const fn always(kind: Kind) -> Field {
    Field {
        kind,
        since: 0,
        until: i16::MAX,
    }
}

const fn array(fields: &'static [Field]) -> Field {
    always(Kind::Array(fields))
}

impl Field {
    const fn since(self, since: i16) -> Field {
        Field { since, ..self }
    }

    const fn until(self, until: i16) -> Field {
        Field { until, ..self }
    }

    const fn is_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }

    const fn bytes_min(&self, flexible: bool) -> usize {
        match (self.kind, flexible) {
            (Kind::Fixed(bytes), _) => bytes,
            (Kind::Optional(_), _) | (_, true) => 1,
            (Kind::Text, false) => 2,
            (_, false) => 4,
        }
    }
}

static LIST_OFFSETS: &[Field] = &[
    I32,
    I8.since(2),
    array(&[TEXT, array(&[I32, I32.since(4), I64])]),
    I32.since(10),
];
static METADATA: &[Field] = &[
    array(&[UUID.since(10), TEXT]),
    I8.since(4),
    I8.since(8).until(10),
    I8.since(8),
];
static OFFSET_COMMIT: &[Field] = &[
    TEXT,
    I32,
    TEXT,
    TEXT.since(7),
    I64.until(4),
    array(&[
        TEXT.until(9),
        UUID.since(10),
        array(&[I32, I64, I32.since(6), TEXT]),
    ]),
];
static OFFSET_FETCH: &[Field] = &[
    TEXT.until(7),
    array(&[TEXT, I32S]).until(7),
    array(&[
        TEXT,
        TEXT.since(9),
        I32.since(9),
        array(&[TEXT.until(9), UUID.since(10), I32S]),
    ])
    .since(8),
    I8.since(7),
];
static FIND_COORDINATOR: &[Field] = &[TEXT.until(3), I8.since(1), TEXTS.since(4)];
static JOIN_GROUP: &[Field] = &[
    TEXT,
    I32,
    I32.since(1),
    TEXT,
    TEXT.since(5),
    TEXT,
    array(&[TEXT, BLOB]),
    TEXT.since(8),
];
static HEARTBEAT: &[Field] = &[TEXT, I32, TEXT, TEXT.since(3)];
static LEAVE_GROUP: &[Field] = &[
    TEXT,
    TEXT.until(2),
    array(&[TEXT, TEXT, TEXT.since(5)]).since(3),
];
static SYNC_GROUP: &[Field] = &[
    TEXT,
    I32,
    TEXT,
    TEXT.since(3),
    TEXT.since(5),
    TEXT.since(5),
    array(&[TEXT, BLOB]),
];
static SASL_HANDSHAKE: &[Field] = &[TEXT];
static API_VERSIONS: &[Field] = &[TEXT.since(3), TEXT.since(3), TEXT.since(5), I32.since(5)];
static CREATE_TOPICS: &[Field] = &[
    array(&[TEXT, I32, I16, array(&[I32, I32S]), array(&[TEXT, TEXT])]),
    I32,
    I8,
];
static DELETE_TOPICS: &[Field] = &[array(&[TEXT, UUID]).since(6), TEXTS.until(5), I32];
static DELETE_RECORDS: &[Field] = &[array(&[TEXT, array(&[I32, I64])]), I32];
static INIT_PRODUCER_ID: &[Field] = &[
    TEXT,
    I32,
    I64.since(3),
    I16.since(3),
    I8.since(6),
    I8.since(6),
];
static OFFSET_FOR_LEADER_EPOCH: &[Field] = &[I32.since(3), array(&[TEXT, array(&[I32, I32, I32])])];
static ADD_PARTITIONS_TO_TXN: &[Field] = &[
    array(&[TEXT, I64, I16, I8, array(&[TEXT, I32S])]).since(4),
    TEXT.until(3),
    I64.until(3),
    I16.until(3),
    array(&[TEXT, I32S]).until(3),
];
static ADD_OFFSETS_TO_TXN: &[Field] = &[TEXT, I64, I16, TEXT];
static END_TXN: &[Field] = &[TEXT, I64, I16, I8];
static TXN_OFFSET_COMMIT: &[Field] = &[
    TEXT,
    TEXT,
    I64,
    I16,
    I32.since(3),
    TEXT.since(3),
    TEXT.since(3),
    array(&[TEXT, array(&[I32, I64, I32.since(2), TEXT])]),
];
static DESCRIBE_CONFIGS: &[Field] = &[array(&[I8, TEXT, TEXTS]), I8, I8.since(3)];
static ALTER_CONFIGS: &[Field] = &[array(&[I8, TEXT, array(&[TEXT, TEXT])]), I8];
static INCREMENTAL_ALTER_CONFIGS: &[Field] = &[array(&[I8, TEXT, array(&[TEXT, I8, TEXT])]), I8];
static DESCRIBE_ACLS: &[Field] = &[I8, TEXT, I8, TEXT, TEXT, I8, I8];
static CREATE_ACLS: &[Field] = &[array(&[I8, TEXT, I8, TEXT, TEXT, I8, I8])];
static DELETE_ACLS: &[Field] = &[array(&[I8, TEXT, I8, TEXT, TEXT, I8, I8])];
static CREATE_DELEGATION_TOKEN: &[Field] =
    &[TEXT.since(3), TEXT.since(3), array(&[TEXT, TEXT]), I64];
static RENEW_DELEGATION_TOKEN: &[Field] = &[BLOB, I64];
static EXPIRE_DELEGATION_TOKEN: &[Field] = &[BLOB, I64];
static DESCRIBE_DELEGATION_TOKEN: &[Field] = &[array(&[TEXT, TEXT])];
static DESCRIBE_CLIENT_QUOTAS: &[Field] = &[array(&[TEXT, I8, TEXT]), I8];
// A quota's value is a float of eight bytes.
static ALTER_CLIENT_QUOTAS: &[Field] =
    &[array(&[array(&[TEXT, TEXT]), array(&[TEXT, I64, I8])]), I8];
static DESCRIBE_USER_SCRAM_CREDENTIALS: &[Field] = &[array(&[TEXT])];
static ALTER_USER_SCRAM_CREDENTIALS: &[Field] =
    &[array(&[TEXT, I8]), array(&[TEXT, I8, I32, BLOB, BLOB])];
static SASL_AUTHENTICATE: &[Field] = &[BLOB];
static ALTER_REPLICA_LOG_DIRS: &[Field] = &[array(&[TEXT, array(&[TEXT, I32S])])];
static DESCRIBE_QUORUM: &[Field] = &[array(&[TEXT, array(&[I32])])];
static UPDATE_FEATURES: &[Field] = &[
    I32,
    array(&[TEXT, I16, I8.until(0), I8.since(1)]),
    I8.since(1),
];
static DESCRIBE_CLUSTER: &[Field] = &[I8, I8.since(1), I8.since(2)];
static DESCRIBE_GROUPS: &[Field] = &[TEXTS, I8.since(3)];
static LIST_GROUPS: &[Field] = &[TEXTS.since(4), TEXTS.since(5)];
static WRITE_TXN_MARKERS: &[Field] = &[array(&[
    I64,
    I16,
    I8,
    array(&[TEXT, I32S]),
    I32,
    I8.since(2),
])];
static DESCRIBE_LOG_DIRS: &[Field] = &[array(&[TEXT, I32S])];
static CREATE_PARTITIONS: &[Field] = &[array(&[TEXT, I32, array(&[I32S])]), I32, I8];
static DELETE_GROUPS: &[Field] = &[TEXTS];
static ELECT_LEADERS: &[Field] = &[I8.since(1), array(&[TEXT, I32S]), I32];
static ALTER_PARTITION_REASSIGNMENTS: &[Field] =
    &[I32, I8.since(1), array(&[TEXT, array(&[I32, I32S])])];
static LIST_PARTITION_REASSIGNMENTS: &[Field] = &[I32, array(&[TEXT, I32S])];
static OFFSET_DELETE: &[Field] = &[TEXT, array(&[TEXT, array(&[I32])])];
static DESCRIBE_PRODUCERS: &[Field] = &[array(&[TEXT, I32S])];
static DESCRIBE_TRANSACTIONS: &[Field] = &[TEXTS];
static LIST_TRANSACTIONS: &[Field] = &[
    TEXTS,
    always(Kind::FixedArray(8)),
    I64.since(1),
    TEXT.since(2),
];
static CONSUMER_GROUP_HEARTBEAT: &[Field] = &[
    TEXT,
    TEXT,
    I32,
    TEXT,
    TEXT,
    I32,
    TEXTS,
    TEXT.since(1),
    TEXT,
    array(&[UUID, I32S]),
];
static CONSUMER_GROUP_DESCRIBE: &[Field] = &[TEXTS, I8];
static LIST_CONFIG_RESOURCES: &[Field] = &[always(Kind::FixedArray(1)).since(1)];
static DESCRIBE_TOPIC_PARTITIONS: &[Field] =
    &[array(&[TEXT]), I32, always(Kind::Optional(&[TEXT, I32]))];

fn layout(key: i16) -> Option<&'static [Field]> {
    Some(match key {
        api::LIST_OFFSETS => LIST_OFFSETS,
        api::METADATA => METADATA,
        api::OFFSET_COMMIT => OFFSET_COMMIT,
        api::OFFSET_FETCH => OFFSET_FETCH,
        api::FIND_COORDINATOR => FIND_COORDINATOR,
        api::JOIN_GROUP => JOIN_GROUP,
        api::HEARTBEAT => HEARTBEAT,
        api::LEAVE_GROUP => LEAVE_GROUP,
        api::SYNC_GROUP => SYNC_GROUP,
        api::SASL_HANDSHAKE => SASL_HANDSHAKE,
        api::API_VERSIONS => API_VERSIONS,
        api::CREATE_TOPICS => CREATE_TOPICS,
        api::DELETE_TOPICS => DELETE_TOPICS,
        api::DELETE_RECORDS => DELETE_RECORDS,
        api::INIT_PRODUCER_ID => INIT_PRODUCER_ID,
        api::OFFSET_FOR_LEADER_EPOCH => OFFSET_FOR_LEADER_EPOCH,
        api::ADD_PARTITIONS_TO_TXN => ADD_PARTITIONS_TO_TXN,
        api::ADD_OFFSETS_TO_TXN => ADD_OFFSETS_TO_TXN,
        api::END_TXN => END_TXN,
        api::TXN_OFFSET_COMMIT => TXN_OFFSET_COMMIT,
        api::DESCRIBE_CONFIGS => DESCRIBE_CONFIGS,
        api::ALTER_CONFIGS => ALTER_CONFIGS,
        api::INCREMENTAL_ALTER_CONFIGS => INCREMENTAL_ALTER_CONFIGS,
        api::DESCRIBE_ACLS => DESCRIBE_ACLS,
        api::CREATE_ACLS => CREATE_ACLS,
        api::DELETE_ACLS => DELETE_ACLS,
        api::CREATE_DELEGATION_TOKEN => CREATE_DELEGATION_TOKEN,
        api::RENEW_DELEGATION_TOKEN => RENEW_DELEGATION_TOKEN,
        api::EXPIRE_DELEGATION_TOKEN => EXPIRE_DELEGATION_TOKEN,
        api::DESCRIBE_DELEGATION_TOKEN => DESCRIBE_DELEGATION_TOKEN,
        api::DESCRIBE_CLIENT_QUOTAS => DESCRIBE_CLIENT_QUOTAS,
        api::ALTER_CLIENT_QUOTAS => ALTER_CLIENT_QUOTAS,
        api::DESCRIBE_USER_SCRAM_CREDENTIALS => DESCRIBE_USER_SCRAM_CREDENTIALS,
        api::ALTER_USER_SCRAM_CREDENTIALS => ALTER_USER_SCRAM_CREDENTIALS,
        api::SASL_AUTHENTICATE => SASL_AUTHENTICATE,
        api::ALTER_REPLICA_LOG_DIRS => ALTER_REPLICA_LOG_DIRS,
        api::DESCRIBE_QUORUM => DESCRIBE_QUORUM,
        api::UPDATE_FEATURES => UPDATE_FEATURES,
        api::DESCRIBE_CLUSTER => DESCRIBE_CLUSTER,
        api::DESCRIBE_GROUPS => DESCRIBE_GROUPS,
        api::LIST_GROUPS => LIST_GROUPS,
        api::WRITE_TXN_MARKERS => WRITE_TXN_MARKERS,
        api::DESCRIBE_LOG_DIRS => DESCRIBE_LOG_DIRS,
        api::CREATE_PARTITIONS => CREATE_PARTITIONS,
        api::DELETE_GROUPS => DELETE_GROUPS,
        api::ELECT_LEADERS => ELECT_LEADERS,
        api::ALTER_PARTITION_REASSIGNMENTS => ALTER_PARTITION_REASSIGNMENTS,
        api::LIST_PARTITION_REASSIGNMENTS => LIST_PARTITION_REASSIGNMENTS,
        api::OFFSET_DELETE => OFFSET_DELETE,
        api::DESCRIBE_PRODUCERS => DESCRIBE_PRODUCERS,
        api::DESCRIBE_TRANSACTIONS => DESCRIBE_TRANSACTIONS,
        api::LIST_TRANSACTIONS => LIST_TRANSACTIONS,
        api::CONSUMER_GROUP_HEARTBEAT => CONSUMER_GROUP_HEARTBEAT,
        api::CONSUMER_GROUP_DESCRIBE => CONSUMER_GROUP_DESCRIBE,
        api::LIST_CONFIG_RESOURCES => LIST_CONFIG_RESOURCES,
        api::DESCRIBE_TOPIC_PARTITIONS => DESCRIBE_TOPIC_PARTITIONS,
        _ => return None,
    })
}

/// Checks that every length in `body` fits the bytes there are. Returns how many bytes follow the message: they are to be
/// ignored (LR-154), and may be counted.
///
/// [`Malformed::UnknownVersion`] for Produce, Fetch and what is not served.
pub fn check_body(api_key: i16, api_version: i16, body: &[u8]) -> Result<usize, Malformed> {
    let api = api::lookup(api_key)
        .filter(|api| api.serves(api_version))
        .ok_or(Malformed::UnknownVersion)?;
    let fields = layout(api_key).ok_or(Malformed::UnknownVersion)?;
    let mut skimmer = Skimmer {
        reader: Reader::new(body),
        version: api_version,
        flexible: api.is_flexible(api_version),
        elements: 0,
        #[cfg(test)]
        counts: Vec::new(),
    };
    skimmer.structure(fields)?;
    Ok(skimmer.reader.remaining())
}

struct Skimmer<'a> {
    reader: Reader<'a>,
    version: i16,
    flexible: bool,
    elements: usize,
    /// Where arrays began, as bytes left in front of their count.
    #[cfg(test)]
    counts: Vec<usize>,
}

impl Skimmer<'_> {
    fn structure(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        for field in fields {
            if field.is_in(self.version) {
                self.field(field.kind)?;
            }
        }
        self.reader.skip_tagged_fields(self.flexible)
    }

    fn field(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(bytes) => self.reader.take(bytes).map(drop),
            Kind::Text => self.reader.nullable_string_bytes(self.flexible).map(drop),
            Kind::Blob => self.reader.nullable_bytes(self.flexible).map(drop),
            Kind::FixedArray(element_bytes) => {
                let count = self.count(element_bytes)?;
                self.elements(count)?;
                self.reader.take(count * element_bytes).map(drop)
            }
            Kind::TextArray => {
                let count = self.count(if self.flexible { 1 } else { 2 })?;
                self.elements(count)?;
                for _ in 0..count {
                    self.field(Kind::Text)?;
                }
                Ok(())
            }
            Kind::Optional(fields) => match self.reader.i8()? {
                1 => self.structure(fields),
                _ => Ok(()),
            },
            Kind::Array(fields) => {
                let count = self.count(self.bytes_min(fields))?;
                self.elements(count)?;
                for _ in 0..count {
                    self.structure(fields)?;
                }
                Ok(())
            }
        }
    }

    fn count(&mut self, element_bytes_min: usize) -> Result<usize, Malformed> {
        #[cfg(test)]
        self.counts.push(self.reader.remaining());
        let count = self.reader.array_length(self.flexible, element_bytes_min)?;
        Ok(count.unwrap_or(0))
    }

    fn elements(&mut self, count: usize) -> Result<(), Malformed> {
        self.elements += count;
        if self.elements > ELEMENTS_MAX {
            return Err(Malformed::TooManyElements);
        }
        Ok(())
    }

    /// Bytes of the smallest structure, at least 1.
    fn bytes_min(&self, fields: &'static [Field]) -> usize {
        let present = fields.iter().filter(|field| field.is_in(self.version));
        let bytes: usize = present.map(|field| field.bytes_min(self.flexible)).sum();
        bytes + usize::from(self.flexible)
    }
}

#[cfg(test)]
mod tests;
