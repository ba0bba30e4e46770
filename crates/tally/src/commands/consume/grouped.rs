//! Reading as a member of a group: join, read what one has, commit what has been written, go on when the group or the
//! coordinator changes.
//!
//! At least once: an offset is committed only when standard output has taken what lies below it, and what was not committed
//! when a partition went away is read again by whoever gets it. A lost connection, of a broker that is started again say,
//! loses nothing: the member asks again, and reads on where it was if the group still knows it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::membership::Membership;
use super::{PAUSE, Reader};
use crate::client::Failure;
use crate::commands::place::Place;
use crate::output::remark;

/// How often a group's offsets are committed at most.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

impl Reader<'_> {
    pub(super) fn with_group(&mut self, mut member: Membership) -> Result<(), Failure> {
        let mut committed_at = Instant::now();
        let mut kept: BTreeMap<Place, i64> = BTreeMap::new();
        self.join(&mut member, &mut kept)?;
        while !self.is_over() {
            self.round()?;
            self.show.flush();
            if self.show.is_closed() {
                break;
            }
            if committed_at.elapsed() >= COMMIT_INTERVAL {
                self.commit(&mut member, &mut kept)?;
                committed_at = Instant::now();
            }
            let is_other = self.ask(Reader::look_for_topics)?;
            if let Some(matching) = self.matching.as_ref().filter(|_| is_other) {
                member.subscribe(&matching.counts);
            }
            if is_other || !self.ask(|reader| member.is_in(&mut reader.cluster))? {
                self.commit(&mut member, &mut kept)?;
                self.join(&mut member, &mut kept)?;
            }
        }
        // Not what nobody has taken.
        if !self.show.is_closed() {
            self.commit(&mut member, &mut kept)?;
        }
        member.leave(&mut self.cluster);
        Ok(())
    }

    fn join(
        &mut self,
        member: &mut Membership,
        kept: &mut BTreeMap<Place, i64>,
    ) -> Result<(), Failure> {
        let mut is_anew = false;
        let (places, committed) = loop {
            let assigned = self.ask(|reader| member.join(&mut reader.cluster))?;
            is_anew |= assigned.is_anew;
            let places = assigned.places;
            let committed = self.ask(|reader| member.committed(&mut reader.cluster, &places))?;
            if let Some(committed) = committed {
                break (places, committed);
            }
        };
        self.cluster.renew(Duration::ZERO);
        if is_anew {
            self.reads.clear();
            kept.clear();
        }
        self.reads.retain(|place, _| places.contains(place));
        kept.retain(|place, _| places.contains(place));
        for place in places {
            if self.reads.contains_key(&place) {
                continue;
            }
            let offset = committed.get(&place).copied();
            if let Some(offset) = offset {
                kept.insert(place.clone(), offset);
            }
            self.ask(|reader| reader.begin(place.clone(), offset))?;
        }
        self.share_until = (self.reads.is_empty() && self.share_until.is_none())
            .then(|| Instant::now() + member.share_comes_within())
            .or(self.share_until);
        remark(1, || format!("has {} partitions", self.reads.len()));
        Ok(())
    }

    /// Commits what has changed.
    fn commit(
        &mut self,
        member: &mut Membership,
        kept: &mut BTreeMap<Place, i64>,
    ) -> Result<(), Failure> {
        let reads = self.reads.iter();
        let moved: BTreeMap<Place, i64> = reads
            .filter(|(place, read)| kept.get(*place) != Some(&read.next))
            .map(|(place, read)| (place.clone(), read.next))
            .collect();
        if !moved.is_empty() && self.ask(|reader| member.commit(&mut reader.cluster, &moved))? {
            kept.extend(moved);
        }
        Ok(())
    }

    /// Asks again over new connections while what is in the way passes, for as long as a command may take.
    fn ask<T>(
        &mut self,
        mut question: impl FnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut lost_since = None;
        loop {
            let failure = match question(self) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let since: Instant = *lost_since.get_or_insert_with(Instant::now);
            let is_late = since.elapsed() > self.consume.reach.timeout;
            if !Self::passes(&failure) || is_late || self.stop.load(Ordering::Relaxed) {
                return Err(failure);
            }
            remark(1, || format!("asking again: {failure}"));
            std::thread::sleep(PAUSE);
            self.cluster.renew(Duration::ZERO);
            self.cluster.hang_up();
            if let Err(failure) = self.cluster.reopen() {
                remark(1, || failure.to_string());
            }
        }
    }
}
