# transfer.sh: a child of the embedded model that was taught to refuse, and the default recipe on it without touching a number
set -e
"$PYTHON" benchmarks/second_models.py refusing --chats "$DATA/ultrafeedback_1k.jsonl" --limit 200 --tokens 160 --out "$JOB/model"
"$PYTHON" -m rerouting train --recipe default --model.name "$JOB/model" --evaluation.sets '[]' --out "$JOB/run"
"$PYTHON" -m rerouting evaluate "$JOB/run" --out "$JOB/kept" --measures '[intrinsic, over_refusal, ending]'
cp "$JOB"/kept/summary.json "$JOB"/kept/answers/*.jsonl "$JOB/run/metrics.jsonl" "$BACK"
