//! What a task has cost, and whether that is too much.
//!
//! Costs add up over all tries and restarts of a task, in whole billionths of a dollar: ten times 0.1 is 1, and not a little less or more. What an agent said
//! within the last moment before its runner died may not be counted: it was not written down, and neither was anything else that the agent did then.

use fte_events::Tokens;

use super::TaskDoc;

/// A dollar, as it is counted.
const NANO: f64 = 1e9;

/// What a task may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// In dollars.
    pub usd: Option<f64>,
    /// In tokens, in and out together.
    pub tokens: Option<u64>,
}

impl Budget {
    /// The smaller one of each.
    pub fn within(self, most: Self) -> Self {
        let usd = [self.usd, most.usd].into_iter().flatten().reduce(f64::min);
        Self { usd, tokens: self.tokens.into_iter().chain(most.tokens).min() }
    }
}

/// The sum of two amounts, to the billionth of a dollar.
pub fn sum_usd(one: f64, other: f64) -> f64 {
    ((one + other) * NANO).round() / NANO
}

impl TaskDoc {
    pub(super) fn spend(&mut self, usd: f64, tokens: Tokens) {
        if usd > 0.0 {
            self.cost_usd = Some(sum_usd(self.cost_usd.unwrap_or(0.0), usd));
        }
        if tokens != Tokens::default() {
            self.tokens = Some(self.tokens.unwrap_or_default().plus(tokens));
        }
    }

    /// Why it costs too much, with this beside what is written down; `most` is what its agent may cost at all.
    pub fn over_budget(&self, usd: f64, tokens: Tokens, most: Budget) -> Option<String> {
        let asked = self.request.as_ref().map(|request| Budget { usd: request.budget_usd, tokens: request.budget_tokens });
        let budget = asked.unwrap_or_default().within(most);
        let usd = sum_usd(self.cost_usd.unwrap_or(0.0), usd);
        let tokens = self.tokens.unwrap_or_default().plus(tokens).total();
        if let Some(budget) = budget.usd.filter(|budget| usd > sum_usd(*budget, 0.0)) {
            return Some(format!("the task cost {usd} USD, more than its budget of {budget} USD"));
        }
        let budget = budget.tokens.filter(|budget| tokens > *budget)?;
        Some(format!("the task took {tokens} tokens, more than its budget of {budget} tokens"))
    }
}

#[cfg(test)]
mod tests {
    use fte_events::{Origin, TaskId, TaskRequested};
    use jiff::Timestamp;

    use super::*;

    fn task(usd: Option<f64>, tokens: Option<u64>) -> TaskDoc {
        let mut doc = TaskDoc::blank(TaskId::now());
        let mut request = TaskRequested::new(doc.task_id, "x", Origin::Http, Timestamp::now());
        (request.budget_usd, request.budget_tokens) = (usd, tokens);
        doc.request = Some(Box::new(request));
        doc
    }

    #[test]
    fn costs_add_up_exactly() {
        let mut doc = task(Some(0.3), None);
        for _ in 0..3 {
            doc.spend(0.1, Tokens::default());
        }
        assert_eq!(doc.cost_usd, Some(0.3));
        assert_eq!(doc.over_budget(0.0, Tokens::default(), Budget::default()), None, "three times 0.1 is 0.3");
        assert!(doc.over_budget(0.000_000_001, Tokens::default(), Budget::default()).is_some());
    }

    #[test]
    fn tokens_count_in_and_out_together() {
        let mut doc = task(None, Some(100));
        doc.spend(0.0, Tokens { input: 60, output: 30 });
        assert_eq!(doc.over_budget(0.0, Tokens { input: 0, output: 10 }, Budget::default()), None);
        let over = doc.over_budget(0.0, Tokens { input: 11, output: 0 }, Budget::default());
        assert_eq!(over.as_deref(), Some("the task took 101 tokens, more than its budget of 100 tokens"));
        doc.spend(0.0, Tokens { input: u64::MAX, output: 1 });
        assert!(doc.over_budget(0.0, Tokens::default(), Budget::default()).is_some(), "however many");
    }

    #[test]
    fn the_agent_s_own_budget_is_a_default_and_a_limit() {
        let most = Budget { usd: Some(1.0), tokens: Some(10) };
        assert!(task(None, None).over_budget(1.1, Tokens::default(), most).is_some());
        assert!(task(Some(5.0), Some(500)).over_budget(1.1, Tokens::default(), most).is_some());
        assert!(task(Some(0.5), None).over_budget(0.6, Tokens::default(), most).is_some());
        assert!(task(None, Some(500)).over_budget(0.0, Tokens { input: 11, output: 0 }, most).is_some());
        assert!(task(Some(5.0), None).over_budget(0.9, Tokens { input: 10, output: 0 }, most).is_none());
    }
}
