// An agent that speaks the Agent Client Protocol by its official SDK: writes a note, asks whether it may count its words, counts. `npm ci` gets the SDK.
import { Readable, Writable } from "node:stream";
import { agent, methods, ndJsonStream } from "@agentclientprotocol/sdk";

let cwd;
const client = methods.client;

async function prompt({ params: { sessionId, prompt }, client: runner, signal }) {
  const update = (update) => runner.notify(client.session.update, { sessionId, update });
  const say = (text) => update({ sessionUpdate: "agent_message_chunk", content: { type: "text", text } });
  const plan = (...statuses) =>
    update({ sessionUpdate: "plan", entries: ["write the note", "count its words"].map((content, at) => ({ content, priority: "medium", status: statuses[at] })) });

  await plan("in_progress", "pending");
  const path = `${cwd}/note.txt`;
  await runner.request(client.fs.writeTextFile, { sessionId, path, content: `${prompt[0].text}\n` });
  await plan("completed", "in_progress");

  const toolCall = { toolCallId: "count", title: "wc -w note.txt", kind: "execute", status: "pending", rawInput: { command: "wc -w note.txt" } };
  await update({ sessionUpdate: "tool_call", ...toolCall });
  const options = [
    { optionId: "yes", name: "Count", kind: "allow_once" },
    { optionId: "no", name: "Do not count", kind: "reject_once" },
  ];
  const { outcome } = await runner.request(client.session.requestPermission, { sessionId, toolCall, options });
  if (outcome.outcome === "cancelled" || signal.aborted) return { stopReason: "cancelled" };
  if (outcome.optionId === "yes") {
    const terminal = await runner.createTerminal({ sessionId, command: "wc", args: ["-w", "note.txt"] });
    await terminal.waitForExit();
    const { output } = await terminal.currentOutput();
    await terminal.release();
    await update({ sessionUpdate: "tool_call_update", toolCallId: "count", status: "completed" });
    await say(`The note has ${parseInt(output)} words.`);
  } else {
    await say("The words were not counted.");
  }
  await plan("completed", "completed");
  return { stopReason: "end_turn" };
}

agent({ name: "note-counter" })
  .onRequest(methods.agent.initialize, () => ({ protocolVersion: 1, agentCapabilities: {} }))
  .onRequest(methods.agent.session.new, ({ params }) => {
    cwd = params.cwd;
    return { sessionId: crypto.randomUUID() };
  })
  .onRequest(methods.agent.session.prompt, prompt)
  .onNotification(methods.agent.session.cancel, () => {})
  .connect(ndJsonStream(Writable.toWeb(process.stdout), Readable.toWeb(process.stdin)));
