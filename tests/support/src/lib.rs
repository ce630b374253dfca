//! Parts that only tests use: a TCP proxy that can be cut or frozen.
