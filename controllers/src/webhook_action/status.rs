//! What a WebhookAction's status says of its endpoint, and the document. Pure.

use crds::condition::{ConditionType, Finding, Status};
use crds::reason::Reason;
use crds::shared::{Conditions, DataPlaneStatus};
use crds::webhook_action::WebhookActionStatus;
use serde_json::Value;

/// What deliveries showed of an endpoint, as who makes them keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Why nothing is delivered to it; `None` where it is enabled.
    pub disabled: Option<String>,
    /// Its own answer disabled it (410), and no operator.
    pub gone: bool,
    /// Whether it takes deliveries; `None` before the first attempt.
    pub healthy: Option<bool>,
    /// Why it does not.
    pub message: Option<String>,
}

/// Whether the endpoint of an action takes deliveries.
pub fn finding(action: &str, endpoint: Option<&Endpoint>) -> Finding {
    let finding =
        |status, reason, message: String| Finding::new(ConditionType::EndpointHealthy, status, reason, message);
    let untried = Endpoint::default();
    let endpoint = endpoint.unwrap_or(&untried);
    if let Some(why) = &endpoint.disabled {
        let (reason, who) =
            if endpoint.gone { (Reason::EndpointGone, "") } else { (Reason::EndpointDisabled, "disabled: ") };
        let message = format!("{who}{why}; deliveries wait until `cornjacket action enable {action}`");
        return finding(Status::False, reason, message);
    }
    match endpoint.healthy {
        Some(true) => finding(Status::True, Reason::EndpointAnswers, "the endpoint takes deliveries".to_owned()),
        Some(false) => {
            let why = endpoint.message.as_deref().unwrap_or("too many failures in a row");
            finding(Status::False, Reason::CircuitOpen, format!("{why}; deliveries wait meanwhile"))
        }
        None => {
            let why = endpoint.message.as_ref().map_or_else(String::new, |why| format!("; {why}"));
            finding(Status::Unknown, Reason::NotTried, format!("nothing was delivered to it yet{why}"))
        }
    }
}

/// The document.
pub fn document(
    generation: i64,
    conditions: Conditions,
    data_plane: Option<DataPlaneStatus>,
) -> serde_json::Result<Value> {
    serde_json::to_value(WebhookActionStatus {
        observed_generation: Some(generation),
        conditions,
        data_plane,
        ..WebhookActionStatus::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(endpoint: &Endpoint) -> (Status, Reason, String) {
        let finding = finding("tell", Some(endpoint));
        assert_eq!(finding.condition, ConditionType::EndpointHealthy);
        (finding.status, finding.reason, finding.message)
    }

    fn is(endpoint: &Endpoint, status: Status, reason: Reason) -> String {
        let (is, why, message) = said(endpoint);
        assert_eq!((is, why), (status, reason), "{message}");
        message
    }

    #[test]
    fn nobody_knows_how_an_endpoint_does_that_was_never_tried() {
        is(&Endpoint::default(), Status::Unknown, Reason::NotTried);
        let failing = Endpoint { message: Some("the last attempt failed: answered 401".into()), ..Endpoint::default() };
        let message = is(&failing, Status::Unknown, Reason::NotTried);
        assert_eq!(message, "nothing was delivered to it yet; the last attempt failed: answered 401");
        assert_eq!(finding("tell", None), finding("tell", Some(&Endpoint::default())));
    }

    #[test]
    fn what_the_last_attempts_showed_is_said() {
        let healthy = |healthy| Endpoint { healthy: Some(healthy), ..Endpoint::default() };
        is(&healthy(true), Status::True, Reason::EndpointAnswers);
        let open = Endpoint { message: Some("one attempt is made every 300 s: answered 500".into()), ..healthy(false) };
        let message = is(&open, Status::False, Reason::CircuitOpen);
        assert_eq!(message, "one attempt is made every 300 s: answered 500; deliveries wait meanwhile");
        assert!(is(&healthy(false), Status::False, Reason::CircuitOpen).starts_with("too many failures"));
    }

    #[test]
    fn an_endpoint_that_is_switched_off_is_unhealthy_whatever_was_before_and_the_way_out_is_named() {
        for healthy in [None, Some(true), Some(false)] {
            let disabled = |why: &str| Endpoint {
                disabled: Some(why.into()),
                healthy,
                message: Some("before".into()),
                ..Endpoint::default()
            };
            let gone = disabled("the endpoint answered 410 Gone: it wants no more deliveries");
            let message = is(&Endpoint { gone: true, ..gone }, Status::False, Reason::EndpointGone);
            assert!(message.starts_with("the endpoint answered 410 Gone"), "{message}");
            let message = is(&disabled("maintenance"), Status::False, Reason::EndpointDisabled);
            assert_eq!(message, "disabled: maintenance; deliveries wait until `cornjacket action enable tell`");
        }
    }
}
