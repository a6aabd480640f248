#!/bin/bash
# An example, written by scripts/document_batch_scripts.py: what `jettagger submit --dry-run` prints.
#SBATCH --job-name=train-particle_cnn
#SBATCH --output=/home/you/tagging/runs/particle_cnn/logs/train_%j.log
#SBATCH --open-mode=append
#SBATCH --time=08:00:00
#SBATCH --mem=8192M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:4
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
set -euo pipefail
cd /home/you/tagging
set +u
source .venv/bin/activate
set -u
export OMP_NUM_THREADS=4

task=train
arguments=(train /home/you/tagging/runs/particle_cnn/jobs/config.yaml --output /home/you/tagging/runs/particle_cnn --resume --workers 4)
ended=/home/you/tagging/runs/particle_cnn/jobs/$task
rm -f "$ended.status"; touch "$ended.started"
echo "$(date -Is) $(hostname): jettagger ${arguments[*]}"

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
MASTER_PORT=$(( 20000 + SLURM_JOB_ID % 10000 ))
export MASTER_ADDR MASTER_PORT
# What torchrun would set; srun hands signals on to every process.
rank='export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS'
rank+=' LOCAL_WORLD_SIZE=4; exec "$@"'
srun --ntasks=8 --cpus-per-task=4 --kill-on-bad-exit=0 bash -c "$rank" rank python -m jettagger "${arguments[@]}" &
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
if (( status == 75 && ${SLURM_RESTART_COUNT:-0} < 100 )); then
    state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T || true)
    if [ "$state" = RUNNING ]; then scontrol requeue "$SLURM_JOB_ID" || true; fi
fi
exit "$status"
