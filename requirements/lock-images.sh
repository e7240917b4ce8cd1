#!/usr/bin/env bash
# Locks what each image installs to the versions of dev.txt, which the tests ran with:
#   torch-cuda.txt   the layer that trainer, merger and server share: PyTorch with CUDA, and what it needs
#   torch-cpu.txt    the same without CUDA; only where TORCH_INDEX, the URL of an index with PyTorch's CPU wheels, is given
#   NAME.txt         the rest of image NAME
#   build.txt        what the images are built with, and do not hold
set -euo pipefail
cd "$(dirname "$0")/.."

constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
grep --invert-match '^-e' requirements/dev.txt > "$constraints"

compile() {  # compile OUTPUT [OPTION…] < REQUIREMENTS
  local output=$1
  shift
  .venv/bin/uv pip compile - --quiet --universal --python-version 3.11 --generate-hashes --constraint "$constraints" \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file "$output.new" "$@" > /dev/null
  mv "$output.new" "$output"
}

# setuptools, because the trainer's DeepSpeed comes as source.
printf '%s\n' torch setuptools | compile requirements/torch-cuda.txt
if [ -n "${TORCH_INDEX:-}" ]; then
  version=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$constraints")
  # Such an index also holds old versions of what PyTorch needs: the best match of all indexes is taken, not the first index's.
  printf '%s\n' "torch==$version+cpu; sys_platform == 'linux'" setuptools \
    | compile requirements/torch-cpu.txt --index "$TORCH_INDEX" --index-strategy unsafe-best-match
fi
compile requirements/build.txt < requirements/build.in

mapfile -t shared < <(grep --only-matching --perl-regexp '^[\w.-]+(?===)' requirements/torch-cuda.txt | sort --unique)
ours=(finetune-operator finetune-trainer finetune-merger finetune-server)
echo './operator[operator]' | compile requirements/operator.txt --no-emit-package finetune-operator
for image in trainer merger server; do
  printf '%s\n' ./operator "./images/$image" | compile "requirements/$image.txt" "${shared[@]/#/--no-emit-package=}" "${ours[@]/#/--no-emit-package=}"
done
