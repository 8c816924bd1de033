"""An agent in Python: drafts a note, asks a person, writes it as an artifact. Speaks the JSON-lines protocol of docs/agents.md."""
import json
import sys


def say(type, **fields):
    print(json.dumps({"type": type, **fields}), flush=True)


def hear():
    line = sys.stdin.readline()
    return json.loads(line) if line else {"type": "cancel"}


start = hear()
draft = (start["checkpoint"] or {}).get("draft")
if draft is None:
    say("stage", name="draft")
    say("progress", pct=30, message="writing")
    draft = f"Note on: {start['task']}"
    say("checkpoint", data={"draft": draft})  # Given back at the next start, should there be one.

say("approval", reason="Publish this note?", data={"draft": draft})
answer = hear()
if answer["type"] == "cancel":
    say("error", code="cancelled", message="told to stop", retryable=False)
else:
    draft = (answer.get("data") or {}).get("draft", draft)  # Whoever approved may have edited it.
    say("stage", name="publish")
    with open("note.md", "w", encoding="utf-8") as note:
        note.write(f"# {draft}\n\n{answer.get('reason') or ''}\n")
    say("artifact", path="note.md", content_type="text/markdown")
    say("result", result={"note": draft, "approved": answer["approved"]})
