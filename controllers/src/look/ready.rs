//! What is said of a resource: `Ready` in the log, and what people are told of. Pure, but for the log.

use crds::condition::ConditionType;
use crds::reason::Reason;
use crds::registration::ResourceKey;
use serde_json::Value;
use tracing::{debug, info, warn};

/// A condition as a status has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// `True`, `False`, `Unknown`, or empty where it is not there: before the first look.
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Said {
    pub fn ready(status: &Value) -> Self {
        Self::of(ConditionType::Ready, status)
    }

    fn of(condition: ConditionType, status: &Value) -> Self {
        let conditions = status.get("conditions").and_then(|list| list.as_array());
        let found = conditions.into_iter().flatten().find(|c| c["type"] == condition.as_str());
        let text = |field: &str| found.and_then(|c| c[field].as_str()).unwrap_or_default().to_owned();
        Self { status: text("status"), reason: text("reason"), message: text("message") }
    }

    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    fn is_false(&self) -> bool {
        self.status == "False"
    }

    /// Whether it is another than before; a message alone is no news.
    fn differs(&self, before: &Self) -> bool {
        (&self.status, &self.reason) != (&before.status, &before.reason)
    }

    /// On the way, which takes a moment: no news.
    pub fn is_on_the_way(&self) -> bool {
        [Reason::AwaitingInstances, Reason::Progressing, Reason::Pending].iter().any(|r| r.as_str() == self.reason)
    }
}

/// One log line a transition of `Ready`. `origin` is where the resource is declared, for people.
pub fn announce(key: &ResourceKey, origin: &str, status: &Value, before: Option<&Value>) {
    let (was, is) = (before.map(Said::ready), Said::ready(status));
    if was.as_ref() == Some(&is) {
        return;
    }
    if is.is_true() {
        info!(resource = %key, "ready: {}", is.message);
    } else if is.is_on_the_way() {
        debug!(resource = %key, reason = is.reason, origin, "not ready yet: {}", is.message);
    } else {
        warn!(resource = %key, reason = is.reason, origin, "not ready: {}", is.message);
    }
}

/// The transitions that people are told of: of `Ready` each but those on the way, and when an endpoint stops taking deliveries
/// and takes them again.
pub fn news(status: &Value, before: Option<&Value>) -> Vec<Said> {
    let both =
        |condition| (before.map(|was| Said::of(condition, was)).unwrap_or_default(), Said::of(condition, status));
    let (was, is) = both(ConditionType::Ready);
    let ready = (is.differs(&was) && !is.is_on_the_way()).then_some(is);
    let (was, is) = both(ConditionType::EndpointHealthy);
    let endpoint = (is.differs(&was) && (is.is_false() || is.is_true() && was.is_false())).then_some(is);
    ready.into_iter().chain(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(ready: &str, endpoint: &str) -> Value {
        let condition = |name: &str, said: &str| {
            let (status, reason) = said.split_once('/').expect("both");
            json!({"type": name, "status": status, "reason": reason, "message": "m"})
        };
        json!({"conditions": [condition("Ready", ready), condition("EndpointHealthy", endpoint)]})
    }

    fn told(before: Option<(&str, &str)>, now: (&str, &str)) -> Vec<String> {
        let before = before.map(|(ready, endpoint)| status(ready, endpoint));
        news(&status(now.0, now.1), before.as_ref()).into_iter().map(|said| said.reason).collect()
    }

    const READY: &str = "True/Available";
    const UNTRIED: &str = "Unknown/NotTried";
    const WELL: &str = "True/EndpointAnswers";
    const OPEN: &str = "False/CircuitOpen";

    #[test]
    fn ready_is_news_once_and_not_on_its_way() {
        assert_eq!(told(None, ("False/AwaitingInstances", UNTRIED)), [""; 0]);
        assert_eq!(told(Some(("False/AwaitingInstances", UNTRIED)), (READY, UNTRIED)), ["Available"]);
        assert_eq!(told(Some((READY, UNTRIED)), (READY, UNTRIED)), [""; 0]);
    }

    #[test]
    fn an_endpoint_is_news_when_it_stops_and_when_it_is_back() {
        let told = |before, now| told(Some((READY, before)), (READY, now));
        assert_eq!(told(UNTRIED, WELL), [""; 0], "nobody thought otherwise");
        assert_eq!(told(WELL, OPEN), ["CircuitOpen"]);
        assert_eq!(told(OPEN, OPEN), [""; 0]);
        assert_eq!(told(OPEN, "False/EndpointGone"), ["EndpointGone"]);
        assert_eq!(told("False/EndpointGone", UNTRIED), [""; 0], "it is to be tried");
        assert_eq!(told(OPEN, WELL), ["EndpointAnswers"]);
    }
}
