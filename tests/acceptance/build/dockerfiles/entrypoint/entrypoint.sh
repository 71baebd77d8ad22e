#!/bin/bash
set -euo pipefail
trap 'echo stopped by USR1; exit 7' USR1
if [ "${1:-}" = serve ]; then
    touch /var/lib/app/started
    echo "serving with ${*:2}"
    while :; do sleep 0.1; done
fi
exec "$@"
