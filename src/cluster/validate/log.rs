//! Where output goes.

use super::{invalid, texts, word};
use crate::{
    cluster::request::{Class, Refusal},
    types::LogConfig,
};

/// The options of the drivers that write files.
const OPTIONS: [&str; 5] = ["env", "labels", "max-file", "max-size", "tag"];

/// The most files of one container: more are a mistake, and each is looked at when logs are read.
const FILES_MAX: u64 = 1_000;

pub(super) fn check(log: Option<&LogConfig>) -> Result<(), Refusal> {
    let Some(LogConfig { driver, options }) = log else { return Ok(()) };
    word("the log driver", driver)?;
    texts("log options", options.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]))?;
    let known: &[&str] = match driver.as_str() {
        "json-file" | "local" => &OPTIONS,
        "none" => &[],
        other => {
            return Err(Refusal::new(
                Class::Unsupported,
                format!(
                    "log driver {other:?} (--log-driver) is not supported yet: json-file, local \
                     and none are known"
                ),
            ));
        }
    };
    if let Some(unknown) = options.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(invalid(format!("unknown log opt '{unknown}' for {driver} log driver")));
    }
    if let Some(size) = options.get("max-size")
        && !is_size(size)
    {
        return Err(invalid(format!("invalid value for max-size: {size}: 10m or 1g is expected")));
    }
    if let Some(files) = options.get("max-file")
        && !files.parse::<u64>().is_ok_and(|files| (1..=FILES_MAX).contains(&files))
    {
        return Err(invalid(format!(
            "invalid value for max-file: {files}: 1 to {FILES_MAX} is expected"
        )));
    }
    Ok(())
}

/// Tells whether a text is a size as Docker writes it: a number above 0, and a unit or none; or -1
/// for no bound.
fn is_size(text: &str) -> bool {
    if text == "-1" {
        return true;
    }
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let positive = number.parse::<f64>().is_ok_and(|number| number > 0.0 && number < 1e15);
    positive && matches!(unit, "" | "k" | "m" | "g" | "t")
}
