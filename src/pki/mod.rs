//! Certificates and join tokens.
