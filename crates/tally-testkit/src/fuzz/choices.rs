//! Bytes as a list of choices: what a life of a state machine is made of.

/// What is left of the bytes.
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    /// The next step; nothing when the bytes are used up.
    pub(super) fn step(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte, or 0.
    pub(super) fn byte(&mut self) -> u8 {
        self.step().unwrap_or(0)
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of so many.
    pub(super) fn below(&mut self, count: u8) -> u8 {
        self.byte() % count
    }

    /// Mostly a small number; now and then any of 32 bits.
    pub(super) fn number(&mut self) -> i32 {
        match self.byte() {
            255 => i32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
            254 => i32::MAX,
            253 => -1,
            small => i32::from(small % 8),
        }
    }

    /// The same of 16 bits.
    pub(super) fn short(&mut self) -> i16 {
        match self.byte() {
            255 => i16::from_be_bytes([self.byte(), self.byte()]),
            254 => i16::MAX,
            253 => -1,
            small => i16::from(small % 4),
        }
    }

    /// A few bytes of the rest, as they are.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.below(32)).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }
}
