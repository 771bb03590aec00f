// SPDX-License-Identifier: MulanPSL-2.0
//! Progress on a terminal, and the interrupt key.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use isula_storage::storage::Progress;

/// Shows how far an import is; silent where there is no terminal.
pub(crate) struct Meter {
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
}

impl Meter {
    pub(crate) fn new(silent: bool, interrupted: Arc<AtomicBool>) -> Self {
        // Hidden by itself when standard error is not a terminal.
        let bar = if silent { ProgressBar::hidden() } else { ProgressBar::no_length() };
        Meter { bar, interrupted }
    }

    pub(crate) fn tell(&self, progress: &Progress) -> ControlFlow<()> {
        match progress {
            Progress::Unpacked { bytes } => {
                self.style("{spinner} {msg}");
                self.bar.set_message(format!("unpacking the archive: {}", HumanBytes(*bytes)));
                self.bar.tick();
            }
            Progress::Layer { number, of, id, bytes, total } => {
                self.style("{msg} {wide_bar} {bytes}/{total_bytes}");
                let short: String = id.as_str().chars().take(12).collect();
                self.bar.set_length(*total);
                self.bar.set_message(format!("layer {number}/{of} {short}"));
                self.bar.set_position(*bytes);
            }
            Progress::LayerDone { id, existed } => {
                let short: String = id.as_str().chars().take(12).collect();
                let what = if *existed { "is there already" } else { "done" };
                self.bar.println(format!("layer {short} {what}"));
            }
            _ => {}
        }
        if self.interrupted.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn style(&self, template: &str) {
        if self.bar.is_hidden() {
            return;
        }
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }
}

/// Set by the first interrupt (`SIGINT`, `SIGTERM`); a second one ends the program at once, which the store survives.
pub(crate) fn interrupts() -> std::io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(flag)
}
