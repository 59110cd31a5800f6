//! Histograms that keep nothing: the part of `base2histogram` that openraft calls.
//!
//! Nobody reads openraft's statistics without its feature `runtime-stats`.

use std::{fmt, marker::PhantomData};

/// Takes values and keeps none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// Returns an empty histogram, which stays so.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Takes a value.
    pub const fn record(&mut self, _value: u64) {}

    /// Takes a value that was seen `_count` times.
    pub const fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Returns the statistics of no values.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// Statistics of no values: everything is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say what they would be")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[samples: 0]")
    }
}

/// A chart of nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AsciiChart;

impl AsciiChart {
    /// Returns an empty chart, which stays so.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Takes a histogram.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }

    /// Returns what draws the chart.
    #[must_use]
    pub const fn detailed(&self) -> &Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
