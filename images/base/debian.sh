#!/usr/bin/env bash
# Makes a base image from Debian's packages alone, where no registry can be reached: images/base/debian.sh [NAME[:TAG]]
# Needs root, mmdebstrap and buildah. SUITE and MIRROR choose Debian's release and where its packages come from.
set -euo pipefail

name=${1:-localhost/debian-python:${SUITE:-bookworm}}
folder=$(mktemp --directory)
trap 'rm -rf "$folder"' EXIT

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800} mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' "${SUITE:-bookworm}" "$folder/base.tar" ${MIRROR:+"$MIRROR"}

container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/base.tar" /
buildah commit --quiet --rm --timestamp "${SOURCE_DATE_EPOCH:-315532800}" "$container" "$name" > /dev/null
echo "$name"
