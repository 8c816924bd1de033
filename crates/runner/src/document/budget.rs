//! What a task has cost, and whether that is too much.
//!
//! Costs add up over all tries and restarts of a task, in whole billionths of a dollar: ten times 0.1 is 1, and not a little less or more. What an agent said
//! within the last moment before its runner died may not be counted: it was not written down, and neither was anything else that the agent did then.

//!
//! What is handed off has a part of the budget set aside until its reply is here: as much as the agent says, else all that is left. So what is open at a time never
//! may cost more than there is. To give each all that is left lost: several together then cost a multiple of it. To divide it in equal parts lost, too: nobody
//! knows how many there will be, and the first one alone would have to do with little.

use fte_events::Tokens;
use serde::{Deserialize, Serialize};

use super::TaskDoc;

/// The least that a hand-off may cost: with nothing left, what costs nothing may still be done.
const LEAST: (f64, u64) = (1e-6, 1);
/// A dollar, as it is counted.
const NANO: f64 = 1e9;

/// What a task may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// In dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
    /// In tokens, in and out together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

    /// What it was given, within `most`.
    fn limit(&self, most: Budget) -> Budget {
        let asked = self.request.as_ref().map(|request| Budget { usd: request.budget_usd, tokens: request.budget_tokens });
        asked.unwrap_or_default().within(most)
    }

    /// What a hand-off may cost that shall cost at most `wanted`, where this task may cost `most`: what is left beside what it cost and what is set aside for others.
    pub(super) fn share(&self, wanted: Budget, most: Budget) -> Budget {
        let limit = self.limit(most);
        let aside = || self.open_handoffs().map(|handoff| handoff.budget);
        let usd = aside().filter_map(|budget| budget.usd).fold(self.cost_usd.unwrap_or(0.0), sum_usd);
        let tokens = aside().filter_map(|budget| budget.tokens).fold(self.tokens.unwrap_or_default().total(), u64::saturating_add);
        let left = Budget {
            usd: limit.usd.map(|limit| sum_usd(limit, -usd).max(LEAST.0)),
            tokens: limit.tokens.map(|limit| limit.saturating_sub(tokens).max(LEAST.1)),
        };
        wanted.within(left)
    }

    /// Why it costs too much, with this beside what is written down; `most` is what its agent may cost at all.
    pub fn over_budget(&self, usd: f64, tokens: Tokens, most: Budget) -> Option<String> {
        let budget = self.limit(most);
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
    fn what_is_set_aside_is_not_there_for_others_until_the_answer_is() {
        let mut doc = task(Some(1.0), Some(100));
        doc.agent = "lead".to_owned();
        doc.spend(0.1, Tokens { input: 10, output: 0 });
        let (nothing, now) = (Budget::default(), Timestamp::now());
        let budget = |usd: f64, tokens: u64| Budget { usd: Some(usd), tokens: Some(tokens) };
        let ask = |doc: &mut TaskDoc, to: &str, budget: Budget| {
            let asked = crate::ports::Handoff { to: to.to_owned(), task: to.to_owned(), budget, ..crate::ports::Handoff::default() };
            let ordinal = doc.hand_off(now, &asked, &to.parse().unwrap(), now, (nothing, nothing));
            doc.handoff(ordinal).unwrap().budget
        };
        assert_eq!(ask(&mut doc, "one", budget(0.3, 30)), budget(0.3, 30));
        // More than there is is what there is; a person needs none of it.
        assert_eq!(ask(&mut doc, "human", nothing), nothing);
        assert_eq!(ask(&mut doc, "two", budget(5.0, 500)), budget(0.6, 60));
        assert_eq!(ask(&mut doc, "three", nothing), budget(0.000_001, 1), "what costs nothing may still be done");
        // It cost less than was set aside: the rest is there again.
        let two = fte_events::TaskId::of_handoff(doc.task_id, 3);
        let mut reply = crate::document::HandoffReply::failed(fte_events::ResultKind::Completed, "x", "x");
        (reply.cost_usd, reply.tokens) = (Some(0.2), Some(Tokens { input: 20, output: 0 }));
        assert!(doc.take_reply(two, reply));
        assert_eq!(doc.share(nothing, nothing), budget(0.399_999, 39));
        // The smaller one counts of the task's and its agent's; what has no budget at all has a share only where one is named.
        assert_eq!(doc.share(nothing, budget(0.8, 1000)), budget(0.199_999, 39));
        assert_eq!(task(None, None).share(nothing, nothing), nothing);
        assert_eq!(task(None, None).share(budget(0.1, 1), nothing), budget(0.1, 1));
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
