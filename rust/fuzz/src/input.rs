//! Numbers out of a fuzzer's bytes. Where the bytes are used up every further one is 0, so that any input is a case.

/// The bytes that are left.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn is_set(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One byte, as a number of `0 .. end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes([(); 4].map(|()| self.byte()))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    /// A number near one of the places where numbers go wrong, or any other.
    pub(crate) fn edge(&mut self) -> u32 {
        let around = |middle: u32, near: u8| middle.wrapping_add(u32::from(near)).wrapping_sub(128);
        match self.below(6) {
            0 => self.byte().into(),
            1 => around(0, self.byte()),
            2 => around(1 << 31, self.byte()),
            3 => around(1 << 16, self.byte()),
            4 => around(1 << self.below(32), self.byte()),
            _ => self.u32(),
        }
    }

    /// A load: 0 and small whole numbers, which make ties, fractions, and more rarely numbers far from 1.
    pub(crate) fn load(&mut self) -> f64 {
        let [kind, size] = [self.byte(), self.byte()].map(f64::from);
        match self.byte() % 8 {
            0 => 0.0,
            1 | 2 => size % 8.0,
            3 | 4 => size,
            5 => kind * 256.0 + size,
            6 => (kind * 256.0 + size) / 7.0,
            _ => (1.0 + size) * 1.25_f64.powf(kind - 128.0),
        }
    }

    /// Elements until the bytes are used up, `most` at the most.
    pub(crate) fn list<T>(&mut self, most: usize, mut next: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut list = Vec::new();
        while !self.is_empty() && list.len() < most {
            list.push(next(self));
        }
        list
    }
}
