//! The traps that are set in the proxy at a moment, and what has been seen to pass.

use std::collections::BTreeMap;

use crate::api::{Api, Request};
use crate::plan::{ALWAYS, CUTTABLE, Fault, Step, Target};

/// Names a step of the plan.
pub(crate) type TrapId = usize;

/// Client id of the harness's own clients: they are not part of the experiment.
pub(crate) const HARNESS_CLIENT_ID: &str = "harness";

#[derive(Debug, Clone)]
struct Trap {
    id: TrapId,
    fault: Fault,
    wanted: Wanted,
    skip: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    OneOf(Vec<Api>),
    PlainProduce,
}

/// All traps that are set. At most one springs per request.
#[derive(Default)]
pub(crate) struct Traps {
    set: Vec<Trap>,
    seen: BTreeMap<Api, u64>,
}

impl Traps {
    pub(crate) fn set(&mut self, id: TrapId, step: &Step) {
        let wanted = match step.target {
            Target::One(api) => Wanted::OneOf(vec![api]),
            Target::AnySeen(draw) => Wanted::OneOf(vec![self.seen_one(draw)]),
            Target::PlainProduce => Wanted::PlainProduce,
        };
        self.set.push(Trap {
            id,
            fault: step.fault,
            wanted,
            skip: step.skip,
        });
    }

    /// Aims a trap that nobody has stepped into at what is always sent; one that is aimed at such a request already, or is
    /// part of a control, only stops waiting.
    pub(crate) fn widen(&mut self, id: TrapId) {
        for trap in self.set.iter_mut().filter(|trap| trap.id == id) {
            if let Wanted::OneOf(apis) = &mut trap.wanted
                && trap.fault != Fault::KillAllAfterAnswer
                && !apis.iter().any(|api| ALWAYS.contains(api))
            {
                *apis = ALWAYS.to_vec();
            }
            trap.skip = 0;
        }
    }

    /// A request goes through: which trap springs?
    pub(crate) fn spring(&mut self, request: &Request) -> Option<(TrapId, Fault)> {
        if request.client_id == HARNESS_CLIENT_ID {
            return None;
        }
        *self.seen.entry(request.api).or_default() += 1;
        for (at, trap) in self.set.iter_mut().enumerate() {
            let matches = match &trap.wanted {
                Wanted::OneOf(apis) => apis.contains(&request.api),
                Wanted::PlainProduce => request.plain_produce,
            };
            if matches && trap.skip > 0 {
                trap.skip -= 1;
            } else if matches {
                let trap = self.set.remove(at);
                return Some((trap.id, trap.fault));
            }
        }
        None
    }

    /// Requests of this API that clients have sent.
    pub(crate) fn seen(&self, api: Api) -> u64 {
        self.seen.get(&api).copied().unwrap_or_default()
    }

    fn seen_one(&self, draw: u64) -> Api {
        let seen: Vec<Api> = CUTTABLE
            .into_iter()
            .filter(|api| self.seen(*api) > 0)
            .collect();
        let choices = if seen.is_empty() { &ALWAYS[..] } else { &seen };
        choices
            [usize::try_from(draw % choices.len() as u64).expect("less than the length of a slice")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{END_TXN, FETCH, PRODUCE};

    fn request(api: Api, client_id: &str) -> Request {
        Request {
            api,
            version: 3,
            correlation_id: 0,
            client_id: client_id.into(),
            plain_produce: false,
        }
    }

    #[test]
    fn a_trap_springs_once_at_the_request_it_waits_for() {
        let mut traps = Traps::default();
        traps.set(
            4,
            &Step {
                at: 0,
                fault: Fault::Cut,
                target: Target::One(END_TXN),
                skip: 1,
            },
        );
        assert_eq!(traps.spring(&request(END_TXN, HARNESS_CLIENT_ID)), None);
        assert_eq!(traps.spring(&request(PRODUCE, "p")), None);
        assert_eq!(traps.spring(&request(END_TXN, "p")), None);
        assert_eq!(traps.spring(&request(END_TXN, "p")), Some((4, Fault::Cut)));
        assert_eq!(traps.spring(&request(END_TXN, "p")), None);
        assert_eq!(traps.seen(END_TXN), 3);
    }

    #[test]
    fn what_nobody_sends_is_not_drawn_and_a_trap_without_luck_is_widened() {
        let mut traps = Traps::default();
        assert_eq!(traps.spring(&request(FETCH, "p")), None);
        for draw in 0..20 {
            assert_eq!(traps.seen_one(draw), FETCH);
        }
        traps.set(
            0,
            &Step {
                at: 0,
                fault: Fault::Cut,
                target: Target::AnySeen(3),
                skip: 2,
            },
        );
        traps.widen(0);
        assert_eq!(traps.spring(&request(PRODUCE, "p")), Some((0, Fault::Cut)));
    }
}
