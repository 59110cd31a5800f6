//! What users and other nodes ask of containers, images and volumes: here, and on the node that has
//! them.

pub(crate) mod chores;
pub(crate) mod container;
pub(crate) mod ending;
pub(crate) mod exec;
pub(crate) mod garbage;
pub(crate) mod images;
pub(crate) mod logs;
