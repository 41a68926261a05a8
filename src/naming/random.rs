//! Names made of chance.

use super::FileName;
use super::path::join;
use crate::target::Format;

/// Digits and lower-case letters without those that look alike (`i`, `l`, `o`, `u`).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// 20 random characters and the format's extension. With 100 bits of chance, two files of one
/// store never meet.
pub fn random_name(format: &Format) -> FileName {
    let stem: String = rand::random::<[u8; 20]>()
        .into_iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect();
    join(&stem, format.extensions.first().copied())
}
