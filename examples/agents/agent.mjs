// An agent in JavaScript: counts the words of its task, slowly enough to be cancelled. Speaks the JSON-lines protocol of docs/agents.md.
import { writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";

const say = (type, fields) => console.log(JSON.stringify({ type, ...fields }));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const hear = async () => JSON.parse((await lines.next()).value ?? '{"type":"cancel"}');

const start = await hear();
const stop = new AbortController();
hear().then((told) => told.type === "cancel" && stop.abort());

try {
  const words = start.task.split(/\s+/).filter(Boolean);
  const counts = {};
  say("stage", { name: "count" });
  for (const [at, word] of words.entries()) {
    counts[word] = (counts[word] ?? 0) + 1;
    say("progress", { pct: Math.floor((100 * (at + 1)) / words.length), message: word });
    await setTimeout(start.context.step_ms ?? 20, undefined, { signal: stop.signal });
  }
  say("cost", { usd: 0.001 * words.length });
  await writeFile("counts.json", JSON.stringify(counts));
  say("artifact", { path: "counts.json" });
  say("result", { result: { words: words.length, different: Object.keys(counts).length } });
} catch (error) {
  const cancelled = error.name === "AbortError";
  say("error", { code: cancelled ? "cancelled" : "failed", message: String(error), retryable: !cancelled });
}
process.exit(0);
