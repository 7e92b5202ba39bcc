//! Which indexes on fields of the state are to be built and dropped: pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::registration::sha256;

/// Begins the name of every index that is ours; what is named otherwise is left alone.
pub(super) const PREFIX: &str = "projections_state_";

/// An index that a projection declares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Declared {
    pub projection_type: String,
    /// Field at the top of the state.
    pub field: String,
}

impl Declared {
    /// The same for the same projection type and field, in every process and release.
    pub fn name(&self) -> String {
        let digest = sha256(&format!("{}\0{}", self.projection_type, self.field));
        format!("{PREFIX}{}", &digest[..16])
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// No longer declared, or left half-built.
    Drop(String),
    Build(Declared),
}

/// From the indexes declared and those that exist (by name; false: invalid, what a build that ended half-way leaves) to
/// steps: everything that goes, then everything that comes.
pub(super) fn plan(declared: &BTreeSet<Declared>, existing: &BTreeMap<String, bool>) -> Vec<Step> {
    let wanted: BTreeMap<String, &Declared> = declared.iter().map(|index| (index.name(), index)).collect();
    let goes = existing.iter().filter(|(name, valid)| !(**valid && wanted.contains_key(*name)));
    let comes = wanted.iter().filter(|(name, _)| existing.get(*name) != Some(&true));
    goes.map(|(name, _)| Step::Drop(name.clone()))
        .chain(comes.map(|(_, index)| Step::Build((*index).clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(projection_type: &str, field: &str) -> Declared {
        Declared { projection_type: projection_type.to_owned(), field: field.to_owned() }
    }

    #[test]
    fn names_are_short_and_tell_types_and_fields_apart() {
        let name = index("sensor_state", "value").name();
        assert_eq!(name, index("sensor_state", "value").name());
        assert!(name.starts_with(PREFIX) && name.len() <= 63, "{name}");
        assert_ne!(index("a", "bc").name(), index("ab", "c").name());
    }

    #[test]
    fn what_is_missing_is_built_and_what_is_no_longer_declared_is_dropped() {
        let (kept, new, half) = (index("p", "kept"), index("p", "new"), index("p", "half"));
        let declared = BTreeSet::from([kept.clone(), new.clone(), half.clone()]);
        let gone = index("p", "gone").name();
        let existing = BTreeMap::from([(kept.name(), true), (half.name(), false), (gone.clone(), true)]);
        let steps = plan(&declared, &existing);
        let (drops, builds) = steps.split_at(2);
        assert!(drops.contains(&Step::Drop(gone)) && drops.contains(&Step::Drop(half.name())), "{drops:?}");
        assert!(builds.contains(&Step::Build(new)) && builds.contains(&Step::Build(half)), "{builds:?}");
        assert_eq!(builds.len(), 2);
    }

    #[test]
    fn nothing_is_done_twice() {
        let declared = BTreeSet::from([index("p", "a"), index("q", "a")]);
        let existing = declared.iter().map(|index| (index.name(), true)).collect();
        assert_eq!(plan(&declared, &existing), []);
        assert_eq!(plan(&BTreeSet::new(), &BTreeMap::new()), []);
    }
}
