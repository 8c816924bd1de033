#!/usr/bin/env python3
"""Checks that the event shown for a sealed entry is the one that was sealed: python3 sealed.py ENTRIES INDEX LEAF"""

# ENTRIES is `entries.ndjson` of an export, LEAF the entry's bytes, which `check.py` has found in the log. It needs Python 3.9 and nothing else.

import hmac
import json
import sys
from base64 import b64decode, urlsafe_b64encode
from pathlib import Path

if len(sys.argv) != 4:
    sys.exit(__doc__)
lines = map(json.loads, Path(sys.argv[1]).read_text().splitlines())
line = next((line for line in lines if line["index"] == int(sys.argv[2])), None)
if line is None or "digest_key" not in line:
    sys.exit("no event of a sealed entry is shown under that index")
event, key = (b64decode(line[name], validate=True) for name in ("event_base64", "digest_key"))
# The header of the entry is its first line.
sealed = json.loads(Path(sys.argv[3]).read_bytes().split(b"\n", 1)[0])["enc"]["nonce"]
if urlsafe_b64encode(hmac.digest(key, event, "sha256")[:24]).decode() != sealed:
    sys.exit("this is not the event that was sealed")
print(event.decode())
