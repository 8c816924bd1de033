//! People who say something to a task, before it, while it runs, waits or rests, and afterwards; some of it twice; on any process.

use fte_runner::document::Message;
use fte_runner::protocol::{Letter, SendError};
use serde_json::Value;

use crate::check::{Said, TaskState};
use crate::coverage::Met;
use crate::scenario::S;
use crate::world::{Happening, Sim, World};

impl World {
    pub(crate) fn send(&mut self, sim: &Sim, task: usize, n: usize, tries: u32) {
        let Some((process, runner)) = self.somebody() else {
            self.send_again(task, n, tries);
            return;
        };
        let (task_id, id) = (self.tasks[task].plan.id, format!("letter-{n}"));
        self.tell(|| format!("p{process} is told {id} for {task_id}"));
        let message = Message { id: id.clone(), text: id.clone(), data: None, interrupt: n == 1, from: "somebody".to_owned(), told: false };
        let sim = sim.clone();
        self.spawn(
            process,
            Box::pin(async move {
                let outcome = runner.send(task_id, Letter { message, unless_busy: false, tenant: None }).await;
                let mut world = sim.world();
                world.tell(|| format!("p{process} {id} for {task_id}: {outcome:?}"));
                match outcome {
                    Ok(again) => {
                        world.met(if again { Met::LetterAgain } else { Met::Letter });
                        if !world.tasks[task].has_accepted(&id) && !world.tasks[task].has_ended() {
                            world.violate(|| format!("{id} for {task_id} was accepted and is in no document"));
                        }
                        if !world.tasks[task].confirmed.contains(&id) {
                            world.tasks[task].confirmed.push(id);
                        }
                    }
                    Err(SendError::Unknown(_) | SendError::Unavailable(_)) => world.send_again(task, n, tries),
                    Err(SendError::Ended(_)) => world.met(Met::LetterTooLate),
                    // Nobody has that agent.
                    Err(SendError::Deaf(agent)) if agent == "nobody" => {}
                    Err(error) => world.violate(|| format!("{id} for {task_id} was refused: {error}")),
                }
            }),
        );
    }

    fn send_again(&mut self, task: usize, n: usize, tries: u32) {
        if tries < 10 {
            self.after(S, Happening::Send(task, n, tries + 1));
        }
    }

    /// An agent was told a message.
    pub(crate) fn hears(&mut self, agent: usize, id: String) {
        let task = self.agents[agent].task;
        self.tell(|| format!("agent {agent} hears {id}"));
        self.met(Met::LetterHeard);
        if self.agents[agent].heard.contains(&id) && !self.tasks[task].in_checkpoint.contains(&id) {
            let task_id = self.tasks[task].plan.id;
            self.violate(|| format!("the agent of {task_id} was told {id} twice"));
        }
        self.agents[agent].heard.push(id);
    }
}

/// What was accepted was told, or is said not to have been; and whoever finished the task had heard all that was accepted before they began.
pub(crate) fn judge(task: &TaskState, said: &[Said], finished: Option<&crate::world::Agent>) -> Result<(bool, bool), String> {
    let (mut told, mut lost) = (false, false);
    for id in &task.confirmed {
        let shown = said.iter().filter(|said| said.data["details"]["message"]["id"].as_str() == Some(id)).count();
        let dropped = said.iter().filter(|said| is_action(&said.data, "message.undelivered", id)).count();
        let accepted = said.iter().filter(|said| is_action(&said.data, "message.accepted", id)).count();
        if shown + dropped != 1 || accepted != 1 {
            return Err(format!("{id} was accepted {accepted} times, told {shown} times and dropped {dropped} times"));
        }
        (told, lost) = (told || shown > 0, lost || dropped > 0);
    }
    if let Some(agent) = finished
        && let Some(missed) = agent.owed.iter().find(|id| !agent.heard.contains(id))
    {
        return Err(format!("its agent finished and was never told {missed}, which had been accepted before it started"));
    }
    Ok((told, lost))
}

fn is_action(data: &Value, action: &str, id: &str) -> bool {
    data["action"].as_str() == Some(action) && data["resource"].as_str() == Some(id)
}
