//! Named tables of numbers: what the crate answers, and what the plain reference says that the answer is.

/// Tables in a fixed order, each under its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables(pub(crate) Vec<(&'static str, Vec<i64>)>);

impl Tables {
    pub(crate) fn put<T: Into<i64>>(&mut self, name: &'static str, entries: impl IntoIterator<Item = T>) {
        self.0.push((name, entries.into_iter().map(Into::into).collect()));
    }

    /// Floats, which are to be the same bit by bit.
    pub(crate) fn put_bits(&mut self, name: &'static str, entries: impl IntoIterator<Item = f64>) {
        self.put(name, entries.into_iter().map(|entry| i64::from_ne_bytes(entry.to_ne_bytes())));
    }

    #[cfg(feature = "planted")]
    pub(crate) fn table(&mut self, name: &str) -> &mut Vec<i64> {
        &mut self.0.iter_mut().find(|(own, _)| *own == name).expect("a table of this name").1
    }

    /// The first difference, by the name of its table.
    pub(crate) fn compare(&self, expected: &Self) -> Result<(), String> {
        let names = |tables: &Self| tables.0.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        if names(self) != names(expected) {
            return Err(format!("tables {:?}, expected {:?}", names(self), names(expected)));
        }
        for ((name, ours), (_, other)) in self.0.iter().zip(&expected.0) {
            if ours.len() != other.len() {
                return Err(format!("{name} has {} entries, expected {}", ours.len(), other.len()));
            }
            if let Some(place) = (0..ours.len()).find(|place| ours[*place] != other[*place]) {
                return Err(format!("{name}[{place}] is {}, expected {}", ours[place], other[place]));
            }
        }
        Ok(())
    }
}

/// For tests: that a change of any one entry of any table, and one entry less, is seen, by the name of the table.
#[cfg(test)]
pub(crate) fn expect_every_entry_matters(tables: &Tables) {
    assert_eq!(tables.compare(tables), Ok(()));
    for (place, (name, entries)) in tables.0.iter().enumerate() {
        assert!(!entries.is_empty(), "{name} has nothing to compare in this case");
        for entry in 0..entries.len() {
            let mut broken = tables.clone();
            broken.0[place].1[entry] ^= 1;
            let error = broken.compare(tables).expect_err(name);
            assert!(error.starts_with(&format!("{name}[{entry}] is ")), "{error}");
        }
        let mut broken = tables.clone();
        broken.0[place].1.pop();
        assert!(broken.compare(tables).expect_err(name).starts_with(&format!("{name} has ")));
        broken.0.remove(place);
        assert!(broken.compare(tables).expect_err(name).starts_with("tables "));
    }
}
