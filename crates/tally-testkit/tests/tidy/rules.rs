//! The rules by their numbers: each has its row, and so its test, in `docs/exactly-once.md`; the few that no test can look
//! at are said there in words.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::{read, root, rule_rows};

/// All there are, counted by hand.
const EXACTLY_ONCE: &[(&str, RangeInclusive<u16>)] = &[
    ("P", 1..=67),
    ("I", 1..=25),
    ("S", 1..=15),
    ("A", 1..=9),
    ("V", 1..=11),
    ("E", 1..=8),
    ("L", 1..=6),
    ("T", 1..=1),
    ("M", 1..=15),
    ("F", 1..=12),
    ("C", 1..=10),
    ("O", 1..=16),
    ("K", 1..=2),
    ("R", 1..=19),
    ("CR", 1..=29),
    ("D", 1..=14),
    ("B", 1..=27),
];

/// A freedom that is not used, and a promise that is not made: said in these words.
const IN_WORDS: [(&str, &str); 2] = [
    ("V-8", "V-8 allows the coordinator"),
    ("B-27", "(B-27): transactions of different producers"),
];

/// `P-40` and `P-44` to `P-47` of a first cell `P-40, P-44 to P-47: and so on`.
fn numbers(cell: &str) -> BTreeSet<(String, u16)> {
    let mut found: BTreeSet<(String, u16)> = BTreeSet::new();
    let mut reaches = false;
    let mut last: Option<(String, u16)> = None;
    for word in cell.split([' ', ',', ':']).filter(|word| !word.is_empty()) {
        if word == "to" {
            reaches = true;
            continue;
        }
        let number = word
            .split_once('-')
            .filter(|(letters, _)| !letters.is_empty())
            .and_then(|(letters, number)| Some((letters.to_owned(), number.parse::<u16>().ok()?)));
        if let (true, Some((letters, from)), Some((_, to))) = (reaches, &last, &number) {
            found.extend((*from..=*to).map(|number| (letters.clone(), number)));
        }
        found.extend(number.clone());
        (reaches, last) = (false, number);
    }
    found
}

#[test]
fn ranges_of_numbers_are_read() {
    let found = |cell| -> Vec<String> {
        let numbers = numbers(cell).into_iter();
        numbers.map(|(l, n)| format!("{l}-{n}")).collect()
    };
    assert_eq!(
        found("P-40, P-44 to P-46"),
        ["P-40", "P-44", "P-45", "P-46"]
    );
    assert_eq!(
        found("CR-2, CR-24: written, not answered"),
        ["CR-2", "CR-24"]
    );
    assert_eq!(found("after a kill -9 to"), Vec::<String>::new());
}

#[test]
fn every_rule_of_exactly_once_has_its_row() {
    let document = read(&root().join("docs/exactly-once.md"));
    let mut rows = BTreeSet::new();
    for (rule, _) in rule_rows(&document) {
        rows.extend(numbers(rule));
    }
    for (rule, words) in IN_WORDS {
        assert!(document.contains(words), "{rule} is said nowhere");
        rows.extend(numbers(rule));
    }
    let all: BTreeSet<(String, u16)> = EXACTLY_ONCE
        .iter()
        .flat_map(|(letters, range)| range.clone().map(|number| ((*letters).to_owned(), number)))
        .collect();
    let missing: Vec<_> = all.difference(&rows).collect();
    assert!(missing.is_empty(), "no row has these rules: {missing:?}");
    let unknown: Vec<_> = rows
        .difference(&all)
        .filter(|(letters, _)| EXACTLY_ONCE.iter().any(|(known, _)| known == letters))
        .collect();
    assert!(unknown.is_empty(), "rows of no rule: {unknown:?}");
}
