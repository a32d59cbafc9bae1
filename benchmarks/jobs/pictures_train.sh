# pictures_train.sh SEED: circuit breakers in it
set -e
more="--training.max_final_benign_rise 3.0"
[ -z "${SMALL:-}" ] || more="--training.steps 2 --training.batch_size 2 --training.retain_batch_size 2 --sampling.max_new_tokens 4"
"$PYTHON" -m rerouting train --recipe small-vlm --model.name "$JOBS/pictures-build/vlm/model" --seed "$1" --sampling.seed 0 --evaluation.sets '[]' $more --out "$JOB/run"
cp "$JOB/run/metrics.jsonl" "$JOB/run/manifest.json" "$BACK"
