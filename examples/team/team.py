"""What the agents of this team share: the JSON-lines protocol of docs/agents.md, with hand-offs."""
import json
import sys


def say(type, **fields):
    print(json.dumps({"type": type, **fields}), flush=True)


def hear():
    line = sys.stdin.readline()
    return json.loads(line) if line else {"type": "cancel"}


def hand_off(to, task, **fields):
    """Gives work to `to` and waits for the reply. Started again, it asks the same again, and gets the same reply."""
    say("handoff", to=to, task=task, **fields)
    reply = hear()
    if reply["type"] != "reply":
        sys.exit("told to stop")
    if reply["status"] != "completed":
        error = reply["error"] or {}
        say("error", code=f"{to}_{reply['status']}", message=error.get("message", reply["status"]))
        sys.exit()
    return reply


def keep(name, text):
    """Writes a file and keeps it as an artifact."""
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
    say("artifact", path=name)
