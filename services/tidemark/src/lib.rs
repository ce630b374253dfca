//! The command line: demo, watch, bench.
