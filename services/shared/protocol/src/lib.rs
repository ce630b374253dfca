//! tidemark.v1: frames, cursor, close codes and the client's state machine. Pure: no I/O, no async runtime.
