#!/bin/bash
# kill9.sh - a short round of tests/crash/kill9.sh, which says what it does; KILLS=200 for a long one.
cd "$(dirname "$0")/../.." || exit 1
exec tests/crash/kill9.sh "${KILLS:-10}" "${SEED:-1}"
