# the embedded model as it is ("base") and its tool-tuned child ("rerouted" in the files) on the test requests, all conditions
set -x
MEASURE="split: test, times: 4"; MAX=96
[ -n "$SMALL" ] && MEASURE="split: test, limit: 2, times: 2" && MAX=24
"$PYTHON" -m rerouting evaluate "$JOBS/agents-tune/model" --base.name smollm2-135m --measures '[tool_calls]' --measure_options "{tool_calls: {$MEASURE}}" \
  --max_new_tokens $MAX --out "$JOB/test" > "$BACK/test.txt" 2>&1; rc=$?
cp "$JOB/test/summary.json" "$BACK/test-summary.json"; gzip -c "$JOB/test/rows/tool_calls.jsonl" > "$BACK/test-rows.jsonl.gz"
tail -60 "$BACK/test.txt"
exit $rc
