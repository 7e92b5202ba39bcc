//! `anyOf`, `oneOf`, `not` and `if`: what is written has been taken apart, so that one alternative must accept it all.

use super::document::Sub;
use super::walk::{Comparison, is_kept};
use super::written::Written;

impl Comparison {
    pub(super) fn combinations<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let open = |keyword: &str| reader.get(keyword).is_some() && !is_kept(keyword, reader, written);
        if open("anyOf") {
            self.any_of(reader, written);
        }
        if open("oneOf") {
            self.one_of(reader, written);
        }
        if open("if") {
            self.conditional(reader, written);
        }
        if let Some(refused) = reader.child("not").filter(|_| open("not"))
            && !self.excludes(written, &refused)
        {
            self.undecided(reader, "not", written);
        }
    }

    fn any_of<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let choices = reader.list("anyOf");
        if !choices.iter().any(|choice| self.holds(|trial| trial.accepts(choice, written))) {
            self.none_accepts(reader, "anyOf", &choices, written);
        }
    }

    fn one_of<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let choices = reader.list("oneOf");
        let fitting: Vec<usize> = choices
            .iter()
            .enumerate()
            .filter(|(_, choice)| self.holds(|trial| trial.accepts(choice, written)))
            .map(|(index, _)| index)
            .collect();
        if fitting.is_empty() {
            return self.none_accepts(reader, "oneOf", &choices, written);
        }
        let alone = |this: &mut Self, fits: usize| {
            let mut others = choices.iter().enumerate().filter(|(index, _)| *index != fits);
            others.all(|(_, other)| this.excludes(written, other))
        };
        if !fitting.into_iter().any(|fits| alone(self, fits)) {
            let accepted = "may fit several of the alternatives".to_owned();
            self.differs(reader.place("oneOf"), written.describe(), accepted);
        }
    }

    /// Says it of the only alternative that it can be, where there is one.
    fn none_accepts<'a>(&mut self, reader: &Sub<'a>, keyword: &str, choices: &[Sub<'a>], written: &Written<'a>) {
        let possible: Vec<&Sub<'a>> = choices.iter().filter(|choice| !self.excludes(written, choice)).collect();
        if let [only] = possible[..] {
            return self.accepts(only, written);
        }
        let accepted = format!("accepted by none of {} alternatives as a whole", choices.len());
        self.differs(reader.place(keyword), written.describe(), accepted);
    }

    /// What meets the condition must be accepted by `then`, what may not meet it by `else`.
    fn conditional<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let Some(condition) = reader.child("if") else { return };
        if let Some(then) = reader.child("then")
            && !self.excludes(written, &condition)
        {
            self.accepts(&then, &written.and(&condition));
        }
        if let Some(otherwise) = reader.child("else")
            && !self.holds_strictly(|trial| trial.accepts(&condition, written))
        {
            self.accepts(&otherwise, &written.except(&condition));
        }
    }
}
