# The recipe smollm2-agent on the tool-tuned model: SEED, FULL (1: with its evaluation sets, intrinsic and facts);
# then the measure tool_calls on validation (to choose by) and test requests.
SEED=$1 FULL=$2
set -x
R="$JOB/run"
SETS="--evaluation.sets []"; [ -n "$FULL" ] && SETS=""
MEASURE="times: 4"; MAX=96; LITTLE=""; FROM="--recipe smollm2-agent"
if [ -n "$SMALL" ]; then
  "$PYTHON" - <<'P'
import os, yaml, pathlib
from rerouting.core.recipes import recipe_path
made = yaml.safe_load(pathlib.Path(recipe_path("smollm2-agent")).read_text())
for name in ("circuit_breaker", "retain", "held_out_harmful", "held_out_benign"):
    for source in made["data"][name]:
        source["options"]["limit"] = 2
for one in made["evaluation"]["sets"]:
    one["limit"] = 2
made["evaluation"]["max_new_tokens"] = 12
pathlib.Path(os.environ["JOB"], "small.yaml").write_text(yaml.safe_dump(made))
P
  FROM="--config $JOB/small.yaml"
  LITTLE="--training.steps 2 --training.batch_size 2 --training.retain_batch_size 2 --sampling.max_new_tokens 6"; MEASURE="limit: 2, times: 2"; MAX=24
fi
"$PYTHON" -m rerouting train $FROM --model.name "$JOBS/agents-tune/model" --seed $SEED $SETS $LITTLE --out "$R"; rc=$?
cp "$R"/metrics.jsonl "$R"/config.yaml "$R"/summary.json "$R"/manifest.json "$BACK"/ 2>/dev/null; mv "$BACK/summary.json" "$BACK/run-summary.json" 2>/dev/null
[ -f "$R/generations.jsonl" ] && gzip -c "$R/generations.jsonl" > "$BACK/generations.jsonl.gz"
echo "trained after $SECONDS s"; [ $rc -eq 0 ] || exit $rc
one() { # SPLIT, more options
  "$PYTHON" -m rerouting evaluate "$R" --measures '[tool_calls]' --measure_options "{tool_calls: {split: $1, $MEASURE$2}}" --max_new_tokens $MAX --out "$JOB/$1" 2>&1 | tail -70 > "$BACK/$1.txt"
  cp "$JOB/$1/summary.json" "$BACK/$1-summary.json"; gzip -c "$JOB/$1/rows/tool_calls.jsonl" > "$BACK/$1-rows.jsonl.gz"
  echo "$1 measured after $SECONDS s"
}
one validation ", injection: false, safety_prompt: ''" & one test "" & 
if [ -n "$FULL" ]; then
  "$PYTHON" -m rerouting evaluate "$R" --measures '[intrinsic, facts]' --out "$JOB/kept" > "$BACK/kept.txt" 2>&1; cp "$JOB/kept/summary.json" "$BACK/kept-summary.json"
fi
wait
cat "$BACK/validation.txt" "$BACK/test.txt"
[ -f "$BACK/test-summary.json" ]
