//! What was measured, as one table: ours, etcd, the ratio, and whether the target is met.
//!
//! Invariant: a ratio is the median of the pairs' ratios, never the ratio of medians.

use std::fmt::Write as _;

/// Values that were measured in pairs: ours, etcd's.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pairs(Vec<(f64, f64)>);

/// What a ratio should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    None,
    AtLeast(f64),
    AtMost(f64),
    /// Of our value, not the ratio.
    OursAtMost(f64),
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Line>);

#[derive(Debug)]
struct Line {
    part: String,
    what: String,
    pairs: Pairs,
    limit: Limit,
}

impl Pairs {
    pub(crate) fn push(&mut self, ours: f64, etcd: f64) {
        self.0.push((ours, etcd));
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => values[length / 2],
            length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
        }
    }

    fn ratios(&self) -> Vec<f64> {
        self.0.iter().filter(|(_, etcd)| *etcd != 0.0).map(|(ours, etcd)| ours / etcd).collect()
    }

    fn ratio(&self) -> f64 {
        Self::median(self.ratios())
    }

    fn range(&self) -> (f64, f64) {
        let ratios = self.ratios();
        (ratios.iter().copied().fold(f64::NAN, f64::min), ratios.iter().copied().fold(f64::NAN, f64::max))
    }

    fn ours(&self) -> f64 {
        Self::median(self.0.iter().map(|pair| pair.0).collect())
    }

    fn etcd(&self) -> f64 {
        Self::median(self.0.iter().map(|pair| pair.1).collect())
    }
}

impl Limit {
    /// Whether it holds; `None` without a limit.
    fn holds(self, pairs: &Pairs) -> Option<bool> {
        match self {
            Self::None => None,
            Self::AtLeast(least) => Some(pairs.ratio() >= least),
            Self::AtMost(most) => Some(pairs.ratio() <= most),
            Self::OursAtMost(most) => Some(pairs.ours() <= most),
        }
    }

    fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::AtLeast(least) => format!("≥ {least}×"),
            Self::AtMost(most) => format!("≤ {most}×"),
            Self::OursAtMost(most) => format!("≤ {most}"),
        }
    }
}

impl Report {
    /// Adds a line, if anything was measured for it.
    pub(crate) fn add(&mut self, part: &str, what: &str, pairs: &Pairs, limit: Limit) {
        if !pairs.0.is_empty() {
            let (part, what) = (part.to_owned(), what.to_owned());
            self.0.push(Line { part, what, pairs: pairs.clone(), limit });
        }
    }

    /// All of it.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut part = "";
        for line in &self.0 {
            if line.part != part {
                part = &line.part;
                let _ = write!(
                    text,
                    "\n{part:<34}{:>12}{:>12}{:>9}  {:<15}{:<8}\n",
                    "ours", "etcd", "ratio", "pairs", "target"
                );
            }
            let (low, high) = line.pairs.range();
            let met = match line.limit.holds(&line.pairs) {
                Some(true) => "met",
                Some(false) => "NOT MET",
                None => "",
            };
            let _ = writeln!(
                text,
                "  {:<32}{:>12}{:>12}{:>8}×  {:<15}{:<8}{met}",
                line.what,
                shown(line.pairs.ours()),
                shown(line.pairs.etcd()),
                format!("{:.2}", line.pairs.ratio()),
                format!("{low:.2}–{high:.2}"),
                line.limit.text(),
            );
        }
        text
    }
}

/// A number with as many digits as it has meaning.
fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_pairs_ratios_decides_whether_a_target_is_met() {
        let mut pairs = Pairs::default();
        for (ours, etcd) in [(300.0, 100.0), (30.0, 10.0), (100.0, 100.0)] {
            pairs.push(ours, etcd);
        }
        assert_eq!((pairs.ratio(), pairs.range()), (3.0, (1.0, 3.0)));
        assert_eq!(Limit::AtLeast(3.0).holds(&pairs), Some(true));
        assert_eq!(Limit::AtMost(2.9).holds(&pairs), Some(false));
        assert_eq!(Limit::OursAtMost(100.0).holds(&pairs), Some(true));
        assert_eq!(Limit::None.holds(&pairs), None);
    }

    #[test]
    fn a_table_says_what_was_measured_and_which_targets_are_missed() {
        let (mut report, mut pairs) = (Report::default(), Pairs::default());
        pairs.push(1234.5, 1000.0);
        report.add("puts", "operations/s", &pairs, Limit::AtLeast(2.0));
        report.add("puts", "nothing", &Pairs::default(), Limit::None);
        let table = report.table();
        assert!(table.contains("operations/s") && table.contains("1.23×") && table.contains("NOT MET"), "{table}");
        assert!(!table.contains("nothing"));
    }
}
