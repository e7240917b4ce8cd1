#!/usr/bin/env bash
# Builds images with buildah, podman or docker, whichever there is: images/build.sh [operator|trainer|merger|server|server-vllm]…
# `make images` calls it; docs/images.md names the variables that it reads.
set -euo pipefail
cd "$(dirname "$0")/.."

builder=${BUILDER:-$(basename "$(command -v buildah podman docker | head -1)")}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' operator/pyproject.toml)
prefix=${REGISTRY:-localhost}/finetune-operator
tag=${TAG:-$version}
# One fixed time for all files: a layer whose content did not change keeps its digest, whoever builds it.
epoch=${SOURCE_DATE_EPOCH:-315532800}

case $builder in
  buildah) command=(buildah bud --layers --timestamp "$epoch") ;;
  podman) command=(podman build --layers --timestamp "$epoch") ;;
  docker) command=(docker buildx build --load --build-arg "SOURCE_DATE_EPOCH=$epoch") ;;
  *) echo "images/build.sh: no way to build images found: install buildah, podman or docker" >&2; exit 1 ;;
esac
for argument in BASE_IMAGE VLLM_IMAGE PIP_INDEX_URL PIP_EXTRA_INDEX_URL VARIANT; do
  [ -z "${!argument:-}" ] || command+=(--build-arg "$argument=${!argument}")
done
command+=(--build-arg "VERSION=$version" --build-arg "REVISION=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}")
command+=(--build-arg "SOURCE=${SOURCE:-unknown}")
read -r -a flags <<< "${BUILD_FLAGS:-}"

for name in "$@"; do
  target=()
  [ "$name" != server-vllm ] || target=(--target vllm)
  "${command[@]}" "${flags[@]}" "${target[@]}" --file "images/${name%-vllm}/Dockerfile" --tag "$prefix/$name:$tag" . >&2
done
printf "$prefix/%s:$tag\n" "$@"
