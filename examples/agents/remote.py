"""An agent that runs elsewhere, with the official A2A SDK: writes a note in two pieces, asks whether it may be published, and says how that went.
A task "wait" works until it is cancelled. Start it with: python3 remote.py [PORT], and name its address in agents.toml (kind = "http")."""

import asyncio
import socket
import sys

import uvicorn
from a2a.helpers.proto_helpers import get_message_text, new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, TaskState
from starlette.applications import Starlette


class Writer(AgentExecutor):
    async def execute(self, context, queue):
        task = context.current_task
        if task:  # The answer to the question. After a no the task is cancelled.
            return await TaskUpdater(queue, task.id, task.context_id).complete()
        task = new_task_from_user_message(context.message)
        await queue.enqueue_event(task)
        updater = TaskUpdater(queue, task.id, task.context_id)
        about = get_message_text(context.message)
        say = lambda text: updater.new_agent_message([new_text_part(text)])
        await updater.update_status(TaskState.TASK_STATE_WORKING, say("reading"), metadata={"stage": "draft", "progress_pct": 40})
        while about == "wait":
            await asyncio.sleep(60)
        await updater.add_artifact([new_text_part(f"# Note on: {about}\n")], artifact_id="note", name="note.md", last_chunk=False)
        await updater.add_artifact([new_text_part("It is written.\n")], artifact_id="note", name="note.md", append=True, last_chunk=True)
        await updater.requires_input(say("May this note be published?"))

    async def cancel(self, context, queue):
        await TaskUpdater(queue, context.task_id, context.context_id).cancel()


listener = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 41241))
url = f"http://127.0.0.1:{listener.getsockname()[1]}"
card = AgentCard(
    name="writer", description="Writes notes.", version="1.0.0", capabilities=AgentCapabilities(streaming="--poll" not in sys.argv),
    skills=[AgentSkill(id="note", name="note", description="Writes a note about anything.", tags=["writing"])],
    default_input_modes=["text/plain"], default_output_modes=["text/plain"],
    supported_interfaces=[AgentInterface(url=f"{url}/a2a", protocol_binding="JSONRPC", protocol_version="1.0")],
)
handler = DefaultRequestHandler(agent_executor=Writer(), task_store=InMemoryTaskStore(), agent_card=card)
print(url, flush=True)
app = Starlette(routes=create_agent_card_routes(card) + create_jsonrpc_routes(handler, "/a2a"))
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
