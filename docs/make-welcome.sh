#!/usr/bin/env bash
# Makes rapida_twisted/assistants/welcome.wav again: the greeter's welcome, in a voice that is understood on the telephone
# band. Needs flite and sox. The voice is flite's slt (Carnegie Mellon University, a licence like BSD's: free for any use).
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flite -voice slt -o "$work/wide.wav" -t \
    "Welcome to Rapida. Say something, and you will hear it again. Press the hash key to hang up."
# The telephone's band, speech at -16 dBFS (RMS) and peaks below -1 dBFS; -R: the same file each time.
sox -R "$work/wide.wav" -r 8000 -b 16 -c 1 rapida_twisted/assistants/welcome.wav \
    sinc -n 511 300-3400 norm -3 compand 0.003,0.08 -60,-60,-40,-24,-24,-11,-12,-7,0,-5 -6 \
    sinc -n 511 300-3400 gain -n gain -l 2.3 gain -1.2 pad 0.1 0.1
soxi rapida_twisted/assistants/welcome.wav
