#!/bin/sh
# Runs a test binary so that it reports how long each test took: an option of libtest that is not
# stable yet, and changes nothing but what is printed.
RUSTC_BOOTSTRAP=1 exec "$@" -Z unstable-options --report-time
