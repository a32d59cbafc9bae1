# The tool-tuned child of the embedded model, at two learning rates; the one with more right calls on validation requests is $JOB/model.
set -x
MORE="--batch 16 --limit 500"; MEASURE="split: validation, times: 2, injection: false, safety_prompt: ''"; MAX=96
if [ -n "$SMALL" ]; then MORE="--requests 2 --batch 2 --limit 2 --tokens 400"; MEASURE="$MEASURE, limit: 2, times: 1"; MAX=32; fi
one() { # NAME LR TIMES SECONDS
  rm -rf "${JOB:?}/$1" "$JOB/$1-kept"  # of an earlier try
  timeout $4 "$PYTHON" benchmarks/tool_model.py $MORE --lr $2 --times ${SMALL:-$3} --chats "$DATA/ultrafeedback_1k.jsonl" --out "$JOB/$1" 2>&1 | tee "$BACK/$1.txt" || return 1
  echo "$1 tuned after $SECONDS s"; [ $SECONDS -lt ${SMALL:+9}150 ] || return 0
  "$PYTHON" -m rerouting evaluate "$JOB/$1" --base.name smollm2-135m --measures '[tool_calls]' --measure_options "{tool_calls: {$MEASURE}}" \
    --max_new_tokens $MAX --out "$JOB/$1-kept" 2>&1 | tail -40
  cp "$JOB/$1-kept/summary.json" "$BACK/$1-summary.json"; gzip -c "$JOB/$1-kept/rows/tool_calls.jsonl" > "$BACK/$1-rows.jsonl.gz"
  echo "$1 measured after $SECONDS s"
}
set -o pipefail
one a 5e-4 8 ${SMALL:+9}170 & one b 1e-3 12 ${SMALL:+9}110 & wait
"$PYTHON" - <<'P'
import json, os, pathlib
job, back = pathlib.Path(os.environ["JOB"]), pathlib.Path(os.environ["BACK"])
found = {}
for name in "ab":
    file = job / f"{name}-kept" / "summary.json"
    if not (job / name / "config.json").is_file():
        continue
    found[name] = 0.0
    if file.is_file():
        rows = json.loads(file.read_text())["measures"]["tool_calls"]["findings"]
        right = [row["rerouted"] for row in rows if row["name"] == "right call by form" and row["part"] in ("ordinary", "borderline")]
        found[name] = sum(right) / len(right)
best = max(found, key=found.get)
(back / "chosen.json").write_text(json.dumps({"right_by_form_on_validation": found, "chosen": best}))
print(found, best)
(job / best).rename(job / "model")
P
[ -f "$JOB/model/config.json" ]
