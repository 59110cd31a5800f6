//! Images in containerd.
