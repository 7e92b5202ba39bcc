//! Whatever topics do, each gets the events of a shard in the order of their positions, and all of them in the end.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tokio::time::Instant;

use super::reach::{Fate, Reach};
use super::standing::Standings;
use super::verdict::{Sent, Verdict};
use crate::bus::kafka::Delivery;

const TOPICS: [&str; 3] = ["a", "b", "c"];

/// What a topic does in a round: takes so many messages, and then answers otherwise.
#[derive(Clone, Debug)]
struct Mood {
    takes: usize,
    then: Delivery,
}

fn mood() -> impl Strategy<Value = Mood> {
    let then = prop_oneof![
        3 => Just(Delivery::Confirmed),
        1 => Just(Delivery::Refused("no".to_owned())),
        1 => Just(Delivery::TooLarge("large".to_owned())),
        1 => Just(Delivery::Unconfirmed("late".to_owned())),
    ];
    (0_usize..4, then).prop_map(|(takes, then)| Mood { takes, then })
}

/// Rows that wait, by shard and position, and what each topic has got.
#[derive(Default)]
struct World {
    outbox: BTreeMap<(i16, i64), &'static str>,
    published: BTreeMap<(&'static str, i16), Vec<i64>>,
    letters: usize,
}

impl World {
    /// A round as the publisher does it, with the real decisions.
    fn round(&mut self, reach: &mut Reach, standings: &mut Standings, moods: &[Mood], limit: usize, now: Instant) {
        let mut page = Vec::new();
        for shard in 0..2_i16 {
            let floor = reach.floors()[usize::from(shard.unsigned_abs())];
            page.extend(self.outbox.range((shard, floor + 1)..(shard + 1, 0)).take(limit).map(|(at, t)| (*at, *t)));
        }
        let mut taken = BTreeMap::new();
        let open = page.iter().enumerate().filter(|(_, (_, topic))| !standings.waits(topic));
        let sent: Vec<Sent<'_>> = open
            .map(|(row, (_, topic))| {
                let mood = &moods[TOPICS.iter().position(|t| t == topic).unwrap_or(0)];
                let count = taken.entry(*topic).or_insert(0);
                *count += 1;
                let delivery = if *count <= mood.takes { Delivery::Confirmed } else { mood.then.clone() };
                Sent { row, topic, bytes: 10, together: standings.together(topic), delivery }
            })
            .collect();
        let verdict = Verdict::of(&sent);
        verdict.shrink.iter().for_each(|topic| standings.shrink(topic, now));
        for (topic, failure) in &verdict.failed {
            standings.failed(topic, page[failure.row].0, now);
        }
        let mut gone: BTreeSet<usize> = verdict.letters.iter().map(|(row, _)| *row).collect();
        self.letters += gone.len();
        for row in &verdict.confirmed {
            let ((shard, position), topic) = page[*row];
            self.published.entry((topic, shard)).or_default().push(position);
            gone.insert(*row);
        }
        self.outbox.retain(|at, _| !gone.iter().any(|row| page[*row].0 == *at));
        reach.advance(page.iter().enumerate().map(|(row, ((shard, position), topic))| {
            let fate = match (gone.contains(&row), standings.waits(topic)) {
                (true, _) => Fate::Gone,
                (_, true) => Fate::Waits,
                _ => Fate::Stays,
            };
            (*shard, *position, fate)
        }));
    }
}

proptest! {
    #[test]
    fn each_topic_gets_a_shards_events_in_order_and_all_of_them(
        rows in proptest::collection::vec((0_i16..2, 0_usize..3), 1..40),
        rounds in proptest::collection::vec((proptest::collection::vec(mood(), 3), 0_usize..4), 0..30),
        limit in 1_usize..6,
    ) {
        let mut world = World::default();
        for (at, (shard, topic)) in (1_i64..).zip(&rows) {
            world.outbox.insert((*shard, at), TOPICS[*topic]);
        }
        let (mut reach, mut standings, now) = (Reach::new(), Standings::default(), Instant::now());
        let healthy = vec![Mood { takes: usize::MAX, then: Delivery::Confirmed }; 3];
        for (moods, back) in &rounds {
            if let Some(topic) = TOPICS.get(*back) {
                standings.back(topic);
                reach.forget();
            }
            world.round(&mut reach, &mut standings, moods, limit, now);
        }
        standings.all_back();
        reach.forget();
        for _ in 0..=rows.len() {
            world.round(&mut reach, &mut standings, &healthy, limit, now);
        }
        prop_assert!(world.outbox.is_empty(), "left: {:?}", world.outbox);
        let published: usize = world.published.values().map(Vec::len).sum();
        prop_assert_eq!(published + world.letters, rows.len());
        for positions in world.published.values() {
            prop_assert!(positions.is_sorted_by(|a, b| a < b), "{:?}", world.published);
        }
    }
}
