//! The table.

/// One line: what was measured, the figure, and what it is held against.
struct Line {
    what: String,
    figure: String,
    against: String,
}

#[derive(Default)]
pub struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Adds a line, and prints it at once, since the whole takes minutes.
    pub fn add(&mut self, what: impl Into<String>, figure: impl Into<String>, against: impl Into<String>) {
        let line = Line { what: what.into(), figure: figure.into(), against: against.into() };
        eprintln!("  {}: {} {}", line.what, line.figure, line.against);
        self.lines.push(line);
    }

    pub fn print(&self) {
        let width = |part: fn(&Line) -> &String, least: usize| {
            self.lines.iter().map(|line| part(line).chars().count()).max().unwrap_or(0).max(least)
        };
        let (what, figure, against) = (width(|l| &l.what, 8), width(|l| &l.figure, 6), width(|l| &l.against, 7));
        println!("\n| {:what$} | {:>figure$} | {:against$} |", "measured", "figure", "against");
        println!("|{:-<w$}|{:->f$}:|{:-<a$}|", "", "", "", w = what + 2, f = figure + 1, a = against + 2);
        for line in &self.lines {
            println!("| {:what$} | {:>figure$} | {:against$} |", line.what, line.figure, line.against);
        }
    }
}

/// A rate, with thousands separated.
pub fn per_second(count: usize, seconds: f64) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a figure"
    )]
    let rate = (count as f64 / seconds).round() as u64;
    let digits = rate.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    format!("{text}/s")
}

/// The p-th percentile of durations in seconds, in milliseconds. Sorts.
pub fn percentile(seconds: &mut [f64], p: f64) -> f64 {
    if seconds.is_empty() {
        return f64::NAN;
    }
    seconds.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let at = ((seconds.len() - 1) as f64 * p / 100.0).round() as usize;
    seconds[at] * 1000.0
}
