//! What entries promise together: time that never goes back, identities that come once, numbers without a hole. In memory that does not grow with the log.

use std::io;

use super::bundle::Facts;
use super::spill::{Record, Spill};

/// What a record is about stands in the last byte of its key.
const IDENTITY: u8 = 0;
const TASK: u8 = 1;
const COUNTER: u8 = 2;

const INDEX_BITS: u32 = 44;

/// An entry in one of several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) index: u64,
}

impl Place {
    fn number(self) -> u64 {
        (self.shard as u64) << INDEX_BITS | self.index
    }

    fn of(number: u64) -> Self {
        Self { shard: usize::try_from(number >> INDEX_BITS).unwrap_or(usize::MAX), index: number & ((1 << INDEX_BITS) - 1) }
    }
}

/// The state of a walk through one or more shards in order.
pub(super) struct Order {
    spill: Spill,
    last_time: Option<i64>,
    /// Whether entries before the first that is seen may exist: numbers then begin anywhere.
    has_before: bool,
    /// Shards that were not read to their end: numbers of their entries are not missed behind them.
    unread: Vec<usize>,
}

/// What the end of a walk shows.
#[derive(Default)]
pub(super) struct Outcome {
    /// Numbers that publishers gave and that are not there.
    pub(super) gaps: u64,
    /// The entries that come after such a hole in their publisher's numbers, and what is missing.
    pub(super) behind_gaps: Vec<(Place, String)>,
    pub(super) bad: Vec<(Place, String)>,
}

/// Most findings that are kept.
const BAD_MAX: usize = 100;

impl Order {
    pub(super) fn new(has_before: bool) -> io::Result<Self> {
        Ok(Self { spill: Spill::new()?, last_time: None, has_before, unread: Vec::new() })
    }

    /// Takes the next entry in. What is wrong with it, as far as that shows at once.
    pub(super) fn observe(&mut self, shard: usize, facts: &Facts) -> io::Result<Option<String>> {
        let place = Place { shard, index: facts.index }.number();
        let mut push = |key: [u8; 16], tag, first, second| {
            let mut key = key;
            key[15] = tag;
            self.spill.push(Record { key, first, second })
        };
        if let Some(identity) = facts.identity {
            push(identity, IDENTITY, place, 0)?;
        }
        if let Some((task, seq)) = facts.task {
            push(task, TASK, place, seq)?;
        }
        if let Some((counter, number)) = facts.counted {
            push(counter, COUNTER, number, place)?;
        }
        let before = self.last_time.replace(facts.logged_time);
        Ok(match before {
            Some(before) if facts.logged_time < before => Some(format!("logged at {}, after an entry of {before}", facts.logged_time)),
            Some(before) if facts.clock_back && facts.logged_time != before => Some(format!(
                "the clock is said to have gone back, and {} is not the time of the entry before, {before}",
                facts.logged_time
            )),
            _ => None,
        })
    }

    /// A shard was not read to its end.
    pub(super) fn skip(&mut self, shard: usize) {
        self.unread.push(shard);
    }

    /// What only shows when everything was seen.
    pub(super) fn finish(mut self) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut before: Option<Record> = None;
        let (has_before, unread) = (self.has_before, std::mem::take(&mut self.unread));
        self.spill.drain_sorted(|record| {
            let same = before.filter(|before| before.key == record.key);
            let mut bad = |place: u64, what: String| {
                if outcome.bad.len() < BAD_MAX {
                    outcome.bad.push((Place::of(place), what));
                }
            };
            match record.key[15] {
                IDENTITY => {
                    if let Some(same) = same {
                        bad(record.first, format!("the same event is entry {} already", Place::of(same.first).index));
                    }
                }
                TASK => {
                    let expected = same.map_or(if has_before { record.second } else { 0 }, |same| same.second + 1);
                    let (from, to) = (same.map_or(0, |same| Place::of(same.first).shard), Place::of(record.first).shard);
                    let is_torn = unread.iter().any(|shard| (from..to).contains(shard));
                    let is_right = if is_torn { record.second >= expected } else { record.second == expected };
                    if !is_right {
                        bad(record.first, format!("it is number {} of its task, and {expected} should follow", record.second));
                    }
                }
                _ => {
                    let expected = same.map_or(if has_before { record.first } else { 1 }, |same| same.first + 1);
                    let missing = record.first.saturating_sub(expected);
                    outcome.gaps += missing;
                    if missing > 0 && outcome.behind_gaps.len() < BAD_MAX {
                        let what = format!(
                            "of what its source counts in its epoch, the numbers {expected} to {} are not in the log",
                            record.first - 1
                        );
                        outcome.behind_gaps.push((Place::of(record.second), what));
                    }
                }
            }
            before = Some(record);
        })?;
        outcome.bad.sort_unstable_by_key(|(place, _)| *place);
        outcome.behind_gaps.sort_unstable_by_key(|(place, _)| *place);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(index: u64) -> Facts {
        let (identity, task, counted) = (None, None, None);
        Facts { index, byte: 0, logged_time: 5, clock_back: false, identity, task, counted, claim: None }
    }

    fn outcome(has_before: bool, entries: &[Facts]) -> (u64, Vec<(u64, String)>) {
        let mut order = Order::new(has_before).unwrap();
        for entry in entries {
            assert_eq!(order.observe(0, entry).unwrap(), None);
        }
        let Outcome { gaps, bad, .. } = order.finish().unwrap();
        (gaps, bad.into_iter().map(|(place, what)| (place.index, what)).collect())
    }

    #[test]
    fn an_identity_comes_once() {
        let entry = |index, identity| Facts { identity: Some([identity; 16]), ..facts(index) };
        assert_eq!(outcome(false, &[entry(0, 1), entry(1, 2)]), (0, vec![]));
        let (_, bad) = outcome(false, &[entry(0, 1), entry(1, 2), entry(2, 1), entry(3, 1)]);
        assert_eq!(bad.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2, 3]);
        // So many are told and no more.
        let many: Vec<Facts> = (0..300).map(|index| entry(index, 1)).collect();
        assert_eq!(outcome(false, &many).1.len(), BAD_MAX);
    }

    #[test]
    fn a_tasks_entries_are_numbered_from_0_in_the_logs_order() {
        let entry = |index, seq| Facts { task: Some(([7; 16], seq)), ..facts(index) };
        assert_eq!(outcome(false, &[entry(0, 0), entry(4, 1), entry(9, 2)]), (0, vec![]));
        assert_eq!(outcome(false, &[entry(4, 1)]).1.len(), 1);
        assert_eq!(outcome(true, &[entry(4, 1), entry(5, 2)]).1, []);
        assert_eq!(outcome(true, &[entry(4, 1), entry(5, 3)]).1[0].0, 5);
        assert_eq!(outcome(false, &[entry(0, 0), entry(1, 2), entry(2, 1)]).1.len(), 2);
    }

    #[test]
    fn a_tasks_numbers_may_stand_in_a_shard_that_was_not_read_to_its_end() {
        let bad = |unread: &[usize], entries: &[(usize, u64)]| {
            let mut order = Order::new(false).unwrap();
            for (index, (shard, seq)) in (0..).zip(entries) {
                order.observe(*shard, &Facts { task: Some(([7; 16], *seq)), ..facts(index) }).unwrap();
            }
            unread.iter().for_each(|shard| order.skip(*shard));
            order.finish().unwrap().bad.into_iter().map(|(place, _)| place.index).collect::<Vec<_>>()
        };
        let entries = [(0, 0), (0, 1), (2, 5), (2, 6)];
        for unread in [&[0][..], &[1], &[0, 1]] {
            assert_eq!(bad(unread, &entries), [] as [u64; 0], "{unread:?}");
        }
        // Not before it, not behind it, and not at all.
        for unread in [&[][..], &[2], &[3]] {
            assert_eq!(bad(unread, &entries), [2], "{unread:?}");
        }
        assert_eq!(bad(&[0], &[(1, 5), (1, 6)]), [] as [u64; 0]);
        assert_eq!(bad(&[0], &[(0, 1)]), [0]);
        // Within a shard there is still no hole, and no number comes again.
        assert_eq!(bad(&[0], &[(0, 0), (1, 5), (1, 7)]), [2]);
        assert_eq!(bad(&[0], &[(0, 0), (0, 1), (1, 2), (1, 3)]), [] as [u64; 0]);
        assert_eq!(bad(&[0], &[(0, 0), (0, 1), (1, 1), (1, 2)]), [2]);
    }

    #[test]
    fn missing_numbers_are_counted() {
        let entry = |index, number| Facts { counted: Some(([7; 16], number)), ..facts(index) };
        assert_eq!(outcome(false, &[entry(0, 1), entry(1, 3), entry(2, 2), entry(3, 3)]), (0, vec![]));
        assert_eq!(outcome(false, &[entry(0, 3), entry(1, 7)]), (5, vec![]));
        assert_eq!(outcome(true, &[entry(0, 3), entry(1, 7)]), (3, vec![]));
        let mut order = Order::new(false).unwrap();
        [entry(0, 1), entry(1, 4), entry(2, 7)].iter().for_each(|entry| assert_eq!(order.observe(0, entry).unwrap(), None));
        let named: Vec<_> = order.finish().unwrap().behind_gaps.into_iter().map(|(place, what)| (place.index, what)).collect();
        assert_eq!(named.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
        assert!(named[1].1.contains("the numbers 5 to 6"), "{named:?}");
    }

    #[test]
    fn time_does_not_go_back() {
        let mut order = Order::new(false).unwrap();
        assert_eq!(order.observe(0, &facts(0)).unwrap(), None);
        assert_eq!(order.observe(0, &Facts { clock_back: true, ..facts(1) }).unwrap(), None);
        assert!(order.observe(0, &Facts { clock_back: true, logged_time: 6, ..facts(2) }).unwrap().is_some());
        assert!(order.observe(1, &Facts { logged_time: 5, ..facts(0) }).unwrap().is_some());
    }
}
