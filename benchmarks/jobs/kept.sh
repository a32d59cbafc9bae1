# kept.sh RUN: what a run costs, and where tripped answers end, on test prompts
"$PYTHON" -m rerouting evaluate "$JOBS/$1" --out "$JOB/kept" --measures '[intrinsic, over_refusal, facts, ending]'; rc=$?
cp "$JOB"/kept/summary.json "$JOB"/kept/answers/*.jsonl "$BACK"
exit $rc
