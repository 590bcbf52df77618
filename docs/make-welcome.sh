#!/usr/bin/env bash
# Makes rapida_twisted/assistants/welcome.wav again: the greeter's welcome, in a voice that is understood on the telephone
# band. Needs flite and sox.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flite -voice slt -o "$work/wide.wav" -t \
    "Welcome to Rapida. Say something, and you will hear it again. Press the hash key to hang up."
sox "$work/wide.wav" -r 8000 -b 16 -c 1 rapida_twisted/assistants/welcome.wav \
    highpass 300 lowpass 3400 gain -n -3 compand 0.01,0.2 -40,-30,-20,-14,0,-6 0 pad 0.2 0.2
soxi rapida_twisted/assistants/welcome.wav
