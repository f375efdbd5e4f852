#!/bin/bash
# Runs a backup drill once none has succeeded for DRILL_EVERY_SECONDS; after a failure, again within
# an hour.
set -euo pipefail

metrics=/metrics/broker_drill.prom

seconds_until_due() {
    if [ -e "$metrics" ]; then
        echo $((DRILL_EVERY_SECONDS - $(date +%s) + $(stat --format=%Y "$metrics")))
    else
        echo 0
    fi
}

while true; do
    wait=$(seconds_until_due)
    if [ "$wait" -gt 0 ]; then
        sleep "$wait"
        continue
    fi
    # Remains of a killed drill.
    rm -rf /scratch/drill-*
    if ! broker drill --backups /backups --textfile "$metrics"; then
        sleep "$((DRILL_EVERY_SECONDS < 3600 ? DRILL_EVERY_SECONDS : 3600))"
    fi
done
