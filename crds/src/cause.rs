//! How an error is told where it is handled: once, with its causes.
//!
//! An error's own text does not repeat its source (an error that adds nothing to it is `transparent`), so that the chain
//! says everything once. Libraries are less strict: a cause whose words were said already is left out.

use std::error::Error;
use std::fmt;

/// Shows an error and then each cause, separated by colons.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        let mut next = self.0.source();
        while let Some(cause) = next {
            let words = cause.to_string();
            if !said.contains(&words) {
                said.push_str(": ");
                said.push_str(&words);
            }
            next = cause.source();
        }
        f.write_str(&said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Told(&'static str, Option<Box<Self>>);

    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Told {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &dyn Error)
        }
    }

    #[test]
    fn every_cause_is_told_once_also_those_that_repeat_their_own() {
        let refused = || Told("connection refused", None);
        let library = Told("io: connection refused", Some(Box::new(refused())));
        assert_eq!(Chain(&library).to_string(), "io: connection refused");
        let ours = Told("cannot connect", Some(Box::new(library)));
        assert_eq!(Chain(&ours).to_string(), "cannot connect: io: connection refused");
        assert_eq!(Chain(&refused()).to_string(), "connection refused");
    }
}
