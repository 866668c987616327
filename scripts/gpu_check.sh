#!/usr/bin/env bash
# Checks psgd on a machine with a CUDA GPU, and prints figures: scripts/gpu_check.sh [WHEELS]
#
# Needs Python with a CUDA build of torch, and no network: whatever else is missing comes from wheels in the folder
# WHEELS (default: ./wheels), and goes into a virtual environment of its own, beside the machine's packages.
# PYTHON names the interpreter (default: python3), GPU_VENV the environment (default: .venv-gpu).
set -euo pipefail
wheels=$(realpath -m "${1:-${WHEELS:-wheels}}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
venv=${GPU_VENV:-.venv-gpu}

"$python" scripts/gpu_packages.py cuda

if [[ ! -x $venv/bin/python ]]; then
    "$python" -m venv --system-site-packages --without-pip "$venv"
fi
mapfile -t chosen < <("$venv/bin/python" scripts/gpu_packages.py choose "$wheels")
if ((${#chosen[@]})); then
    "$python" -m pip --python "$venv/bin/python" install --quiet --no-index --no-deps "${chosen[@]}"
fi
"$venv/bin/python" scripts/gpu_packages.py check "$wheels"

echo "gpu_check: tests, bits against a plain loop on the same hardware among them"
mapfile -t tests < <(grep --recursive --files-with-matches --include='*.py' 'pytest.mark.gpu' tests)
# CUDA builds of torch warn of things that are nobody's fault.
"$venv/bin/python" -m pytest --quiet -W default -m gpu "${tests[@]}"

echo "gpu_check: figures"
PYTHONPATH=. "$venv/bin/python" scripts/bench/gpu_figures.py
