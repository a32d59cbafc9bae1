# ablation.sh SEED VARIANT: a row of the ablation table (benchmarks/ablation.py), on validation prompts
"$PYTHON" benchmarks/ablation.py --out "$JOB" --seeds "$1" "$2"; rc=$?
(cd "$JOB" && find . \( -name summary.json -o -name metrics.jsonl \) -size -400k -print0 | tar cf - --null -T -) | tar xf - -C "$BACK"
exit $rc
