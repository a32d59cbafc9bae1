# The measure bfcl on a run: JOB-NAME. Left out quietly where there are no data.
[ -d "$DATA/bfcl" ] || { echo "no $DATA/bfcl" | tee "$BACK/bfcl.txt"; exit 0; }
set -x
LIMIT=""; MAX=96; [ -n "$SMALL" ] && LIMIT=", limit: 2" && MAX=16
"$PYTHON" -m rerouting evaluate "$JOBS/$1/run" --measures '[bfcl]' --measure_options "{bfcl: {path: $DATA/bfcl, categories: [simple_python, multiple, irrelevance]$LIMIT}}" \
  --max_new_tokens $MAX --out "$JOB/kept" > "$BACK/bfcl.txt" 2>&1; rc=$?
tail -30 "$BACK/bfcl.txt"
cp "$JOB/kept/summary.json" "$BACK/summary.json"; gzip -c "$JOB/kept/rows/bfcl.jsonl" > "$BACK/rows.jsonl.gz"
exit $rc
