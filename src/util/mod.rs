//! Missing batteries, without a word of our domain.
