//! How the output of one container is kept: what the task says, checked, and the file that tells
//! the logger.
//!
//! The logger is a process of its own that knows only the path of the log; what it must do else
//! lies beside it, and stays true for a container that outlives an upgrade.

use crate::types::{Labels, LogConfig, Task};
use std::{collections::BTreeMap, fs, io, path::Path};

/// A file of the log is replaced when it has grown to this.
pub(super) const SIZE_MAX: u64 = 10 << 20;

/// How many files are kept, the one being written included.
pub(super) const FILES: usize = 3;

/// How many files may be asked for: a reader opens all of them.
const FILES_MAX: usize = 1000;

/// How much the attributes of a line may be together, written out: the logger holds it in memory,
/// and every line of the log repeats it.
const ATTRIBUTES_MAX: usize = 16 << 10;

/// The extension of the file.
const EXTENSION: &str = "conf";

/// How the output is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogSetup {
    /// Whether it is kept at all.
    pub(super) keep: bool,
    /// A file of the log is replaced when it has grown to this.
    pub(super) size_max: u64,
    /// How many files are kept, the one being written included.
    pub(super) files: usize,
    /// What every line bears besides its text, as a JSON object; empty is nothing.
    pub(super) attributes: String,
}

impl Default for LogSetup {
    fn default() -> Self {
        Self { keep: true, size_max: SIZE_MAX, files: FILES, attributes: String::new() }
    }
}

/// The task asks for what cannot be. The wordings are Docker's where it has them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LogError {
    /// No such driver.
    #[error("logger: no log driver named '{0}' is registered")]
    Driver(String),
    /// No such option.
    #[error("unknown log opt '{option}' for {driver} log driver")]
    Option {
        /// The option.
        option: String,
        /// The driver.
        driver: String,
    },
    /// An option that Docker has and midge has not.
    #[error("log opt '{option}' is not supported: {why}")]
    Unsupported {
        /// The option.
        option: &'static str,
        /// What to do instead.
        why: &'static str,
    },
    /// A size.
    #[error("invalid log opt 'max-size': {0:?} is no size such as 10m")]
    Size(String),
    /// A count.
    #[error("max-file cannot be less than 1")]
    TooFewFiles,
    /// A count.
    #[error("invalid log opt 'max-file': {0:?} is no number up to {FILES_MAX}")]
    Files(String),
    /// A mode.
    #[error("logger: logging mode not supported: {0}")]
    Mode(String),
    /// A tag.
    #[error("failed to parse log tag {tag:?}: {why}")]
    Tag {
        /// The tag.
        tag: String,
        /// What is wrong with it.
        why: String,
    },
    /// Too much for every line.
    #[error("the log's labels, environment and tag are larger than 16 KiB together")]
    Attributes,
}

/// What a log's attributes are taken from.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    pub(super) task: &'a Task,
    /// The container's labels.
    pub(super) labels: &'a Labels,
    /// The environment, the image's included.
    pub(super) env: &'a [String],
    pub(super) image: &'a str,
    /// The image's digest.
    pub(super) image_id: &'a str,
    /// What runs.
    pub(super) command: &'a [String],
}

impl LogSetup {
    /// Reads what the task says.
    pub(super) fn new(config: Option<&LogConfig>, origin: &Origin<'_>) -> Result<Self, LogError> {
        let Some(config) = config else { return Ok(Self::default()) };
        let driver = match config.driver.as_str() {
            "" | "json-file" => "json-file",
            driver @ ("local" | "none") => driver,
            other => return Err(LogError::Driver(other.to_owned())),
        };
        if driver == "none" {
            return Ok(Self { keep: false, ..Self::default() });
        }
        let mut setup = Self::default();
        let mut attributes = BTreeMap::new();
        for (option, value) in &config.options {
            match option.as_str() {
                "max-size" => {
                    setup.size_max = size(value).ok_or_else(|| LogError::Size(value.clone()))?;
                }
                "max-file" => setup.files = files(value)?,
                // The logger never makes its container wait, so both are true of it.
                "mode" if matches!(value.as_str(), "" | "blocking" | "non-blocking") => {}
                "mode" => return Err(LogError::Mode(value.clone())),
                "max-buffer-size" => {}
                "compress" if value == "false" => {}
                "compress" => {
                    let why = "what the log takes is bounded by max-size and max-file";
                    return Err(LogError::Unsupported { option: "compress", why });
                }
                "labels" | "env" | "tag" | "labels-regex" | "env-regex" if driver == "local" => {
                    return Err(unknown(option, driver));
                }
                "labels" => {
                    let given = names(value).filter_map(|name| {
                        Some((name.to_owned(), origin.labels.get(name)?.clone()))
                    });
                    attributes.extend(given);
                }
                "env" => attributes.extend(names(value).filter_map(|name| {
                    // The last of a name is the one that the container has.
                    let mut env = origin.env.iter().rev().filter_map(|one| one.split_once('='));
                    env.find(|(known, _)| *known == name).map(|(k, v)| (k.to_owned(), v.to_owned()))
                })),
                "tag" => {
                    let tag = tag(value, origin)?;
                    attributes.extend((!tag.is_empty()).then(|| ("tag".to_owned(), tag)));
                }
                "labels-regex" => return Err(regex("labels-regex")),
                "env-regex" => return Err(regex("env-regex")),
                _ => return Err(unknown(option, driver)),
            }
        }
        if !attributes.is_empty() {
            setup.attributes = serde_json::json!(attributes).to_string();
        }
        if setup.attributes.len() > ATTRIBUTES_MAX {
            return Err(LogError::Attributes);
        }
        Ok(setup)
    }

    /// Writes it beside the log at `path`; nothing where all is as it is by itself.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        let Self { keep, size_max, files, attributes } = self;
        let text =
            format!("keep {keep}\nsize {size_max}\nfiles {files}\nattributes {attributes}\n");
        fs::write(path.with_extension(EXTENSION), text)
    }

    /// Reads what lies beside the log at `path`.
    pub(super) fn read(path: &Path) -> Self {
        let mut setup = Self::default();
        let text = fs::read_to_string(path.with_extension(EXTENSION)).unwrap_or_default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            match key {
                "keep" => setup.keep = value != "false",
                "size" => setup.size_max = value.parse().unwrap_or(SIZE_MAX),
                "files" => setup.files = value.parse().unwrap_or(FILES),
                "attributes" => value.clone_into(&mut setup.attributes),
                _ => {}
            }
        }
        setup
    }
}

fn unknown(option: &str, driver: &str) -> LogError {
    LogError::Option { option: option.to_owned(), driver: driver.to_owned() }
}

fn regex(option: &'static str) -> LogError {
    LogError::Unsupported { option, why: "name what is wanted in 'labels' and 'env'" }
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// Reads `10m`: as Docker, of thousands, with or without a B.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let unit = unit.trim_start();
    let factor: u64 = match unit.strip_suffix('b').unwrap_or(unit) {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(factor)? / 10_u64.pow(digits);
    whole.checked_add(part).filter(|size| *size > 0)
}

fn files(text: &str) -> Result<usize, LogError> {
    let wrong = || LogError::Files(text.to_owned());
    let count = text.trim().parse::<i64>().map_err(|_| wrong())?;
    if count < 1 {
        return Err(LogError::TooFewFiles);
    }
    usize::try_from(count).ok().filter(|count| *count <= FILES_MAX).ok_or_else(wrong)
}

/// Fills in `{{.Name}}` and its like.
fn tag(tag: &str, origin: &Origin<'_>) -> Result<String, LogError> {
    let wrong = |why: String| LogError::Tag { tag: tag.to_owned(), why };
    let mut text = String::new();
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once("{{") {
        let (field, after) =
            after.split_once("}}").ok_or_else(|| wrong("an action is not closed".to_owned()))?;
        text.push_str(before);
        let field = field.trim();
        let value = field_of(field, origin);
        text.push_str(&value.ok_or_else(|| wrong(format!("there is no field {field}")))?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn field_of(field: &str, origin: &Origin<'_>) -> Option<String> {
    /// What Docker shows of an id.
    const SHORT_ID: usize = 12;
    let short = |id: &str| id.chars().take(SHORT_ID).collect::<String>();
    let id = origin.task.id.as_str();
    let digest = origin.image_id.strip_prefix("sha256:").unwrap_or(origin.image_id);
    Some(match field {
        ".ID" => short(id),
        ".FullID" | ".ContainerID" => id.to_owned(),
        ".Name" | ".ContainerName" => origin.task.full_name(),
        ".ImageID" => short(digest),
        ".ImageFullID" => origin.image_id.to_owned(),
        ".ImageName" => origin.image.to_owned(),
        ".DaemonName" => "midge".to_owned(),
        ".Command" => origin.command.join(" "),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::tests::task;

    fn setup(driver: &str, options: &[(&str, &str)]) -> Result<LogSetup, String> {
        let options =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let config = LogConfig { driver: driver.to_owned(), options };
        let labels = Labels::from([("tier".to_owned(), "front \"end\"".to_owned())]);
        let task = task(1, "true");
        let origin = Origin {
            task: &task,
            labels: &labels,
            env: &["A=1".to_owned(), "B=2".to_owned()],
            image: "docker.io/library/web:1",
            image_id: "sha256:0123456789abcdef",
            command: &["sleep".to_owned(), "1".to_owned()],
        };
        LogSetup::new(Some(&config), &origin).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_and_handed_on() {
        let given = [
            ("max-size", "1.5m"),
            ("max-file", "5"),
            ("labels", "tier, none"),
            ("env", "B,C"),
            ("tag", "{{.ImageName}}/{{ .ImageID }}/{{.Name}}"),
            ("mode", "non-blocking"),
        ];
        let setup = setup("json-file", &given).unwrap();
        assert_eq!((setup.keep, setup.size_max, setup.files), (true, 1_500_000, 5));
        expect_test::expect![[
            r#"{"B":"2","tag":"docker.io/library/web:1/0123456789ab/web.1.0000000000000000000000001","tier":"front \"end\""}"#
        ]]
        .assert_eq(&setup.attributes);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        assert_eq!(LogSetup::read(&path), LogSetup::default());
        setup.write(&path).unwrap();
        assert_eq!(LogSetup::read(&path), setup);
        assert!(
            !super::LogSetup::new(None, &origin_of(&task(1, "x")))
                .unwrap()
                .attributes
                .contains('x')
        );
    }

    fn origin_of(task: &Task) -> Origin<'_> {
        static NONE: Labels = Labels::new();
        Origin { task, labels: &NONE, env: &[], image: "", image_id: "", command: &[] }
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        for (driver, option, value, expected) in [
            ("syslog", "a", "", "logger: no log driver named 'syslog' is registered"),
            ("json-file", "fly", "", "unknown log opt 'fly' for json-file log driver"),
            ("local", "tag", "x", "unknown log opt 'tag' for local log driver"),
            ("json-file", "max-file", "0", "max-file cannot be less than 1"),
            ("json-file", "max-file", "x", "invalid log opt 'max-file'"),
            ("json-file", "max-size", "10q", "invalid log opt 'max-size'"),
            ("json-file", "max-size", "-1", "invalid log opt 'max-size'"),
            ("json-file", "max-size", "0", "invalid log opt 'max-size'"),
            ("json-file", "mode", "x", "logger: logging mode not supported: x"),
            ("json-file", "compress", "true", "log opt 'compress' is not supported"),
            ("json-file", "tag", "{{.Fly}}", "failed to parse log tag \"{{.Fly}}\": there is no"),
            ("json-file", "tag", "{{.ID", "failed to parse log tag"),
        ] {
            let error = setup(driver, &[(option, value)]).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(!setup("none", &[("fly", "1")]).unwrap().keep);
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("10m", Some(10_000_000)),
            ("1kb", Some(1000)),
            ("7", Some(7)),
            ("0.5 GB", Some(500_000_000)),
            ("", None),
            ("m", None),
            ("99999999t", None),
            ("1.x", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }
}
