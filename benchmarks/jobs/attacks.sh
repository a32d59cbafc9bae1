# attacks.sh RUN ATTACKS: rows of the attack matrix
sources="[{name: bundled, options: {kind: harmful, split: test}}, {name: harmbench, options: {path: $DATA/harmbench_test.json}}]"
"$PYTHON" -m rerouting attack "--model=$JOBS/$1" --budget standard --attacks "[$2]" --sources "$sources" --out "$JOB/attacks"; rc=$?
(cd "$JOB/attacks" && find . \( -name "*.jsonl" -o -name "*.json" -o -name "*.md" \) -print0 | tar czf "$BACK/attacks.tgz" --null -T -)
exit $rc
