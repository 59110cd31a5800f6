//! Seccomp profiles that users send with a service.

use super::{Facts, seccomp_profile::convert};
use crate::util::fuzz;

#[test]
fn seccomp_profiles() {
    fuzz::check("seccomp_profiles", &[], |bytes| {
        let text = std::str::from_utf8(bytes).ok()?;
        let profile = convert(text, "x86_64", &["CAP_SYS_ADMIN"], &Facts::default());
        profile.ok().map(drop)
    });
}
