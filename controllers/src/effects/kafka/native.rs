//! One admin call of librdkafka by hand: where the safe client has no such call, or keeps the broker's words to itself.
#![expect(unsafe_code, reason = "librdkafka's own interface; what it hands out is freed here, in one place")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::NonNull;
use std::slice;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings::{
    rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_operation_timeout,
    rd_kafka_AdminOptions_set_request_timeout, rd_kafka_AdminOptions_t, rd_kafka_admin_op_t, rd_kafka_event_destroy,
    rd_kafka_event_error, rd_kafka_event_error_string, rd_kafka_event_t, rd_kafka_queue_destroy, rd_kafka_queue_new,
    rd_kafka_queue_poll, rd_kafka_queue_t, rd_kafka_t,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

/// What the broker said against something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    pub code: RDKafkaErrorCode,
    pub words: String,
}

impl Objection {
    /// The client refuses already: the broker is not asked.
    pub fn ours(words: impl Into<String>) -> Self {
        Self { code: RDKafkaErrorCode::InvalidArgument, words: words.into() }
    }
}

/// An object of librdkafka that is ours to free.
pub(super) struct Owned<T> {
    object: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// `None` where librdkafka gave nothing. `object` must be `free`'s to free, and nobody else's.
    pub fn new(object: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(object).map(|object| Self { object, free })
    }

    pub fn get(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it came from librdkafka, for this very function to free, and nobody else has it.
        unsafe { (self.free)(self.object.as_ptr()) }
    }
}

/// How long after librdkafka's own deadline its answer is waited for.
const GRACE: Duration = Duration::from_secs(1);
/// Room for a reason of librdkafka.
pub(super) const REASON: usize = 512;

/// Sends a call and waits for its answer, at most `limit` (and a second). Blocks.
pub(super) fn ask(
    admin: &AdminClient<DefaultClientContext>,
    operation: rd_kafka_admin_op_t,
    limit: Duration,
    send: impl FnOnce(*mut rd_kafka_t, *const rd_kafka_AdminOptions_t, *mut rd_kafka_queue_t),
) -> Result<Owned<rd_kafka_event_t>, Objection> {
    let client = admin.inner().native_ptr();
    let nothing = || Objection::ours("the Kafka client is out of memory");
    // SAFETY: the client outlives this function. The options and the queue are freed when it ends, which librdkafka
    // allows with a call under way: its answer is then thrown away.
    let event = unsafe {
        let options = Owned::new(rd_kafka_AdminOptions_new(client, operation), rd_kafka_AdminOptions_destroy);
        let options = options.ok_or_else(nothing)?;
        let queue = Owned::new(rd_kafka_queue_new(client), rd_kafka_queue_destroy).ok_or_else(nothing)?;
        let mut reason = [0; REASON];
        let reason = reason.as_mut_ptr();
        rd_kafka_AdminOptions_set_request_timeout(options.get(), millis(limit), reason, REASON);
        // Refused, without harm, by calls that answer at once.
        rd_kafka_AdminOptions_set_operation_timeout(options.get(), millis(limit), reason, REASON);
        send(client, options.get(), queue.get());
        Owned::new(rd_kafka_queue_poll(queue.get(), millis(limit + GRACE)), rd_kafka_event_destroy)
    };
    let silent = || Objection { code: RDKafkaErrorCode::OperationTimedOut, words: "no answer in time".to_owned() };
    let event = event.ok_or_else(silent)?;
    // SAFETY: the event lives; its text is copied.
    let (code, words) = unsafe { (rd_kafka_event_error(event.get()), text(rd_kafka_event_error_string(event.get()))) };
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => Ok(event),
        code => Err(objection(code, words)),
    }
}

/// The broker's words, else what the code means.
pub(super) fn objection(code: RDKafkaErrorCode, words: Option<String>) -> Objection {
    Objection { code, words: words.unwrap_or_else(|| code.to_string()) }
}

/// Another answer than the one to the question.
pub(super) fn misplaced() -> Objection {
    Objection::ours("the Kafka client gave the answer to another call")
}

/// What an answer points to, `count` of them.
///
/// # Safety
/// `items` points to `count` items, or to nothing, for as long as the answer lives.
pub(super) unsafe fn items<'a, T>(items: *mut *const T, count: usize) -> &'a [*const T] {
    // SAFETY: the caller's.
    if items.is_null() { &[] } else { unsafe { slice::from_raw_parts(items, count) } }
}

/// A text of librdkafka's, copied.
///
/// # Safety
/// `text` is null or ends with a zero.
pub(super) unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// A text for librdkafka.
pub(super) fn given(text: &str) -> Result<CString, Objection> {
    CString::new(text).map_err(|_| Objection::ours(format!("'{}' has a zero byte", text.escape_default())))
}

fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}
