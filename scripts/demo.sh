#!/usr/bin/env bash
# Simulates top and QCD jets, trains every architecture on them, and compares them with a cut and boosted trees.
#   scripts/demo.sh            about 20k jets; JETS=2000 EPOCHS=2 scripts/demo.sh for a quick look
set -euo pipefail
cd "$(dirname "$0")/.."

jets=${JETS:-8000}          # of each class to train on; a quarter more to test on
test_jets=$((jets / 4))
data=${DATA:-data/top}
runs=${RUNS:-runs/demo}
workers=$(getconf _NPROCESSORS_ONLN)
epochs=()
[ -z "${EPOCHS:-}" ] || epochs=(--set "training.epochs=$EPOCHS")

simulate() {  # process, name, jets, seed
    [ -e "$data/$2.root" ] || jettagger simulate "$1" --jets "$3" --seed "$4" --workers "$workers" --output "$data/$2.root"
}
train() {  # config, further arguments
    jettagger train "configs/$1.yaml" --output "$runs/$1" --overwrite "${epochs[@]}" "${samples[@]}" "${@:2}"
}
samples=(
    --set "data.train={QCD: '$data/QCD_train*.root', Top: '$data/Top_train*.root'}"
    --set "data.test={QCD: '$data/QCD_test*.root', Top: '$data/Top_test*.root'}"
)

simulate QCD QCD_train "$jets" 1
simulate Tbqq Top_train "$jets" 2
simulate QCD QCD_test "$test_jets" 3
simulate Tbqq Top_test "$test_jets" 4
train mlp
train image_cnn
train particle_cnn --set ensemble.members=3
jettagger evaluate "$runs/mlp" "$runs/image_cnn" "$runs/particle_cnn" --mc-dropout 50 --output "$runs/report"
