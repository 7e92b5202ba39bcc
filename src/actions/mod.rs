//! What happens to events outside the platform: deliveries of WebhookActions.

pub mod signature;
