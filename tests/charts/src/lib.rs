//! Helm is run by the tests beside this file; there is nothing here.
