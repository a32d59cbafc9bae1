# pictures_build.sh: the small vision-language model, its eye trained on drawn pictures (docs/multimodal.md)
set -e
more="--pictures 20000 --texts 900 --seconds 86"
[ -z "${SMALL:-}" ] || more="--pictures 40 --texts 6 --see_steps 2 --see_batch 8 --tell_steps 3 --tell_batch 3 --test_pictures 6 --answer_tokens 6"
"$PYTHON" -m rerouting small-vlm --out "$JOB/vlm" $more
cp "$JOB/vlm/summary.json" "$JOB/vlm/training.jsonl" "$JOB/vlm/answers.jsonl" "$BACK"
