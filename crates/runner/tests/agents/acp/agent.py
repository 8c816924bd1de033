"""An agent that speaks the Agent Client Protocol well or badly, as its task says: the task is a script in Python with `agent` at hand."""
import json
import os
import signal
import sys
import time


class Agent:
    def __init__(self):
        self.next_id, self.session, self.prompt_id, self.seen = 100, "s1", None, []

    def raw(self, text):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def send(self, **message):
        self.raw(json.dumps({"jsonrpc": "2.0", **message}))

    def read(self):
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        message = json.loads(line)
        if message.get("method") == "session/cancel":
            self.seen.append("session/cancel")
        return message

    def answer(self, message, result):
        self.send(id=message["id"], result=result)

    def ask(self, method, **params):
        """Asks and waits for the answer: the result, or {"error": …}."""
        self.next_id += 1
        self.send(id=self.next_id, method=method, params={"sessionId": self.session, **params})
        return self.answered(self.next_id)

    def answered(self, id):
        while True:
            message = self.read()
            if message.get("id") == id and "method" not in message:
                return message["result"] if "result" in message else {"error": message["error"]}

    def update(self, what, /, session=None, **fields):
        update = {"sessionUpdate": what, **fields}
        self.send(method="session/update", params={"sessionId": session or self.session, "update": update})

    def say(self, text):
        self.update("agent_message_chunk", content={"type": "text", "text": text})

    def wish(self, tool, title, /, options=("allow_once", "reject_once"), **fields):
        self.update("tool_call", toolCallId=title, title=title, kind=tool, status="pending")
        options = [{"optionId": "id-" + option, "name": option, "kind": option} for option in options]
        outcome = self.ask("session/request_permission", toolCall={"toolCallId": title, **fields}, options=options)
        if "error" in outcome:
            return outcome["error"]["message"]
        return outcome["outcome"].get("optionId", outcome["outcome"]["outcome"])

    def end(self, reason="end_turn", **fields):
        self.send(id=self.prompt_id, result={"stopReason": reason, **fields})

    def wait_for(self, method):
        while True:
            message = self.read()
            if message.get("method") == method:
                return message


def main():
    agent, mode = Agent(), sys.argv[1]
    first = agent.wait_for("initialize")
    agent.initialized = first["params"]
    if mode.startswith("before:"):
        exec(mode.removeprefix("before:"), {"agent": agent, "first": first, "os": os, "sys": sys, "time": time})
    loads = mode.startswith("load")
    agent.answer(first, {"protocolVersion": 1, "agentCapabilities": {"loadSession": loads}})
    opened = agent.read()
    agent.opened = opened["method"]
    if opened["method"] == "session/load":
        if mode == "load-fails":
            agent.send(id=opened["id"], error={"code": -32002, "message": "no such session"})
            opened = agent.read()
        elif mode == "load-dies":
            sys.exit(7)
        elif mode == "load-hangs":
            time.sleep(600)
        elif mode == "load-lies":
            agent.update("plan", session="another", entries=[])
            time.sleep(600)
        else:
            agent.session = opened["params"]["sessionId"]
            agent.say("what was said before")
            agent.answer(opened, {})
    if opened["method"] == "session/new":
        agent.cwd = opened["params"]["cwd"]
        agent.answer(opened, {"sessionId": agent.session})
    prompt = agent.wait_for("session/prompt")
    agent.prompt_id = prompt["id"]
    agent.prompt = [block["text"] for block in prompt["params"]["prompt"] if block["type"] == "text"]
    agent.links = [block for block in prompt["params"]["prompt"] if block["type"] == "resource_link"]
    script = next(text for text in agent.prompt if text.startswith("#"))
    exec(script, {"agent": agent, "json": json, "os": os, "signal": signal, "sys": sys, "time": time})
    while True:
        agent.read()


main()
