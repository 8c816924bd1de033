//! What a run has met, counted: a simulation that meets nothing proves nothing.

/// Something that must happen in some schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    Crash,
    Freeze,
    Stop,
    Start,
    Outage,
    ClockJump,
    LostAnswer,
    LateWrite,
    FailedCall,
    ReadBack,
    Conflict,
    Fenced,
    FencedItself,
    TakenOver,
    Park,
    Wake,
    Retried,
    HeldDelivery,
    QueueFull,
    KeyPassedOn,
    KeyPassedAcross,
    DuplicateDelivery,
    ConcurrentDelivery,
    CallerGone,
    RepeatedEvent,
    TimerFired,
    FiredTimerEnded,
    EndedWhileFiring,
    Decision,
    DecisionAgain,
    Refused,
    DriverPanic,
    DecisionRefused,
    Edit,
    EditRefused,
    PolicyAllowed,
    PolicyDenied,
    ExpiryApproved,
    Letter,
    LetterAgain,
    LetterTooLate,
    LetterToResting,
    LetterHeard,
    LetterKept,
    LetterTold,
    LetterUndelivered,
    Cancel,
    CancelBeforeTrigger,
    CancelAfterEnd,
    Erased,
    NoteToOwner,
    AgentStarted,
    StartFailed,
    AgentKilled,
    ZombieAgent,
    SecondTurn,
    Completed,
    Failed,
    Rejected,
    Cancelled,
    TimedOut,
    BudgetExceeded,
    HandedOff,
    HandoffRefused,
    ParkedForReply,
    NotedReply,
    ReplyToQueued,
    WokenByReply,
    ReplyIgnored,
    ReplyTold,
    ReplyToldAgain,
    HandoffExpired,
    Withdrawn,
    PersonAnswered,
    AnsweredAgain,
    AnswerRefused,
}

impl Met {
    pub(crate) const ALL: [Self; 76] = [
        Self::Crash,
        Self::Freeze,
        Self::Stop,
        Self::Start,
        Self::Outage,
        Self::ClockJump,
        Self::LostAnswer,
        Self::LateWrite,
        Self::FailedCall,
        Self::ReadBack,
        Self::Conflict,
        Self::Fenced,
        Self::FencedItself,
        Self::TakenOver,
        Self::Park,
        Self::Wake,
        Self::Retried,
        Self::HeldDelivery,
        Self::QueueFull,
        Self::KeyPassedOn,
        Self::KeyPassedAcross,
        Self::DuplicateDelivery,
        Self::ConcurrentDelivery,
        Self::CallerGone,
        Self::RepeatedEvent,
        Self::TimerFired,
        Self::FiredTimerEnded,
        Self::EndedWhileFiring,
        Self::Decision,
        Self::DecisionAgain,
        Self::Refused,
        Self::DriverPanic,
        Self::DecisionRefused,
        Self::Edit,
        Self::EditRefused,
        Self::PolicyAllowed,
        Self::PolicyDenied,
        Self::ExpiryApproved,
        Self::Letter,
        Self::LetterAgain,
        Self::LetterTooLate,
        Self::LetterToResting,
        Self::LetterHeard,
        Self::LetterKept,
        Self::LetterTold,
        Self::LetterUndelivered,
        Self::Cancel,
        Self::CancelBeforeTrigger,
        Self::CancelAfterEnd,
        Self::Erased,
        Self::NoteToOwner,
        Self::AgentStarted,
        Self::StartFailed,
        Self::AgentKilled,
        Self::ZombieAgent,
        Self::SecondTurn,
        Self::Completed,
        Self::Failed,
        Self::Rejected,
        Self::Cancelled,
        Self::TimedOut,
        Self::BudgetExceeded,
        Self::HandedOff,
        Self::HandoffRefused,
        Self::ParkedForReply,
        Self::NotedReply,
        Self::ReplyToQueued,
        Self::WokenByReply,
        Self::ReplyIgnored,
        Self::ReplyTold,
        Self::ReplyToldAgain,
        Self::HandoffExpired,
        Self::Withdrawn,
        Self::PersonAnswered,
        Self::AnsweredAgain,
        Self::AnswerRefused,
    ];
}

/// How often each was met.
#[derive(Clone, Debug)]
pub(crate) struct Coverage([u64; Met::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Met::ALL.len()])
    }
}

impl Coverage {
    pub(crate) fn met(&mut self, what: Met) {
        self.0[what as usize] += 1;
    }

    pub(crate) fn of(&self, what: Met) -> u64 {
        self.0[what as usize]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    pub(crate) fn missing(&self) -> Vec<Met> {
        Met::ALL.into_iter().filter(|met| self.of(*met) == 0).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, met) in Met::ALL.into_iter().enumerate() {
            let gap = if n % 6 == 5 { "\n" } else { "  " };
            write!(f, "{met:?} {}{gap}", self.of(met))?;
        }
        Ok(())
    }
}
