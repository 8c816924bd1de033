"""An agent of the JSON-lines protocol whose task is the script that it runs."""
import json
import os
import sys


def say(**message):
    print(json.dumps(message), flush=True)


exec(json.loads(sys.stdin.readline())["task"])
