# pictures_kept.sh RUN: are questions about held-out pictures, and short facts, answered as before?
set -e
limits='{facts: {limit: 60}}'
[ -z "${SMALL:-}" ] || limits='{picture_questions: {limit: 3}, facts: {limit: 2}}'
"$PYTHON" -m rerouting evaluate "$JOBS/$1/run" --measures '[picture_questions, facts]' --measure_options "$limits" --max_new_tokens 24 --out "$JOB/kept" --details
cp "$JOB/kept/summary.json" "$BACK"
