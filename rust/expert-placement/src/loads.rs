//! Measured loads of the experts: windows x layers x experts. SPEC.md, "Loads".

use crate::error::Error;
use crate::limits::MAX_TOTAL_LOAD;
use crate::refusal::{Place, Refusal};

/// How much each expert had to do, in each layer and each window of time. Any unit: only ratios matter.
///
/// A load is a finite number of at least 0; negative, infinite and undefined ones are refused, never clamped.
#[derive(Clone, Debug, PartialEq)]
pub struct Loads {
    windows: usize,
    layers: usize,
    experts: usize,
    values: Vec<f64>,
}

impl Loads {
    /// Loads in row-major order, `[windows, layers, experts]`.
    ///
    /// # Errors
    /// No window or no layer, a wrong number of values, a load that is negative or not finite (named with its place),
    /// or loads that add up to more than [`MAX_TOTAL_LOAD`].
    pub fn new(windows: usize, layers: usize, experts: usize, mut values: Vec<f64>) -> Result<Self, Error> {
        for (parameter, number) in [("num_windows", windows), ("num_layers", layers)] {
            if number == 0 {
                return Err(Error::refused(Refusal::OutOfRange {
                    place: Place::of(parameter),
                    value: 0,
                    min: 1,
                    max: i64::from(crate::limits::NUM_LAYERS.max()),
                    because: "",
                }));
            }
        }
        let expected = windows.checked_mul(layers).and_then(|rows| rows.checked_mul(experts));
        if expected != Some(values.len()) {
            let expected = expected.and_then(|length| u64::try_from(length).ok()).unwrap_or(u64::MAX);
            return Err(Error::wrong_length("loads", values.len(), expected));
        }
        for (position, value) in values.iter_mut().enumerate() {
            if !(value.is_finite() && *value >= 0.0) {
                let (row, expert) = (position / experts, position % experts);
                let place = match windows {
                    1 => Place::at_two("loads", row, expert),
                    _ => Place::at_three("loads", [row / layers, row % layers, expert]),
                };
                let expected = "a finite number of at least 0";
                return Err(Error::refused(Refusal::BadNumber { place, bits: value.to_bits(), expected }));
            }
            // A negative zero would sort below zero by its bits.
            *value += 0.0;
        }
        let total: f64 = values.iter().sum();
        if total <= MAX_TOTAL_LOAD {
            Ok(Self { windows, layers, experts, values })
        } else {
            Err(Error::refused(Refusal::Overflow { parameter: "loads", expected: "a sum of at most 1e301" }))
        }
    }

    /// Number of windows, W.
    #[must_use]
    pub const fn num_windows(&self) -> usize {
        self.windows
    }

    /// Number of layers, L.
    #[must_use]
    pub const fn num_layers(&self) -> usize {
        self.layers
    }

    /// Number of experts, E.
    #[must_use]
    pub const fn num_experts(&self) -> usize {
        self.experts
    }

    /// The loads of one layer in one window, one for each expert.
    pub(crate) fn row(&self, window: usize, layer: usize) -> &[f64] {
        let start = (window * self.layers + layer) * self.experts;
        self.values.get(start..start + self.experts).unwrap_or_default()
    }

    /// The loads of one layer added up over the windows, in their order.
    pub(crate) fn add_up(&self, layer: usize, out: &mut Vec<f64>) {
        out.clear();
        out.extend_from_slice(self.row(0, layer));
        for window in 1..self.windows {
            for (sum, load) in out.iter_mut().zip(self.row(window, layer)) {
                *sum += load;
            }
        }
    }
}
