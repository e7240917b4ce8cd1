#!/usr/bin/env bash
# Brings this machine to where tests/e2e can run: Debian's packages of a node, the node's programs, and the images, unless E2E_TAG names built ones.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=$(.venv/bin/devcluster node-packages)
read -r -a packages <<< "$missing"
command -v buildah > /dev/null || packages+=(buildah)
if [ "${#packages[@]}" -gt 0 ]; then
  apt-get install --yes --no-install-recommends "${packages[@]}" \
    || { apt-get update && apt-get install --yes --no-install-recommends "${packages[@]}"; }
fi
.venv/bin/devcluster binaries --node

if [ -n "${E2E_TAG:-}" ]; then
  echo "taking the images with the tag $E2E_TAG as they are" >&2
  exit
fi
if [ -z "${BASE_IMAGE:-}" ] && ! buildah pull --quiet docker.io/library/python:3.12-slim-bookworm > /dev/null 2>&1; then
  echo "no registry can be reached: the images get a base from Debian's packages" >&2
  command -v mmdebstrap > /dev/null || apt-get install --yes --no-install-recommends mmdebstrap
  base=localhost/debian-python:bookworm
  buildah inspect --type image "$base" > /dev/null 2>&1 || images/base/debian.sh "$base"
  export BASE_IMAGE=$base
fi
# What this machine trusts, and where its pip looks, holds in the build too.
flags=(--isolation chroot --network host)
for path in /etc/ssl/certs /etc/pip.conf; do
  [ ! -e "$path" ] || flags+=(-v "$path:$path:ro")
done
TAG=e2e BUILDER=buildah BUILD_FLAGS="${BUILD_FLAGS:-${flags[*]}}" images/build.sh operator trainer merger server
