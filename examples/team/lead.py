"""The lead: research, then writing, then a person's word. It does none of it itself."""
from team import hand_off, hear, say

topic = hear()["task"]
say("stage", name="research")
research = hand_off("research", f"Find out: {topic}")
say("stage", name="writing")
text = hand_off("writer", f"Write about: {topic}", context={"facts": research["result"]["facts"]})
say("stage", name="signature")
# People are an agent like any other, called human. They answer with `fte reply`.
signed = hand_off("human", f"May this be published? {text['result']['title']}", context=text["result"], reason="nothing goes out unsigned")
say("result", result={"text": text["result"], "signed": signed["result"]})
