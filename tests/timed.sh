#!/bin/sh
# Runs a test binary so that it reports how long each test took: an option of libtest that is not
# stable yet, and changes nothing but what is printed. Not for tests that call cargo: what they
# built under RUSTC_BOOTSTRAP would be built again by the next cargo without it, and so on.
RUSTC_BOOTSTRAP=1 exec "$@" -Z unstable-options --report-time
