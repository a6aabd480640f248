#!/usr/bin/env bash
# Trains each architecture with three seeds on the jets of a folder, and reports all with paired errors.
#   scripts/compare_seeds.sh DATA RUNS [OPTIONS OF jettagger train …]
# DATA holds {QCD,Top}_train*.root and {QCD,Top}_test*.root.  SEEDS="1 2 3"  ARCHITECTURES="mlp image_cnn particle_cnn"
#   CONFIGS is the folder of ARCHITECTURE.yaml (default: the configs beside this script).
set -euo pipefail
data=${1:?usage: compare_seeds.sh DATA RUNS}
runs=${2:?usage: compare_seeds.sh DATA RUNS}
shift 2
configs=${CONFIGS:-$(cd "$(dirname "$0")/../configs" && pwd)}

trained=()
for architecture in ${ARCHITECTURES:-mlp image_cnn particle_cnn}; do
    for seed in ${SEEDS:-1 2 3}; do
        run=$runs/${architecture}_seed$seed
        jettagger train "$configs/$architecture.yaml" --output "$run" --overwrite \
            --set "training.seed=$seed" \
            --set "data.train={QCD: '$data/QCD_train*.root', Top: '$data/Top_train*.root'}" \
            --set "data.test={QCD: '$data/QCD_test*.root', Top: '$data/Top_test*.root'}" "$@"
        trained+=("$run")
    done
done
jettagger evaluate "${trained[@]}" --reference "${REFERENCE:-boosted trees}" --output "$runs/report"
