//! Devices of the node.

use super::{LIST_MAX, count, invalid, word};
use crate::{cluster::request::Refusal, types::Device};
use std::collections::BTreeSet;

pub(super) fn check(devices: &[Device]) -> Result<(), Refusal> {
    count("devices", devices.len(), LIST_MAX)?;
    let mut targets = BTreeSet::new();
    for device in devices {
        let target = match device {
            Device::Path { source, target, permissions } => {
                path(source)?;
                path(target)?;
                check_permissions(permissions)?;
                target
            }
            Device::Cdi { name } => {
                word("a device", name)?;
                if !is_cdi_name(name) {
                    return Err(invalid(format!(
                        "invalid device {name:?}: an absolute path or vendor.com/class=name is \
                         expected"
                    )));
                }
                name
            }
        };
        if !targets.insert(target) {
            return Err(invalid(format!("duplicate device: {target}")));
        }
    }
    Ok(())
}

fn path(text: &str) -> Result<(), Refusal> {
    word("a device", text)?;
    if !text.starts_with('/') || text.split('/').any(|part| part == "..") {
        return Err(invalid(format!("invalid device {text:?}: an absolute path is expected")));
    }
    Ok(())
}

fn check_permissions(text: &str) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    if text.is_empty() || !text.chars().all(|c| "rwm".contains(c) && seen.insert(c)) {
        return Err(invalid(format!("invalid device mode: {text}")));
    }
    Ok(())
}

/// Tells whether a name is one of CDI's: `vendor.com/class=device`.
fn is_cdi_name(name: &str) -> bool {
    let part = |text: &str, more: &[u8]| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || more.contains(b))
    };
    name.split_once('=').is_some_and(|(kind, device)| {
        kind.split_once('/').is_some_and(|(vendor, class)| {
            part(vendor, b"_-.") && part(class, b"_-") && part(device, b"_-.:")
        })
    })
}
