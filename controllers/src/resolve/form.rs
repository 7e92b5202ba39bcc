//! A compiled form and its hash, shared by everything that a look hands on.

use std::ops::Deref;
use std::sync::Arc;

use crds::registration::Compiled;

/// Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Form(Arc<(Compiled, String)>);

impl Form {
    /// As [`Compiled::hash`], reckoned once.
    pub fn digest(&self) -> &str {
        &self.0.1
    }
}

impl From<Compiled> for Form {
    fn from(spec: Compiled) -> Self {
        let hash = spec.hash();
        Self(Arc::new((spec, hash)))
    }
}

impl Deref for Form {
    type Target = Compiled;

    fn deref(&self) -> &Compiled {
        &self.0.0
    }
}
