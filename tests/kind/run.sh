#!/usr/bin/env bash
# Builds the image, makes a kind cluster, installs the chart with simulated GPUs, runs the quickstart, uninstalls.
# `run.sh keep` leaves the cluster there. KIND_IMAGE is the node image, if not kind's own. Needs docker, kind, helm and kubectl.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly name=dra-driver namespace=dra-driver
readonly kubectl=(kubectl --context "kind-$name")

for tool in docker kind helm kubectl; do
  command -v "$tool" >/dev/null || { echo "error: $tool is not installed; make kind needs it" >&2; exit 1; }
done

cleanup() {
  kind delete cluster --name "$name"
}

docker build --tag dra-driver:kind .
kind create cluster --config tests/kind/cluster.yaml ${KIND_IMAGE:+--image "$KIND_IMAGE"} --wait 2m
if [[ "${1:-}" != keep ]]; then
  trap cleanup EXIT
fi
kind load docker-image dra-driver:kind --name "$name"
helm install gpus helm/dra-driver --kube-context "kind-$name" \
  --namespace "$namespace" --create-namespace --values tests/kind/values.yaml --wait

slices() {
  "${kubectl[@]}" get resourceslices --field-selector spec.driver=gpu.dra-driver.dev "$@"
}
for _ in {1..60}; do
  [[ -n "$(slices --output name)" ]] && break
  sleep 1
done
slices

for file in demo/quickstart/[1-4]-*.yaml; do
  "${kubectl[@]}" apply --filename "$file"
done
"${kubectl[@]}" wait --for=condition=Ready pod --all --timeout=3m
"${kubectl[@]}" get pods,resourceclaims
for pod in $("${kubectl[@]}" get pods --output name); do
  echo "$pod sees:"
  "${kubectl[@]}" exec "$pod" -- sh -c 'env | grep DRA_DEVICE; ls /dev | grep nvidia'
done

"${kubectl[@]}" delete --filename demo/quickstart --ignore-not-found --wait
helm uninstall gpus --kube-context "kind-$name" --namespace "$namespace" --wait --timeout 11m
for _ in {1..60}; do # what a plugin could not withdraw any more the kubelet wipes half a minute later
  left=$(slices --output name)
  [[ -z "$left" ]] && break
  sleep 1
done
if [[ -n "$left" ]]; then
  echo "error: left behind: $left" >&2
  exit 1
fi
echo "done: the quickstart ran, and nothing is left"
