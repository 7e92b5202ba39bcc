//! Reads Server-Sent Events from bytes as they come.

/// One dispatched event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Empty: `message`.
    pub event: String,
    pub data: String,
    /// The last id seen up to here, which is what a reconnect sends.
    pub id: String,
}

/// Longest line: a payload and room around it.
const MAX_LINE: usize = 16 << 20;

/// A line grew beyond what any event has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream sent a line of more than {MAX_LINE} bytes")]
pub struct LineTooLong;

/// Takes bytes in any pieces, gives frames. Comments, `retry` and unknown fields are passed over.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    frame: Frame,
    has_data: bool,
}

impl Decoder {
    /// The frames that these bytes complete. A frame with an id and no data is kept back, its id is not.
    ///
    /// # Errors
    /// A line has no end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, LineTooLong> {
        let mut frames = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() > MAX_LINE {
                return Err(LineTooLong);
            }
            if piece.ends_with(b"\n") {
                frames.extend(self.take_line());
            }
        }
        Ok(frames)
    }

    /// The last id seen, also of frames without data.
    pub fn last_id(&self) -> &str {
        &self.frame.id
    }

    fn take_line(&mut self) -> Option<Frame> {
        let bytes = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.frame.event),
            "id" => value.clone_into(&mut self.frame.id),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Frame> {
        let id = self.frame.id.clone();
        let frame = std::mem::replace(&mut self.frame, Frame { id, ..Frame::default() });
        std::mem::take(&mut self.has_data).then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str =
        "id: a\n\n: heartbeat\n\nevent: projection\r\nid:b\r\ndata: {\"x\":\ndata: 1}\n\ndata: é\n\nevent: lost\n";

    fn frame(event: &str, data: &str, id: &str) -> Frame {
        Frame { event: event.to_owned(), data: data.to_owned(), id: id.to_owned() }
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_frames(cuts: Vec<usize>) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % STREAM.len()).chain([0, STREAM.len()]).collect();
            cuts.sort_unstable();
            let mut decoder = Decoder::default();
            let frames: Vec<Frame> =
                cuts.windows(2).flat_map(|w| decoder.push(&STREAM.as_bytes()[w[0]..w[1]]).unwrap()).collect();
            prop_assert_eq!(frames, [frame("projection", "{\"x\":\n1}", "b"), frame("", "é", "b")]);
            prop_assert_eq!(decoder.last_id(), "b");
        }
    }
}
