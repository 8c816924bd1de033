"""The researcher: finds facts (here it makes them up) and keeps them as an artifact."""
from team import hear, keep, say

start = hear()
facts = [f"{start['task']}: fact {n}" for n in (1, 2, 3)]
say("progress", pct=50, message=f"asked by {start['handoff']['from']}" if "handoff" in start else "asked by a person")
keep("facts.md", "\n".join(facts) + "\n")
say("cost", usd=0.01)
say("result", result={"facts": facts})
