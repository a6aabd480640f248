#!/bin/bash
# An example, written by scripts/document_batch_scripts.py: what `jettagger submit --dry-run` prints.
set -euo pipefail
cd /home/you/tagging
set +u
source .venv/bin/activate
set -u
export OMP_NUM_THREADS=4

task=train_$1
case $1 in
    0) arguments=(train /home/you/tagging/runs/particle_cnn/jobs/config.yaml --output /home/you/tagging/runs/particle_cnn --resume --member 0 --workers 4) ;;
    1) arguments=(train /home/you/tagging/runs/particle_cnn/jobs/config.yaml --output /home/you/tagging/runs/particle_cnn --resume --member 1 --workers 4) ;;
    2) arguments=(train /home/you/tagging/runs/particle_cnn/jobs/config.yaml --output /home/you/tagging/runs/particle_cnn --resume --member 2 --workers 4) ;;
    3) arguments=(train /home/you/tagging/runs/particle_cnn/jobs/config.yaml --output /home/you/tagging/runs/particle_cnn --resume --member 3 --workers 4) ;;
    4) arguments=(train /home/you/tagging/runs/particle_cnn/jobs/config.yaml --output /home/you/tagging/runs/particle_cnn --resume --member 4 --workers 4) ;;
    *) echo "no task $task" >&2; exit 2 ;;
esac
exec >> /home/you/tagging/runs/particle_cnn/logs/"${task}_$2.log" 2>&1
ended=/home/you/tagging/runs/particle_cnn/jobs/$task
rm -f "$ended.status"; touch "$ended.started"
echo "$(date -Is) $(hostname): jettagger ${arguments[*]}"

timeout --foreground --preserve-status --signal=USR1 28620 python -m jettagger "${arguments[@]}" &
child=$!
asked=no told=no
trap 'asked=yes told=yes; kill -TERM "$child" || true' TERM
trap 'asked=yes told=yes; kill -USR1 "$child" || true' USR1
status=0
wait "$child" || status=$?
while [ "$told" = yes ] && (( status > 128 )); do  # the signal ended the waiting, not the child
    told=no status=0
    wait "$child" || status=$?
done
trap - TERM USR1
if (( status < 0 || status > 128 )) && [ "$asked" = yes ]; then
    status=75  # asked to stop before it could do so by itself, or its end was missed
elif (( status > 128 )); then
    echo "$(date -Is) killed by signal $(( status - 128 ))" | tee -a "$ended.killed"
    if (( $(wc -l < "$ended.killed") <= 3 )); then status=75; fi
fi
echo "$status" > "$ended.status"
exit "$status"
