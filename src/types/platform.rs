//! Platforms, ARM variants included.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An operating system and a processor, in the words of the OCI image specification.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, ...
    pub architecture: String,
    /// `v6`, `v7`, `v8`; empty where the architecture has none or it is unknown.
    pub variant: String,
}

impl Platform {
    /// Returns the platform with the names that the OCI specification uses: `x86_64` becomes
    /// `amd64`, `aarch64` becomes `arm64`, `armv7l` becomes `arm` `v7`; `arm64` drops its only
    /// variant `v8`, and `arm` without one is `v7`, as containerd has it.
    #[must_use]
    pub fn normalized(os: &str, architecture: &str, variant: &str) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
            ("aarch64" | "arm64", "v8" | "8" | "") => ("arm64", ""),
            ("aarch64" | "arm64", v) => ("arm64", v),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("armv8l" | "armv8", _) => ("arm", "v8"),
            ("armv7l" | "armv7", _) => ("arm", "v7"),
            ("armv6l" | "armv6", _) => ("arm", "v6"),
            ("armv5l" | "armv5tel" | "armv5", _) => ("arm", "v5"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "8") => ("arm", "v8"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("i386" | "i686" | "x86" | "386", v) => ("386", v),
            (other, v) => (other, v),
        };
        Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// Tells whether a node of this platform runs an image made for `image`.
    ///
    /// An empty operating system or architecture of the image runs anywhere, as Swarm has it. A
    /// 32-bit ARM image runs on the same or a newer variant, and not on a 64-bit userland: such a
    /// node would have to say so by reporting `arm`.
    #[must_use]
    pub fn runs(&self, image: &Self) -> bool {
        let node = Self::normalized(&self.os, &self.architecture, &self.variant);
        let wanted = Self::normalized(&image.os, &image.architecture, &image.variant);
        if !image.os.is_empty() && wanted.os != node.os {
            return false;
        }
        if image.architecture.is_empty() {
            return true;
        }
        if wanted.architecture != node.architecture {
            return false;
        }
        match wanted.architecture.as_str() {
            "arm" => wanted.arm_level() <= node.arm_level(),
            "amd64" => wanted.amd64_level() <= node.amd64_level(),
            _ => wanted.variant.is_empty() || wanted.variant == node.variant,
        }
    }

    /// Returns the kernel's word for the processor, which Docker shows of nodes: `x86_64`,
    /// `aarch64`, `armv7l`.
    #[must_use]
    pub fn kernel_name(&self) -> String {
        match (self.architecture.as_str(), self.variant.as_str()) {
            ("amd64", _) => "x86_64",
            ("arm64", _) => "aarch64",
            ("arm", "v5") => "armv5tel",
            ("arm", "v6") => "armv6l",
            ("arm", "v8") => "armv8l",
            ("arm", _) => "armv7l",
            ("386", _) => "i686",
            (other, _) => other,
        }
        .to_owned()
    }

    /// Returns how good a match an image of platform `image` is among several that run here:
    /// higher is better. The newest variant that runs wins.
    #[must_use]
    pub fn preference(&self, image: &Self) -> Option<u8> {
        if !self.runs(image) {
            return None;
        }
        let image = Self::normalized(&image.os, &image.architecture, &image.variant);
        Some(match image.architecture.as_str() {
            "arm" => image.arm_level(),
            "amd64" => image.amd64_level(),
            _ => u8::from(!image.variant.is_empty()),
        })
    }

    fn arm_level(&self) -> u8 {
        self.variant.trim_start_matches('v').parse().unwrap_or(7)
    }

    fn amd64_level(&self) -> u8 {
        self.variant.trim_start_matches('v').parse().unwrap_or(1)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        let mut parts = text.split('/');
        let mut next = || parts.next().unwrap_or("").to_owned();
        Platform { os: next(), architecture: next(), variant: next() }
    }

    #[test]
    fn images_run_where_their_platform_fits() {
        for (node, image, runs) in [
            ("linux/x86_64", "linux/amd64", true),
            ("linux/aarch64", "linux/arm64/v8", true),
            ("linux/amd64", "linux/arm64", false),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/armv6l", "linux/arm/v7", false),
            ("linux/armv7l", "linux/arm/v7", true),
            ("linux/arm64", "linux/arm/v7", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/amd64", "", true),
            ("linux/amd64", "linux/amd64/v3", false),
        ] {
            assert_eq!(p(node).runs(&p(image)), runs, "{image} on {node}");
        }
    }

    #[test]
    fn the_newest_variant_that_runs_is_preferred() {
        let node = p("linux/arm/v7");
        assert!(node.preference(&p("linux/arm/v7")) > node.preference(&p("linux/arm/v6")));
        assert_eq!(node.preference(&p("linux/arm/v8")), None);
    }
}
