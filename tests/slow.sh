#!/bin/sh
# The long loops, of which tests/run.sh runs a short one each: sh tests/slow.sh [PYTEST OPTIONS]
exec sh "$(dirname "$0")/run.sh" --slow -m slow "$@"
