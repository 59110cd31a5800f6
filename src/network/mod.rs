//! Bridges, network namespaces, packet filter, names.
