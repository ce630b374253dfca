//! Frames as server-sent events (WHATWG HTML, section 9.2): the second way in which they travel. `event` is the frame's type, `id` its cursor if it has
//! one, `data` its JSON. What a WebSocket says with a close frame is an event `close`, after which the stream ends.
//!
//! The crates that read such streams own the connection too, or keep whatever length a server sends; here bytes come in and events go out.

use serde::{Deserialize, Serialize};

use crate::Frame;

/// The media type of a stream of events.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// The type of the event that stands for a close frame.
pub const CLOSE: &str = "close";

/// The data of a [`CLOSE`] event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// As of a WebSocket, see [`crate::close`].
    pub code: u16,
    /// Its reason.
    pub reason: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` if it has none.
    pub kind: String,
    /// The last id that the stream has told; empty if it told none.
    pub id: String,
    /// Its data.
    pub data: String,
}

/// An event is longer than the reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {0} bytes")]
pub struct TooLong(usize);

/// A frame as the bytes of an event.
pub fn encode(frame: &Frame) -> Vec<u8> {
    let (kind, cursor) = match frame {
        Frame::Hello(_) => ("hello", ""),
        Frame::Set(set) => ("set", set.cursor.as_str()),
        Frame::Beat(_) => ("beat", ""),
        Frame::Move(_) => ("move", ""),
        // Nobody sends what it does not know.
        Frame::Unknown => return Vec::new(),
    };
    write(kind, cursor, frame)
}

/// The end of a stream as the bytes of an event.
pub fn encode_close(code: u16, reason: &str) -> Vec<u8> {
    write(CLOSE, "", &Close { code, reason: reason.to_owned() })
}

fn write(kind: &str, id: &str, data: &impl Serialize) -> Vec<u8> {
    let mut bytes = format!("event: {kind}\n").into_bytes();
    if !id.is_empty() {
        bytes.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    bytes.extend_from_slice(b"data: ");
    // JSON has no bare line end in it. Serialising plain data to memory cannot fail; an empty object would be ignored by every client.
    bytes.extend(serde_json::to_vec(data).unwrap_or_else(|_| b"{}".to_vec()));
    bytes.extend_from_slice(b"\n\n");
    bytes
}

/// Reads events out of a stream, however it is cut into pieces.
#[derive(Debug, Clone)]
pub struct Decoder {
    limit: usize,
    /// The line so far.
    line: Vec<u8>,
    /// The byte before this one was a carriage return: a line feed belongs to it.
    after_return: bool,
    /// A byte order mark may stand before the first line, and nowhere else.
    is_first: bool,
    kind: String,
    id: String,
    data: String,
}

impl Decoder {
    /// Reads a stream from its beginning. An event may be so long, bytes.
    pub fn new(limit: usize) -> Self {
        let (kind, id, data) = Default::default();
        Self { limit, line: Vec::new(), after_return: false, is_first: true, kind, id, data }
    }

    /// Takes the next piece, and gives the events that are whole with it.
    ///
    /// # Errors
    /// [`TooLong`]; nothing of the stream can be read after that.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > self.limit {
                return Err(TooLong(self.limit));
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        let is_first = std::mem::replace(&mut self.is_first, false);
        let line = line.strip_prefix('\u{feff}').filter(|_| is_first).unwrap_or(&line);
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "data" => self.data.extend([value, "\n"]),
            // A comment begins with the colon; `retry` is for clients that reconnect by themselves.
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        let (kind, mut data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
        // Every line of data has left a line end; without any there is no event.
        data.pop()?;
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        Some(Event { kind, id: self.id.clone(), data })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Beat, Item, Set};

    fn event(kind: &str, id: &str, data: &str) -> Event {
        Event { kind: kind.to_owned(), id: id.to_owned(), data: data.to_owned() }
    }

    fn read(text: &str) -> Vec<Event> {
        Decoder::new(1_000).push(text.as_bytes()).unwrap()
    }

    #[test]
    fn frames_are_written_as_the_protocol_describes_them_and_read_back() {
        let item = Item { feed: "texts".into(), key: "a\nb\r".into(), version: 42, value: json!({"count": 7}) };
        let set = Frame::Set(Set { cursor: "s.1~texts.42".into(), items: vec![item], ..Set::default() });
        let beat = Frame::Beat(Beat::default());
        assert_eq!(
            String::from_utf8(encode(&beat)).unwrap(),
            "event: beat\ndata: {\"type\":\"beat\",\"ageMs\":{}}\n\n"
        );
        let bytes = [encode(&set), encode(&beat), encode_close(1013, "retry=250")].concat();
        assert!(
            bytes.starts_with(b"event: set\nid: s.1~texts.42\ndata: {\"type\":\"set\",\"cursor\":\"s.1~texts.42\"")
        );
        for size in [1, 2, 3, 7, bytes.len()] {
            let mut decoder = Decoder::new(1_000);
            let events: Vec<_> = bytes.chunks(size).flat_map(|piece| decoder.push(piece).unwrap()).collect();
            let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
            assert_eq!(kinds, ["set", "beat", "close"], "in pieces of {size}");
            assert_eq!(Frame::parse(events[0].data.as_bytes()).as_ref(), Some(&set));
            assert_eq!(Frame::parse(events[1].data.as_bytes()).as_ref(), Some(&beat));
            assert_eq!(events[2].data, r#"{"code":1013,"reason":"retry=250"}"#);
        }
    }

    #[test]
    fn a_stream_is_read_as_the_standard_says() {
        assert_eq!(read("data: one\n\ndata:two\n\n"), [event("message", "", "one"), event("message", "", "two")]);
        assert_eq!(read("data: one\rdata:  two\r\n\r\n"), [event("message", "", "one\n two")], "all three line ends");
        assert_eq!(read(": comment\nretry: 5\nevent: a\n\ndata: x\n\n"), [event("message", "", "x")]);
        assert_eq!(
            read("id: 7\nevent: a\ndata\n\ndata: x\n\nid\ndata: y\n\nid: 8\0\ndata: z\n\n"),
            [event("a", "7", ""), event("message", "7", "x"), event("message", "", "y"), event("message", "", "z")]
        );
        assert_eq!(
            read("\u{feff}data: x\n\n\u{feff}data: y\n\n"),
            [event("message", "", "x")],
            "one mark at the start"
        );
        assert_eq!(read("data: not ended\n"), []);
    }

    #[test]
    fn a_pair_of_line_ends_may_be_cut() {
        let mut decoder = Decoder::new(1_000);
        assert_eq!(decoder.push(b"data: x\r\n\r").unwrap(), [event("message", "", "x")]);
        assert_eq!(decoder.push(b"\ndata: y\r").unwrap(), []);
        assert_eq!(decoder.push(b"\n\r\n").unwrap(), [event("message", "", "y")]);
    }

    #[test]
    fn an_event_without_end_is_not_kept() {
        let mut decoder = Decoder::new(100);
        assert!(decoder.push(&[b'x'; 100]).is_ok());
        assert_eq!(decoder.push(b"x"), Err(TooLong(100)));
        let mut decoder = Decoder::new(100);
        let lines: Result<Vec<_>, _> = (0..60).map(|_| decoder.push(b"data: x\n")).collect();
        assert_eq!(lines, Err(TooLong(100)), "nor one of many lines");
    }
}
