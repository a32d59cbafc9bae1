# pictures_attack.sh RUN ATTACKS STEPS: attacks through pictures on base and rerouted model; some pictures come back
cases=48; steps=${3:-150}; [ -z "${SMALL:-}" ] || { cases=2; steps=2; }
"$PYTHON" -m rerouting attack --model "$JOBS/$1/run" --out "$JOB/attacks" --max_new_tokens 80 --budget quick --sources '[{name: drawn, options: {kind: harmful, split: test}}]' \
  --judges '[local, refusal_words, broken]' --attacks "[$2]" --cases "{$(echo "$2" | sed "s/, /: $cases, /g"): $cases}" --attack_options "{image_pgd: {steps: $steps, generations: 3, batch: 64}}"; rc=$?
"$PYTHON" benchmarks/image_attacks.py "$JOB/attacks" "$BACK"; cp "$JOB/attacks/summary.json" "$JOB/attacks/table.md" "$BACK"
exit $rc
