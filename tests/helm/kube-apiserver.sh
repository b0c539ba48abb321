#!/bin/sh
# Builds Kubernetes' API server, which nobody offers for download by itself, into this folder: kube-apiserver.sh VERSION.
# Its module names its parts by their folders; as a requirement of another module those have to be named by their
# versions, which are the release's with 0 in place of 1. Takes about five minutes on two cores.
set -e
version=$1
from=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
{
  printf 'module built\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v%s\n\n' "$version"
  sed -n "s|^[[:space:]]*k8s.io/\([a-z-]*\) => .*|replace k8s.io/\1 => k8s.io/\1 v0.${version#*.}|p" "$from"
} > go.mod
stamp=k8s.io/component-base/version
minor=${version#*.}
export CGO_ENABLED=0 GOFLAGS=-mod=mod
nice -n 10 go build -o building \
  -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%.*}" \
  k8s.io/kubernetes/cmd/kube-apiserver
mv building kube-apiserver
