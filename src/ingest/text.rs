//! What is asked of text that comes in, whatever brings it. Pure.

use serde_json::value::RawValue;

use super::refusal::{FieldError, Reason, Refusal};

/// # Errors
/// The bytes are no UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        let shown = String::from_utf8_lossy(&bytes[at..(at + 4).min(bytes.len())]);
        Refusal::new(
            Reason::Malformed,
            FieldError::new("", "utf-8", &shown, format!("must be UTF-8: byte {at} is not")),
        )
    })
}

/// # Errors
/// The text is no JSON.
pub fn json(text: &str) -> Result<&str, Refusal> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Ok(text),
        Err(e) => {
            let error = FieldError::new("", "json", text, format!("must be JSON: {e}"));
            Err(Refusal::new(Reason::Malformed, error))
        }
    }
}

/// # Errors
/// The text is no key under which an event is accepted once.
pub fn idempotency_key(text: &str) -> Result<&str, Refusal> {
    if (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(text);
    }
    let message = "must be 1 to 255 visible ASCII characters without spaces";
    Err(Refusal::new(Reason::Invalid, FieldError::new("idempotency-key", "characters", text, message)))
}
