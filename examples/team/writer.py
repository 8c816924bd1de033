"""The writer: makes a text of the facts that the lead hands over."""
from team import hear, keep, say

start = hear()
title = start["task"].removeprefix("Write about: ").capitalize()
body = "\n".join(f"* {fact}" for fact in start["context"]["facts"])
keep("text.md", f"# {title}\n\n{body}\n")
say("cost", usd=0.02)
say("result", result={"title": title, "words": len(body.split())})
