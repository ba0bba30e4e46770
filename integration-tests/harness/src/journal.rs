//! The log of a run: what was done to whom, and what was said, with times.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

pub(crate) struct Journal {
    file: File,
    since: Instant,
}

impl Journal {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            file,
            since: Instant::now(),
        })
    }

    /// A line that can't be written is no reason to fail.
    pub(crate) fn write(&mut self, line: &str) {
        writeln!(
            self.file,
            "{:9.3} {line}",
            self.since.elapsed().as_secs_f64()
        )
        .ok();
    }
}
