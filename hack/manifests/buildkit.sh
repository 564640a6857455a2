#!/bin/sh
# Build the image with BuildKit on the base of hack/manifests/image.sh, which has to have run, and compare the two:
# `hack/manifests/buildkit.sh ARCHIVE_OF_IMAGE_SH`, as root, with buildkitd, buildctl, runc and buildah in PATH.
# Prints each difference, and exits with 1 if there is one. No registry is needed.
set -eu
cd "$(dirname "$0")/../.."
work="$(mktemp -d)"
daemon=""
trap 'test -z "$daemon" || { kill "$daemon"; wait "$daemon" || true; }; rm -rf "$work"' EXIT

buildah push --quiet localhost/svcmesh-base:trixie-slim "oci:$work/base:trixie-slim"
base="$(sed -n 's/.*"digest":"\(sha256:[0-9a-f]*\)".*/\1/p' "$work/base/index.json")"
printf '[global]\ncert = /run/ca.crt\n' > "$work/pip.conf"

address="unix://$work/buildkit.sock"
buildkitd --root "$work/state" --addr "$address" --containerd-worker=false --oci-worker-net host \
  --allow-insecure-entitlement network.host 2> "$work/buildkitd.log" &
daemon=$!
for _ in $(seq 100); do
  buildctl --addr "$address" debug workers >/dev/null 2>&1 && break
  sleep 0.1
done
buildctl --addr "$address" build --progress plain --frontend dockerfile.v0 \
  --local context=. --local dockerfile=. \
  --oci-layout "base=$work/base" --opt build-arg:BASE=svcmesh-base --opt "context:svcmesh-base=oci-layout://base@$base" \
  --opt force-network-mode=host --allow network.host \
  --secret "id=pip.conf,src=$work/pip.conf" --secret id=ca.crt,src=/etc/ssl/certs/ca-certificates.crt \
  --output "type=docker,dest=$work/image.tar,name=svcmesh-agent" 2> "$work/build.log" || { cat "$work/build.log"; exit 2; }
"${PYTHON:-.venv/bin/python}" -m hack.manifests.compare_images "$1" "$work/image.tar"
