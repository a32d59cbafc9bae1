# domain.sh SEED [PYTHON]: the worked example of docs/own_domain.md, from YAML to trained and measured model; PYTHON may change `recipe`
set -u
began=$(date +%s)
note() { echo "$(( $(date +%s) - began )) s: $1" | tee -a "$BACK/seconds.txt"; }
back() {
  for file in data/report.json data/recipe.yaml run/summary.json run/metrics.jsonl run/generations.jsonl validation.json; do cp -f "$JOB/$file" "$BACK" 2>/dev/null; done
  for stage in 2_requests 5_completions; do head -c 30000 "$JOB/data/stages/$stage.jsonl" > "$BACK/$stage.head.jsonl" 2>/dev/null; done
}
trap back EXIT
CHANGE="${2:-}" "$PYTHON" benchmarks/domain_job.py prepare "$JOB" "$1" || exit 1
"$PYTHON" -m rerouting data make --domain "$JOB/domain.yaml" --out "$JOB/data" || exit 1
note "sets made"; back
CHANGE="${2:-}" "$PYTHON" benchmarks/domain_job.py change "$JOB" "$1" || exit 1
"$PYTHON" -m rerouting train --config "$JOB/data/recipe.yaml" --out "$JOB/run" || exit 1
note "trained and measured"; back
"$PYTHON" benchmarks/domain_job.py validate "$JOB" "$1"
note "measured on validation requests"
