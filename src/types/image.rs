//! Image references: what a user writes, and what registry, repository, tag and digest it means.

use std::fmt;

/// The registry that a reference without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The tag that a reference without tag and digest means.
pub const DEFAULT_TAG: &str = "latest";

/// The longest reference that is read; registries allow 255 characters of repository alone.
const REFERENCE_MAX: usize = 512;

/// A parsed image reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port of the registry (`docker.io`, `localhost:5000`).
    pub registry: String,
    /// The repository (`library/nginx`).
    pub repository: String,
    /// The tag, where one was given or nothing else was.
    pub tag: Option<String>,
    /// The digest, `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}

/// The text is not an image reference. The wording is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: {0:?}")]
pub struct InvalidReference(pub String);

impl Reference {
    /// Parses what a user wrote, filling in registry, `library/` and tag as Docker does.
    ///
    /// # Errors
    ///
    /// The text breaks the grammar of references.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let invalid = || InvalidReference(text.to_owned());
        if text.len() > REFERENCE_MAX {
            return Err(invalid());
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(invalid()),
            None => (text, None),
        };
        let (registry, path) = split_registry(rest);
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => return Err(invalid()),
            None => (path, None),
        };
        if !is_repository(repository) || !is_host(registry) {
            return Err(invalid());
        }
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Returns the full name that containerd stores an image under, without the digest where
    /// there is a tag: `docker.io/library/nginx:1.27`.
    #[must_use]
    pub fn canonical(&self) -> String {
        let name = format!("{}/{}", self.registry, self.repository);
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{name}:{tag}"),
            (None, Some(digest)) => format!("{name}@{digest}"),
            (None, None) => format!("{name}:{DEFAULT_TAG}"),
        }
    }

    /// Returns the repository as a user would write it: `nginx`, `example.com/a/b`.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        let repository = self.repository.strip_prefix("library/");
        repository.unwrap_or(&self.repository).to_owned()
    }

    /// Returns the same reference pinned to `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: &str) -> Self {
        Self { digest: Some(digest.to_owned()), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    /// Writes the familiar form, with tag and digest: `nginx:1.27@sha256:...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_repository())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Tells whether the text is a digest that we can check: `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((host, path)) if host.contains('.') || host.contains(':') || host == "localhost" => {
            let host = if host == "index.docker.io" { DEFAULT_REGISTRY } else { host };
            (host, path)
        }
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_repository(repository: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !repository.is_empty()
        && repository.len() <= 255
        && repository.split('/').all(|part| {
            part.bytes().next().is_some_and(alphanumeric)
                && part.bytes().last().is_some_and(alphanumeric)
                && part.bytes().all(|b| alphanumeric(b) || b"._-".contains(&b))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_filled_in() {
        for (text, canonical, familiar) in [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            ("docker.io/library/a", "docker.io/library/a:latest", "a:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("127.0.0.1:5000/bb:1", "127.0.0.1:5000/bb:1", "127.0.0.1:5000/bb:1"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.canonical(), canonical);
            assert_eq!(reference.to_string(), familiar);
        }
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let reference = Reference::parse(&format!("bb@{digest}")).unwrap();
        assert_eq!(reference.tag, None);
        assert_eq!(reference.canonical(), format!("docker.io/library/bb@{digest}"));
        let both = Reference::parse(&format!("bb:1@{digest}")).unwrap();
        assert_eq!(both.to_string(), format!("bb:1@{digest}"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(600);
        for text in ["", "A", "a:", "a@b", "a//b", "/a", "a b", "-a", "a:b:c", long.as_str()] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
