#!/bin/sh
# An agent in plain shell: measures its task. Speaks the JSON-lines protocol of docs/agents.md without a JSON parser: what comes in as JSON
# goes out as JSON, and the keys of the start message have a fixed order.
set -eu

IFS= read -r start
rest=${start#*'"task":"'}
task=$(printf '%s\n' "$rest" | sed -E 's/^(([^"\\]|\\.)*)".*$/\1/') # Still escaped, as it stands between its quotes.

echo '{"type":"stage","name":"measure"}'
echo '{"type":"progress","pct":50,"message":"measuring"}'
printf '{"task":"%s"}\n' "$task" > task.json
bytes=$(wc -c < task.json | tr -d ' ')

echo '{"type":"action","action":"file.written","data":{"bytes":'"$bytes"'}}'
echo '{"type":"artifact","path":"task.json"}'
echo "this goes to the runner's log" >&2
printf '{"type":"result","result":{"measured":"%s","bytes":%s}}\n' "$task" "$bytes"
