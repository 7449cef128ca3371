#!/bin/sh
# cargo's RUSTC_WRAPPER: the program is the same wherever it is built. DIST_ROOT is the directory of the sources,
# DIST_CARGO_HOME that of cargo.
exec "$@" --remap-path-prefix="$DIST_CARGO_HOME=/usr/share/cargo" --remap-path-prefix="$DIST_ROOT=/usr/src/acctd"
