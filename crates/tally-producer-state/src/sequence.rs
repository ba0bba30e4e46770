//! Which sequence may follow which (P-44 to P-51). Sequences count records modulo 2^31.

use tally_protocol::{Sequence, planted};

/// Whether a batch that starts at `base` goes on where one that ended at `last` stopped (P-44, P-45).
pub(crate) fn follows(last: Sequence, base: Sequence) -> bool {
    if planted::is("p45") {
        return last.0.wrapping_add(1) == base.0;
    }
    last.next() == base
}

/// Whether `one` lies after `other` on the circle of 2^31 sequences: it is reached by going forward at most half of it.
///
/// A plain comparison would call 0, the successor of 2147483647, the lower of the two and refuse the older batch for
/// ever (V-7).
pub(crate) const fn is_after(one: Sequence, other: Sequence) -> bool {
    let forward = one.0.wrapping_sub(other.0) & i32::MAX;
    forward != 0 && forward < 1 << 30
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p45_zero_follows_the_highest_sequence() {
        for (last, base, expected) in [
            (0, 1, true),
            (0, 0, false),
            (0, 2, false),
            (i32::MAX, 0, true),
            (i32::MAX, 1, false),
            (i32::MAX - 1, i32::MAX, true),
        ] {
            let got = follows(Sequence(last), Sequence(base));
            assert_eq!(got, expected, "{last} then {base}");
        }
    }

    #[test]
    fn v7_after_is_measured_on_the_circle() {
        for (one, other, expected) in [
            (1, 0, true),
            (0, 1, false),
            (5, 5, false),
            (0, i32::MAX, true),
            (i32::MAX, 0, false),
            (3, i32::MAX - 3, true),
        ] {
            let got = is_after(Sequence(one), Sequence(other));
            assert_eq!(got, expected, "{one} after {other}");
        }
    }
}
