#!/usr/bin/env bash
# Submit over REST, then follow the status stream (Server-Sent Events) until the run has ended.
set -euo pipefail
client_file=$1
read -r url token < <(python3 -c 'import json, sys; c = json.load(open(sys.argv[1])); print(c["url"], c["token"])' "$client_file")
# The token goes to curl in a file, not in argv, which every user of the machine can read.
auth=$(mktemp); trap 'rm -f "$auth"' EXIT
printf 'header = "Authorization: Bearer %s"\n' "$token" > "$auth"
run=$(curl -sS -K "$auth" "$url/api/v1/runs" -H 'Content-Type: application/json' -H "Idempotency-Key: rest-$RANDOM-$$" -d '{
  "experiment": "rest",
  "spec": {"source": {"inline": {"hello.py": "print(\"hello over REST\")"}}, "script": "hello.py"}
}' | python3 -c 'import json, sys; print(json.load(sys.stdin)["run_id"])')
curl -sSN -K "$auth" "$url/api/v1/runs/$run/events"
curl -sS -K "$auth" "$url/api/v1/runs/$run/logs/user_logs/std_log.txt"
