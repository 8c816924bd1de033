//! Starts an agent in a sandbox that is claimed for it: claimed first, then spoken to where it is.
//!
//! Always true: the agent's own session ends before its sandbox is given back; a sandbox that is gone is an error of the agent that another attempt may heal,
//! said at once instead of when its silence is noticed.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::claims::{ClaimRequest, ClaimedSandbox, Claims};
use super::limits::CHANNEL;
use super::session::{AbortOnDrop, error};
use crate::ports::{Said, Session, StartError};

/// Claims a sandbox and starts a session in it. `begin` is told host and port of the agent, as they shall stand in a URL; nothing comes of what cannot.
pub(super) async fn start(
    claims: Arc<dyn Claims>,
    request: ClaimRequest,
    begin: impl FnOnce(&str) -> Option<Session>,
) -> Result<Session, StartError> {
    let (agent, asked) = (request.agent.clone(), Instant::now());
    let claimed = match claims.claim(request).await {
        Ok(claimed) => claimed,
        Err(error) => return Err(StartError { agent, reason: error.to_string(), retryable: error.retryable }),
    };
    let authority = claimed.authority();
    let session = begin(&authority);
    let session = session.ok_or_else(|| StartError {
        agent,
        reason: format!("its sandbox is at {authority:?}, which is no address"),
        retryable: true,
    })?;
    let warm = match claimed.warm {
        Some(true) => ", warm",
        Some(false) => ", cold",
        None => "",
    };
    let ready = format!("sandbox {} is ready after {:.1} s{warm}", claimed.name, asked.elapsed().as_secs_f64());
    let ClaimedSandbox { lost, guard: sandbox, .. } = claimed;
    let lost = async move {
        match lost.await {
            Ok(why) => why,
            // Its keeper has ended, and says nothing more.
            Err(_) => std::future::pending().await,
        }
    };
    let (said, hear) = mpsc::channel(CHANNEL);
    let Session { said: inner, tell, guard } = session;
    let passing = AbortOnDrop(tokio::spawn(pass(ready, inner, said, lost)));
    // Dropped in this order.
    Ok(Session { said: hear, tell, guard: Box::new((guard, passing, sandbox)) })
}

/// Passes on what the agent says, until it ends or its sandbox is lost.
async fn pass(ready: String, mut inner: mpsc::Receiver<Said>, said: mpsc::Sender<Said>, lost: impl Future<Output = String>) {
    let mut lost = std::pin::pin!(lost);
    let mut word = Some(Said::Log(ready));
    while let Some(next) = word.take() {
        if said.send(next).await.is_err() {
            return;
        }
        word = tokio::select! {
            biased;
            word = inner.recv() => word,
            why = &mut lost => {
                drop(said.send(error("sandbox_lost", format!("the sandbox was gone while the agent worked: {why}"), true)).await);
                return;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use fte_events::{ClaimId, TaskId};
    use fte_service::agents::kubernetes::KubernetesSandbox;
    use tokio::sync::oneshot;

    use super::*;
    use crate::agents::claims::{ClaimError, SandboxHost};
    use crate::ports::Pending;

    /// Notes when it is dropped.
    struct Noted(&'static str, Arc<Mutex<Vec<&'static str>>>);

    impl Drop for Noted {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[derive(Debug, Default)]
    struct OneClaim {
        lose: Mutex<Option<oneshot::Sender<String>>>,
        refuses: bool,
        dropped: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Claims for OneClaim {
        fn claim(&self, request: ClaimRequest) -> Pending<Result<ClaimedSandbox, ClaimError>> {
            if self.refuses {
                let error = ClaimError { reason: "no quota".to_owned(), advice: Some("raise it"), retryable: false, source: None };
                return Box::pin(async { Err(error) });
            }
            let (lose, lost) = oneshot::channel();
            *self.lose.lock().unwrap() = Some(lose);
            let guard = Box::new(Noted("sandbox", Arc::clone(&self.dropped)));
            let host = SandboxHost::Address("10.0.0.1".parse().unwrap());
            let (name, port) = (request.claim_id.to_string(), request.sandbox.port);
            Box::pin(async move { Ok(ClaimedSandbox { name, host, port, warm: Some(true), lost, guard }) })
        }

        fn settled(&self) -> Pending<()> {
            Box::pin(async {})
        }
    }

    fn request() -> ClaimRequest {
        let (task_id, ready_timeout) = (TaskId::now(), Duration::from_secs(1));
        let sandbox = KubernetesSandbox { warm_pool: "p".to_owned(), namespace: "n".to_owned(), port: 81, ready_timeout };
        ClaimRequest { claim_id: ClaimId::of(task_id, 0, 1), task_id, agent: "a".to_owned(), sandbox }
    }

    /// A session that somebody else speaks in.
    async fn begun(claims: &Arc<OneClaim>) -> (Session, mpsc::Sender<Said>) {
        let (speak, said) = mpsc::channel(CHANNEL);
        let guard = Box::new(Noted("agent", Arc::clone(&claims.dropped)));
        let begin = |authority: &str| {
            assert_eq!(authority, "10.0.0.1:81");
            Some(Session { said, tell: mpsc::channel(1).0, guard })
        };
        let mut session = start(Arc::<OneClaim>::clone(claims), request(), begin).await.unwrap();
        let first = session.said.recv().await.unwrap();
        assert!(matches!(&first, Said::Log(line) if line.ends_with("s, warm")), "{first:?}");
        (session, speak)
    }

    #[tokio::test]
    async fn what_is_said_in_a_sandbox_is_heard_and_the_agent_ends_before_it() {
        let claims = Arc::new(OneClaim::default());
        let (mut session, speak) = begun(&claims).await;
        for stage in ["one", "two"] {
            speak.send(Said::Stage(stage.to_owned())).await.unwrap();
            assert_eq!(session.said.recv().await, Some(Said::Stage(stage.to_owned())));
        }
        drop(speak);
        assert_eq!(session.said.recv().await, None);
        assert!(claims.dropped.lock().unwrap().is_empty());
        drop(session);
        assert_eq!(*claims.dropped.lock().unwrap(), ["agent", "sandbox"]);
    }

    #[tokio::test]
    async fn a_lost_sandbox_ends_the_attempt_and_a_keeper_that_ends_does_not() {
        let claims = Arc::new(OneClaim::default());
        let (mut session, _speak) = begun(&claims).await;
        claims.lose.lock().unwrap().take().unwrap().send("PodFailed: out of memory".to_owned()).unwrap();
        let Some(Said::Error { code, message, retryable }) = session.said.recv().await else { panic!("no error") };
        assert!(code == "sandbox_lost" && message.contains("out of memory") && retryable);
        assert_eq!(session.said.recv().await, None);
        let (mut session, speak) = begun(&claims).await;
        drop(claims.lose.lock().unwrap().take());
        speak.send(Said::Stage("on".to_owned())).await.unwrap();
        assert_eq!(session.said.recv().await, Some(Said::Stage("on".to_owned())));
    }

    #[tokio::test]
    async fn a_refused_claim_is_a_failed_start_that_says_what_to_do() {
        let claims = Arc::new(OneClaim { refuses: true, ..OneClaim::default() });
        let error = start(claims, request(), |_| panic!("there is nowhere to begin")).await.err().unwrap();
        assert!(!error.retryable);
        assert_eq!(error.to_string(), "agent a did not start: no sandbox: no quota; raise it");
        let claims = Arc::new(OneClaim::default());
        let error = start(Arc::<OneClaim>::clone(&claims), request(), |_| None).await.err().unwrap();
        assert!(error.retryable && error.reason.contains("no address"), "{error}");
        assert_eq!(*claims.dropped.lock().unwrap(), ["sandbox"]);
    }
}
