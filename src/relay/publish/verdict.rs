//! What the outcome of a publication means: pure.

use std::collections::{BTreeMap, BTreeSet};

use super::standing::TOGETHER;
use crate::bus::kafka::Delivery;

/// A message, and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Sent<'a> {
    /// Its row in the page.
    pub row: usize,
    pub topic: &'a str,
    /// Of key and value.
    pub bytes: usize,
    /// How much the topic's own producer puts together; none: it shares one with others.
    pub together: Option<usize>,
    pub delivery: Delivery,
}

/// Why a topic is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub cause: String,
    /// The broker said so, rather than nothing: it counts as an attempt at the event.
    pub refused: bool,
    /// The first row of the topic that waits.
    pub row: usize,
}

/// What is to be done after a round. Rows are numbers in the page.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub confirmed: Vec<usize>,
    /// Events that can never be published, with the cause: for the dead letters.
    pub letters: Vec<(usize, String)>,
    /// Topics for which less is to be put together.
    pub shrink: BTreeSet<String>,
    /// Topics that are not written while others may be.
    pub failed: BTreeMap<String, Failure>,
    /// Nothing says that it is one topic's fault.
    pub outage: Option<String>,
}

impl Verdict {
    /// Judges what was sent.
    pub fn of(sent: &[Sent<'_>]) -> Self {
        let mut verdict = Self::default();
        let mut late: BTreeMap<&str, (&Sent<'_>, &str)> = BTreeMap::new();
        let mut refusing = BTreeSet::new();
        for message in sent {
            match &message.delivery {
                Delivery::Confirmed => verdict.confirmed.push(message.row),
                Delivery::TooLarge(cause) => {
                    refusing.insert(producer(message));
                    verdict.too_large(message, cause);
                }
                Delivery::Refused(cause) => {
                    refusing.insert(producer(message));
                    let failure = Failure { cause: cause.clone(), refused: true, row: message.row };
                    verdict.failed.entry(message.topic.to_owned()).or_insert(failure);
                }
                Delivery::Unconfirmed(cause) => drop(late.entry(message.topic).or_insert((message, cause))),
            }
        }
        // A refusal ends its producer: what is late with it is nobody's fault.
        late.retain(|_, (message, _)| !refusing.contains(&producer(message)));
        verdict.blame(sent, &late);
        verdict
    }

    /// A message that is larger than what is put together travels alone: its refusal means no other.
    fn too_large(&mut self, message: &Sent<'_>, cause: &str) {
        if message.bytes >= message.together.unwrap_or(TOGETHER) {
            let cause = format!("the broker refused it ({} bytes): {cause}", message.bytes);
            self.letters.push((message.row, cause));
        } else {
            self.shrink.insert(message.topic.to_owned());
        }
    }

    /// What is late is the fault of its topic where the broker answered for others, else an outage. A topic of which
    /// something was written is only slow.
    fn blame(&mut self, sent: &[Sent<'_>], late: &BTreeMap<&str, (&Sent<'_>, &str)>) {
        let written: BTreeSet<&str> =
            sent.iter().filter(|m| m.delivery == Delivery::Confirmed).map(|message| message.topic).collect();
        let answers = sent.iter().any(|message| !matches!(message.delivery, Delivery::Unconfirmed(_)));
        for (topic, (message, cause)) in late.iter().filter(|(topic, _)| !written.contains(*topic)) {
            let cause = (*cause).to_owned();
            if answers {
                let failure = Failure { cause, refused: false, row: message.row };
                self.failed.entry((*topic).to_owned()).or_insert(failure);
            } else {
                self.outage = Some(cause);
            }
        }
    }
}

/// Whose producer a message went through: its topic's own, or the shared one.
fn producer<'a>(message: &Sent<'a>) -> Option<&'a str> {
    message.together.map(|_| message.topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(row: usize, topic: &str, delivery: Delivery) -> Sent<'_> {
        Sent { row, topic, bytes: 10, together: None, delivery }
    }

    fn late() -> Delivery {
        Delivery::Unconfirmed("late".to_owned())
    }

    fn too_large() -> Delivery {
        Delivery::TooLarge("too large".to_owned())
    }

    fn refused() -> Delivery {
        Delivery::Refused("no right".to_owned())
    }

    #[test]
    fn what_is_late_everywhere_is_an_outage_and_no_topics_fault() {
        let verdict = Verdict::of(&[sent(0, "a", late()), sent(1, "b", late())]);
        assert!(verdict.failed.is_empty() && verdict.outage.as_deref() == Some("late"));
    }

    #[test]
    fn what_is_late_beside_a_topic_that_is_written_is_its_own_topics_fault() {
        let verdict = Verdict::of(&[sent(0, "b", Delivery::Confirmed), sent(1, "a", late()), sent(2, "a", late())]);
        assert_eq!(verdict.failed["a"], Failure { cause: "late".to_owned(), refused: false, row: 1 });
        assert_eq!((verdict.outage, verdict.confirmed), (None, vec![0]));
    }

    #[test]
    fn a_topic_of_which_something_was_written_is_only_slow() {
        let verdict = Verdict::of(&[sent(0, "a", Delivery::Confirmed), sent(1, "a", late())]);
        assert!(verdict.failed.is_empty() && verdict.outage.is_none());
    }

    #[test]
    fn a_refusal_ends_the_producer_and_what_is_late_with_it_is_nobodys_fault() {
        let own = Sent { together: Some(TOGETHER), ..sent(2, "c", late()) };
        let verdict =
            Verdict::of(&[sent(0, "a", refused()), sent(1, "b", late()), sent(3, "d", Delivery::Confirmed), own]);
        assert_eq!(verdict.failed.keys().collect::<Vec<_>>(), ["a", "c"], "c has a producer of its own");
        assert_eq!(verdict.outage, None);
    }

    #[test]
    fn only_what_travelled_alone_is_given_up_as_too_large() {
        let verdict = Verdict::of(&[sent(0, "a", too_large()), sent(1, "a", late())]);
        assert!(verdict.letters.is_empty() && verdict.shrink.contains("a") && verdict.outage.is_none());
        let alone = Sent { together: Some(10), ..sent(0, "a", too_large()) };
        let verdict = Verdict::of(&[alone]);
        assert!(verdict.letters.len() == 1 && verdict.shrink.is_empty() && verdict.failed.is_empty());
    }
}
