//! What is to be done about one object. Pure: the object, the newest report and the time go in.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::kinds::Seen;
use crate::look::Report;
use crate::source::cluster::Mark;

/// Keeps an object until what belongs to it is deleted; only there where `spec.deletionPolicy` is `Delete`.
pub const FINALIZER: &str = "cornjacket.io/cleanup";
/// A deletion that cannot finish lets go after this time, and says so.
pub const GIVE_UP: Duration = Duration::from_secs(45);
/// Who takes over a deletion that another has tried for long tries it at least for this long, and so does who has another
/// clock than the API server.
const LEAST: Duration = Duration::from_secs(8);

/// One thing to do; the object is looked at again after it.
#[derive(Clone, Debug, PartialEq)]
pub enum Todo {
    Nothing,
    AddFinalizer,
    RemoveFinalizer,
    /// Delete what belongs to the object.
    CleanUp,
    /// What belongs to it could not be deleted in time: let go, and say so.
    Abandon,
    WriteStatus(Value),
}

impl Todo {
    /// Whether something is written to the API server.
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Nothing | Self::CleanUp)
    }
}

/// What is known about an object beside itself.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The newest report about it.
    pub report: Option<&'a Report>,
    /// Which object the report is about.
    pub mark: Option<&'a Mark>,
    /// When the set of resources was read that the reports are about.
    pub read_at: Option<Instant>,
    /// When it was first seen here to be deleted.
    pub deleting_since: Option<Instant>,
    /// How long ago that was asked for, as the clocks have it.
    pub deleting_for: Duration,
    /// Whether what belongs to it has been deleted.
    pub cleaned_up: bool,
    pub now: Instant,
}

/// What is to be done next.
pub fn next(seen: &Seen, known: Known<'_>) -> Todo {
    let held = seen.is_held();
    if seen.deleting {
        return if held { deleting(seen, known) } else { Todo::Nothing };
    }
    // What an object that cannot be read asks for is not known.
    match (held, seen.deletes()) {
        (false, true) => return Todo::AddFinalizer,
        (true, false) if seen.resource.is_ok() => return Todo::RemoveFinalizer,
        _ => {}
    }
    match (known.report, known.mark) {
        // A report about an older generation, or about another object that had the name, is about to be replaced.
        (Some(report), Some(mark)) if report.generation == seen.generation && mark.uid == seen.uid => {
            let wanted = status(report, mark);
            if seen.status.as_ref() == Some(&wanted) { Todo::Nothing } else { Todo::WriteStatus(wanted) }
        }
        _ => Todo::Nothing,
    }
}

fn deleting(seen: &Seen, known: Known<'_>) -> Todo {
    if seen.resource.is_err() {
        return Todo::Abandon;
    }
    if known.cleaned_up || !seen.deletes() {
        return Todo::RemoveFinalizer;
    }
    let since = known.deleting_since.unwrap_or(known.now);
    let tried = known.now.saturating_duration_since(since);
    if tried >= GIVE_UP || (tried >= LEAST && known.deleting_for >= GIVE_UP) {
        return Todo::Abandon;
    }
    // Only once a look has taken place without it: before, what is deleted could be made anew.
    let unregistered = known.report.is_none() && known.read_at.is_some_and(|read| read > since);
    if unregistered { Todo::CleanUp } else { Todo::Nothing }
}

/// The report's status, and the wish that it answers.
fn status(report: &Report, mark: &Mark) -> Value {
    let mut status = report.status.clone();
    if let (Some(fields), Some(at)) = (status.as_object_mut(), &mark.requested_at) {
        fields.insert("lastHandledReconcileAt".to_owned(), Value::String(at.clone()));
    }
    status
}

#[cfg(test)]
mod tests {
    use crds::registration::Kind;
    use crds::shared::{DeletionPolicy, Reconciliation};
    use serde_json::json;

    use super::*;
    use crate::resource::Resource;
    use crate::testing::key;

    fn seen(deletes: bool) -> Seen {
        let mut topic = crds::Topic::new("a", crds::topic::TopicSpec::default());
        topic.spec.deletion_policy = deletes.then_some(DeletionPolicy::Delete);
        Seen {
            key: key(Kind::Topic, "a"),
            uid: String::new(),
            resource_version: Some("7".into()),
            generation: 3,
            created: None,
            deleting: false,
            deleted_at: None,
            finalizers: Vec::new(),
            requested_at: None,
            status: None,
            resource: Ok(Resource::Topic(Box::new(topic))),
        }
    }

    fn report(generation: i64) -> Report {
        let status = json!({"observedGeneration": generation});
        Report { key: key(Kind::Topic, "a"), generation, origin: "here".into(), status }
    }

    static MARK: Mark = Mark { uid: String::new(), requested_at: None };

    fn known(report: Option<&Report>) -> Known<'_> {
        let (now, deleting_for) = (Instant::now(), Duration::ZERO);
        Known { report, mark: Some(&MARK), read_at: None, deleting_since: None, deleting_for, cleaned_up: false, now }
    }

    fn held(seen: Seen) -> Seen {
        Seen { finalizers: vec!["other/one".into(), FINALIZER.into()], ..seen }
    }

    #[test]
    fn a_status_is_written_once_and_only_for_the_generation_that_it_is_about() {
        let (current, old) = (report(3), report(2));
        assert_eq!(next(&seen(false), known(None)), Todo::Nothing);
        assert_eq!(next(&seen(false), known(Some(&old))), Todo::Nothing);
        assert_eq!(next(&seen(false), known(Some(&current))), Todo::WriteStatus(current.status.clone()));
        let written = Seen { status: Some(current.status.clone()), ..seen(false) };
        assert_eq!(next(&written, known(Some(&current))), Todo::Nothing);
    }

    #[test]
    fn a_wish_for_a_look_is_answered_in_the_status() {
        let current = report(3);
        let asked = Seen { status: Some(current.status.clone()), requested_at: Some("noon".into()), ..seen(false) };
        assert_eq!(next(&asked, known(Some(&current))), Todo::Nothing, "no look yet");
        let mark = Mark { requested_at: Some("noon".into()), ..Mark::default() };
        let looked = Known { mark: Some(&mark), ..known(Some(&current)) };
        let answered = json!({"observedGeneration": 3, "lastHandledReconcileAt": "noon"});
        assert_eq!(next(&asked, looked), Todo::WriteStatus(answered.clone()));
        let answered = Seen { status: Some(answered), ..asked };
        assert_eq!(next(&answered, looked), Todo::Nothing);
    }

    #[test]
    fn an_object_made_anew_under_the_name_is_another() {
        let current = report(3);
        let anew = Seen { uid: "another".into(), ..seen(false) };
        assert_eq!(next(&anew, known(Some(&current))), Todo::Nothing);
        let mark = Mark { uid: "another".into(), ..Mark::default() };
        let looked = Known { mark: Some(&mark), ..known(Some(&current)) };
        assert_eq!(next(&anew, looked), Todo::WriteStatus(current.status.clone()));
    }

    #[test]
    fn the_finalizer_is_there_where_deleting_deletes_and_nowhere_else() {
        assert_eq!(next(&seen(true), known(None)), Todo::AddFinalizer);
        assert_eq!(next(&held(seen(false)), known(None)), Todo::RemoveFinalizer);
        assert_eq!(next(&held(seen(true)), known(None)), Todo::Nothing);
        let mut paused = seen(true);
        if let Ok(Resource::Topic(topic)) = &mut paused.resource {
            topic.spec.reconciliation = Some(Reconciliation::Paused);
        }
        assert_eq!(next(&held(paused), known(None)), Todo::RemoveFinalizer, "what is paused is left alone");
        let retained = Seen { deleting: true, ..seen(false) };
        assert_eq!(next(&retained, known(None)), Todo::Nothing);
        assert_eq!(next(&held(retained), known(None)), Todo::RemoveFinalizer);
    }

    #[test]
    fn what_belongs_to_an_object_is_deleted_after_a_look_without_it() {
        let going = Seen { deleting: true, ..held(seen(true)) };
        let (since, current) = (Instant::now(), report(3));
        let later = since + Duration::from_secs(1);
        let known = Known { deleting_since: Some(since), now: later, ..known(None) };
        assert_eq!(next(&going, known), Todo::Nothing, "no look yet");
        assert_eq!(next(&going, Known { read_at: Some(since), ..known }), Todo::Nothing, "an old look");
        assert_eq!(next(&going, Known { read_at: Some(later), report: Some(&current), ..known }), Todo::Nothing);
        assert_eq!(next(&going, Known { read_at: Some(later), ..known }), Todo::CleanUp);
        assert_eq!(next(&going, Known { cleaned_up: true, ..known }), Todo::RemoveFinalizer);
        assert_eq!(next(&going, Known { now: since + GIVE_UP, ..known }), Todo::Abandon);
        let taken_over = Known { deleting_for: GIVE_UP, ..known };
        assert_eq!(next(&going, taken_over), Todo::Nothing, "it is tried here too");
        assert_eq!(next(&going, Known { now: since + LEAST, ..taken_over }), Todo::Abandon);
    }

    #[test]
    fn of_an_object_that_cannot_be_read_it_is_not_known_what_it_asks_for() {
        let unreadable = |seen| Seen { resource: Err("no topic".into()), ..seen };
        assert_eq!(next(&unreadable(held(seen(true))), known(None)), Todo::Nothing, "it may be mended");
        let going = Seen { deleting: true, ..held(seen(true)) };
        assert_eq!(next(&unreadable(going), known(None)), Todo::Abandon, "and this is said");
    }
}
