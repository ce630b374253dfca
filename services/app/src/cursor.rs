//! Where a page of texts ends, as a string that clients hand back unread.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// A place in the list of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The text that came last; texts before it are older.
    pub seq: i64,
}

impl Cursor {
    /// 16 characters that are safe in a URL.
    #[must_use]
    pub fn encode(self) -> String {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.seq.to_be_bytes());
        bytes[8..].copy_from_slice(&check(self.seq).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place, if the string was made by [`Self::encode`].
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let bytes: [u8; 12] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let seq = i64::from_be_bytes(*bytes.first_chunk()?);
        let made_here = u32::from_be_bytes(*bytes.last_chunk()?) == check(seq);
        made_here.then_some(Self { seq })
    }
}

/// Tells a cursor from a number that somebody made up or cut off (32-bit FNV-1a). It keeps no secret: whoever forges it
/// sees texts that everybody may see.
fn check(seq: i64) -> u32 {
    let bytes = seq.to_be_bytes().into_iter().chain(*b"texts");
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_way_out_and_back() {
        for seq in [1, 2, 255, 256, 1_000_000, i64::MAX] {
            let text = Cursor { seq }.encode();
            assert_eq!((text.len(), Cursor::decode(&text)), (16, Some(Cursor { seq })));
        }
    }

    #[test]
    fn refuses_what_was_not_made_here() {
        let good = Cursor { seq: 1234 }.encode();
        let changed = |at: usize| {
            let mut text = good.clone().into_bytes();
            text[at] = if text[at] == b'B' { b'C' } else { b'B' };
            String::from_utf8(text).unwrap()
        };
        let mut forged: Vec<String> = (0..good.len()).map(changed).collect();
        forged.extend(["", "1234", "AAAAAAAAAAAAAAAA", "☃", &good[..15], &format!("{good}A")].map(str::to_owned));
        for text in forged {
            assert_eq!(Cursor::decode(&text), None, "{text}");
        }
    }
}
