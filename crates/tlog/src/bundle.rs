//! Entry bundles: per leaf a big-endian 16-bit length, then the leaf.

use crate::tile::TILE_WIDTH;

/// Most bytes of a leaf: what 16 bits can count.
pub const LEAF_BYTES_MAX: usize = 65_535;

/// What is wrong with a bundle.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("a leaf of {0} bytes does not go into an entry bundle: {LEAF_BYTES_MAX} are the most")]
    TooLong(usize),
    /// At this byte of the bundle something begins that does not end within it.
    #[error("the bundle ends in the middle of the entry that begins at byte {at}")]
    Torn { at: usize },
    #[error("the bundle goes on after its {width} entries, at byte {at}")]
    Trailing { at: usize, width: u16 },
}

/// Appends a leaf to a bundle's bytes.
pub fn push_entry(bundle: &mut Vec<u8>, leaf: &[u8]) -> Result<(), BundleError> {
    let length = u16::try_from(leaf.len()).map_err(|_| BundleError::TooLong(leaf.len()))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(leaf);
    Ok(())
}

/// The leaves of a bundle, and where each begins.
#[derive(Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    /// Where each leaf (behind its length) begins and ends.
    leaves: Vec<(usize, usize)>,
}

impl<'a> Bundle<'a> {
    /// Reads exactly `width` entries: one that is torn, missing or too much is an error.
    pub fn parse(bytes: &'a [u8], width: u16) -> Result<Self, BundleError> {
        let mut leaves = Vec::with_capacity(usize::from(width.min(TILE_WIDTH)));
        let mut at = 0;
        for _ in 0..width {
            let length = bytes.get(at..at + 2).ok_or(BundleError::Torn { at })?;
            let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            if end > bytes.len() {
                return Err(BundleError::Torn { at });
            }
            leaves.push((at + 2, end));
            at = end;
        }
        if at == bytes.len() { Ok(Self { bytes, leaves }) } else { Err(BundleError::Trailing { at, width }) }
    }

    /// The leaves in order.
    pub fn leaves(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + '_ {
        self.leaves.iter().map(|(start, end)| &self.bytes[*start..*end])
    }

    pub fn leaf(&self, at: usize) -> Option<&'a [u8]> {
        self.leaves.get(at).map(|(start, end)| &self.bytes[*start..*end])
    }

    /// The byte of the bundle at which a leaf begins (behind its length).
    pub fn offset(&self, at: usize) -> Option<usize> {
        self.leaves.get(at).map(|(start, _)| *start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_comes_out() {
        let long = vec![7; LEAF_BYTES_MAX];
        let leaves: [&[u8]; 4] = [b"", b"a", &long, b"last"];
        let mut bytes = Vec::new();
        for leaf in leaves {
            push_entry(&mut bytes, leaf).unwrap();
        }
        let bundle = Bundle::parse(&bytes, 4).unwrap();
        assert_eq!(bundle.leaves().collect::<Vec<_>>(), leaves);
        assert_eq!((bundle.leaf(1), bundle.offset(1), bundle.leaf(4)), (Some(&b"a"[..]), Some(4), None));
        assert_eq!(push_entry(&mut bytes, &vec![0; 65_536]), Err(BundleError::TooLong(65_536)));
    }

    #[test]
    fn a_bundle_is_exact() {
        let bytes = [0, 1, b'a', 0, 2, b'b', b'c'];
        assert!(Bundle::parse(&bytes, 2).is_ok());
        assert_eq!(Bundle::parse(&bytes, 3).unwrap_err(), BundleError::Torn { at: 7 });
        assert_eq!(Bundle::parse(&bytes, 1).unwrap_err(), BundleError::Trailing { at: 3, width: 1 });
        assert_eq!(Bundle::parse(&bytes[..6], 2).unwrap_err(), BundleError::Torn { at: 3 });
        assert_eq!(Bundle::parse(&bytes[..4], 2).unwrap_err(), BundleError::Torn { at: 3 });
        assert_eq!(Bundle::parse(&[0], 0).unwrap_err(), BundleError::Trailing { at: 0, width: 0 });
    }
}
