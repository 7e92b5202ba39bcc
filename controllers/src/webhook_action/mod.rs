//! Webhook actions: the endpoint and the expressions are checked, the Secrets resolved, and all that a delivery needs is
//! registered. Values of Secrets go another way: sealed, into a table of their own ([`vault`]).

mod endpoint;
pub mod resolve;
pub mod secrets;
pub mod status;
pub mod vault;
