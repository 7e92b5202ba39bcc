//! What is subscribed and what ought to be. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Something to ask the broker for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Subscribe(String),
    Unsubscribe(String),
}

/// The subscriptions of one session.
#[derive(Debug, Default)]
pub struct Subscriptions {
    wanted: BTreeSet<String>,
    /// Asked for and not refused, as far as this process knows.
    held: BTreeSet<String>,
    /// Not answered yet, the oldest first.
    asked: VecDeque<String>,
    /// With what the broker said.
    refused: BTreeMap<String, String>,
}

impl Subscriptions {
    /// What the filters ought to be from now on.
    pub fn want(&mut self, filters: BTreeSet<String>) {
        self.wanted = filters;
    }

    /// A connection was made: everything is asked for anew, which changes nothing where the broker has it already.
    pub fn connected(&mut self) {
        self.held.clear();
        self.asked.clear();
        self.refused.clear();
    }

    /// Refused ones are asked for once more.
    pub fn try_refused_again(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        self.held.retain(|filter| !refused.contains_key(filter));
    }

    /// What is missing, and what is too much.
    pub fn outstanding(&self) -> Vec<Ask> {
        let missing =
            self.wanted.iter().filter(|filter| !self.held.contains(*filter) && !self.refused.contains_key(*filter));
        let surplus = self.held.iter().filter(|filter| !self.wanted.contains(*filter));
        missing.cloned().map(Ask::Subscribe).chain(surplus.cloned().map(Ask::Unsubscribe)).collect()
    }

    /// It was asked for.
    pub fn asked(&mut self, ask: &Ask) {
        match ask {
            Ask::Subscribe(filter) => {
                self.held.insert(filter.clone());
                self.asked.push_back(filter.clone());
            }
            Ask::Unsubscribe(filter) => {
                self.held.remove(filter);
            }
        }
    }

    /// The broker answered the oldest question; gives the filter.
    pub fn answered(&mut self, answer: &Result<(), String>) -> Option<String> {
        let filter = self.asked.pop_front()?;
        if let Err(why) = answer {
            self.held.remove(&filter);
            self.refused.insert(filter.clone(), why.clone());
        }
        Some(filter)
    }

    /// How many the broker has granted, and how many it refused.
    pub fn count(&self) -> (usize, usize) {
        (self.held.len() - self.asked.iter().filter(|filter| self.held.contains(*filter)).count(), self.refused.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn ask(subscriptions: &mut Subscriptions) -> Vec<Ask> {
        let outstanding = subscriptions.outstanding();
        for one in &outstanding {
            subscriptions.asked(one);
        }
        outstanding
    }

    #[test]
    fn only_differences_are_asked_for_and_all_of_it_after_a_new_connection() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.want(filters(&["a", "b"]));
        assert_eq!(ask(&mut subscriptions), [Ask::Subscribe("a".into()), Ask::Subscribe("b".into())]);
        assert_eq!(subscriptions.count(), (0, 0));
        assert_eq!(subscriptions.answered(&Ok(())).as_deref(), Some("a"));
        assert_eq!(subscriptions.answered(&Err("NotAuthorized".into())).as_deref(), Some("b"));
        assert_eq!(subscriptions.count(), (1, 1));
        assert_eq!(ask(&mut subscriptions), [], "a refusal is not repeated at once");
        subscriptions.want(filters(&["b", "c"]));
        assert_eq!(ask(&mut subscriptions), [Ask::Subscribe("c".into()), Ask::Unsubscribe("a".into())]);
        subscriptions.try_refused_again();
        assert_eq!(ask(&mut subscriptions), [Ask::Subscribe("b".into())]);
        subscriptions.connected();
        assert_eq!(ask(&mut subscriptions), [Ask::Subscribe("b".into()), Ask::Subscribe("c".into())]);
    }
}
