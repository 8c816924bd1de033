//! Cron of six fields, as Dapr's scheduler reads it: second, minute, hour, day of month, month, day of week; in UTC.

use jiff::civil::{Date, DateTime, time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// Days looked ahead before a schedule counts as never: a 29th of February on a given weekday comes within 40 years.
const DAYS_MAX: u32 = 366 * 40;

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Each field as a set of bits.
#[derive(Debug)]
pub(super) struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A day field of `*` leaves the other one to decide; two that say something are joined by or.
    any_day: bool,
    any_weekday: bool,
}

impl Cron {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "{} fields, wanted are 6 fields (second minute hour day month weekday) or @every, @hourly, @daily, …",
                fields.len()
            ));
        };
        let star = |field: &str| field.starts_with('*') || field.starts_with('?');
        let mut weekdays = field(weekday, 0, 7, DAYS, 0)?;
        // Sunday is 0 and 7.
        if weekdays & (1 << 7) != 0 {
            weekdays |= 1;
        }
        Ok(Self {
            seconds: field(second, 0, 59, &[], 0)?,
            minutes: field(minute, 0, 59, &[], 0)?,
            hours: field(hour, 0, 23, &[], 0)?,
            days: field(day, 1, 31, &[], 0)?,
            months: field(month, 1, 12, MONTHS, 1)?,
            weekdays,
            any_day: star(day),
            any_weekday: star(weekday),
        })
    }

    /// The first time after `time`.
    pub(super) fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let start = TimeZone::UTC.to_datetime(time).date();
        let mut date = start;
        for _ in 0..DAYS_MAX {
            if self.on(date) {
                let from = if date == start { Some(time) } else { None };
                if let Some(found) = self.within(date, from) {
                    return Some(found);
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn on(&self, date: Date) -> bool {
        let has = |set: u64, bit: i8| set & (1 << bit) != 0;
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let days = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        has(self.months, date.month()) && days
    }

    fn within(&self, date: Date, after: Option<Timestamp>) -> Option<Timestamp> {
        let bits = |set: u64| (0..60_i8).filter(move |bit| set & (1 << bit) != 0);
        bits(self.hours)
            .flat_map(|hour| bits(self.minutes).map(move |minute| (hour, minute)))
            .flat_map(|(hour, minute)| bits(self.seconds).map(move |second| (hour, minute, second)))
            .filter_map(|(hour, minute, second)| {
                let at = DateTime::from_parts(date, time(hour, minute, second, 0));
                TimeZone::UTC.to_timestamp(at).ok()
            })
            .find(|at| after.is_none_or(|after| *at > after))
    }
}

/// Reads one field: lists of `*`, numbers, names, ranges, each with `/step`.
fn field(text: &str, low: u32, high: u32, names: &[&str], first: u32) -> Result<u64, String> {
    let number = |text: &str| -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        let value = names.iter().position(|name| *name == lower).map(|at| at as u32 + first).or_else(|| text.parse().ok());
        value.filter(|value| (low..=high).contains(value)).ok_or_else(|| format!("{text} is not in {low}-{high}"))
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, step.parse::<u32>().ok().filter(|step| *step > 0).ok_or_else(|| format!("{step} is not a step"))?)
            }
            None => (part, 1),
        };
        let (from, to) = match range {
            "*" | "?" => (low, high.min(if names == DAYS { 6 } else { high })),
            range => match range.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                None if part.contains('/') => (number(range)?, high),
                None => (number(range)?, number(range)?),
            },
        };
        if from > to {
            return Err(format!("{range} ends before it begins"));
        }
        for value in (from..=to).step_by(step as usize) {
            set |= 1 << value;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_is_found() {
        let check = |cron: &str, after: &str, next: &str| {
            let found = Cron::read(cron).unwrap().after(after.parse().unwrap());
            assert_eq!(found.map(|at| at.to_string()).as_deref(), Some(next), "{cron}");
        };
        check("0 30 9 * * mon-fri", "2026-01-02T10:00:00Z", "2026-01-05T09:30:00Z");
        check("*/15 * * * * *", "2026-01-01T00:00:15Z", "2026-01-01T00:00:30Z");
        check("0 0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("0 0 12 1 JAN ?", "2026-01-01T12:00:00Z", "2027-01-01T12:00:00Z");
        check("0 0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        check("59 59 23 31 12 *", "2026-12-31T23:59:58.5Z", "2026-12-31T23:59:59Z");
        check("0 0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
    }

    #[test]
    fn what_never_comes_is_known() {
        let never = Cron::read("0 0 0 31 2 *").unwrap();
        assert_eq!(never.after("2026-01-01T00:00:00Z".parse().unwrap()), None);
        for broken in ["* * * * *", "60 * * * * *", "* * * * * x", "5-1 * * * * *", "*/0 * * * * *"] {
            assert!(Cron::read(broken).is_err(), "{broken}");
        }
    }
}
