//! POST /save, GET /all, and the page's files.
