#!/bin/sh
exec env PYTHONPATH=/tmp/t3 /work/main/.venv/bin/python "$@"
