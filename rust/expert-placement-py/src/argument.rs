//! Python values as arguments of the crate: every refusal names the parameter, the value and what was expected.

use std::convert::Infallible;
use std::ops::RangeInclusive;

use expert_placement::limits::Limit;
use expert_placement::{Printable, Strategy};
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyInt, PyString};

use crate::partition::Partition;
use crate::to_py_err;

/// A Python integer: what fits a machine integer, or the text of one that no range here contains.
enum Integer {
    Small(i64),
    Huge(String),
}

/// Anything with `__index__` but a bool, which is a mistake wherever a count or an id is wanted.
fn integer(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<Integer> {
    if value.is_exact_instance_of::<PyInt>() || !is_bool(value)? {
        match value.extract::<i64>() {
            Ok(small) => return Ok(Integer::Small(small)),
            Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
                return Ok(Integer::Huge(digits(&value.call_method0("__index__")?)));
            }
            Err(error) if is_of_the_value(&error, value)? => {}
            Err(error) => return Err(error),
        }
    }
    Err(wrong_type(parameter, "an int", value))
}

/// Whether an error that a value raises when it is asked for its integer says that it is none.
fn is_of_the_value(error: &PyErr, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = value.py();
    // A tensor says so by other errors, such as one without values by a runtime error.
    let is_tensor = value.hasattr("detach")?;
    Ok(error.is_instance_of::<PyTypeError>(py) || is_tensor && error.is_instance_of::<PyRuntimeError>(py))
}

/// An int as text, whatever a subclass would say, and of many digits the beginning; Python refuses to print thousands.
fn digits(value: &Bound<'_, PyAny>) -> String {
    let text = value.py().get_type::<PyInt>().call_method1("__repr__", (value,));
    match text.map(|text| text.to_string()) {
        Ok(text) => Printable { text: &text, most: MOST_DIGITS }.to_string(),
        Err(_) => "a huge integer".to_owned(),
    }
}

/// How many digits of an integer are shown.
const MOST_DIGITS: usize = 120;

/// The first of some values that fits no machine integer, as text with its position; `None` where not all are ints.
pub(crate) fn first_huge(values: &Bound<'_, PyAny>) -> PyResult<Option<(String, usize)>> {
    let mut found = None;
    for (position, value) in values.try_iter()?.enumerate() {
        let value = value?;
        if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
            return Ok(None);
        }
        if found.is_none() && value.extract::<i64>().is_err() {
            found = Some((digits(&value), position));
        }
    }
    Ok(found)
}

/// Whether a value is a truth value, of Python or of an array library; some of these pass for integers.
pub(crate) fn is_bool(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if value.is_instance_of::<PyBool>() {
        return Ok(true);
    }
    match value.getattr_opt("dtype")? {
        Some(dtype) => Ok(dtype.str()?.to_cow()?.trim_start_matches("torch.") == "bool"),
        None => Ok(false),
    }
}

pub(crate) fn wrong_type(parameter: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let actual = value.get_type().name().map_or_else(|_| "another type".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{parameter} must be {expected}, got `{actual}`"))
}

/// A count within the limit of the parameter that it is given for.
pub(crate) fn count(limit: Limit, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    match integer(limit.parameter(), value)? {
        Integer::Small(small) => limit.check(small.into()).map_err(to_py_err),
        Integer::Huge(text) => Err(PyValueError::new_err(limit.describe(text).to_string())),
    }
}

/// A partition.
pub(crate) fn partition<'a, 'py>(value: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, Partition>> {
    value.cast().map_err(|_| wrong_type("partition", "a Partition", value))
}

/// A rank of `partition`.
pub(crate) fn rank(partition: &expert_placement::Partition, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    match integer("rank", value)? {
        Integer::Small(small) => partition.check_rank(small.into()).map_err(to_py_err),
        Integer::Huge(text) => Err(huge_id("rank", &text, partition.num_ranks())),
    }
}

/// An expert of `partition`.
pub(crate) fn expert(partition: &expert_placement::Partition, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    match integer("expert", value)? {
        Integer::Small(small) => partition.check_expert(small.into()).map_err(to_py_err),
        Integer::Huge(text) => Err(huge_id("expert", &text, partition.num_experts())),
    }
}

fn huge_id(parameter: &str, text: &str, end: u32) -> PyErr {
    PyIndexError::new_err(format!("{parameter}={text} is out of range, expected 0..{end}"))
}

/// A strategy by its name, or why the value is none; kept until the call, so that no prefix is put before the error.
pub(crate) struct StrategyArgument(PyResult<Strategy>);

impl Default for StrategyArgument {
    fn default() -> Self {
        Self(Ok(Strategy::default()))
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for StrategyArgument {
    type Error = Infallible;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> Result<Self, Infallible> {
        Ok(Self(match value.cast::<PyString>() {
            Ok(name) => strategy(name),
            Err(_) => Err(wrong_type("strategy", "a str", &value)),
        }))
    }
}

fn strategy(name: Borrowed<'_, '_, PyString>) -> PyResult<Strategy> {
    if let Ok(name) = name.to_str() {
        return name.parse().map_err(to_py_err);
    }
    // Half a surrogate pair is no text for the crate, which sees its escape.
    escaped(&name)?.parse().map_err(to_py_err)
}

/// A text in which each half of a surrogate pair, which is no character, stands as its escape.
pub(crate) fn escaped(text: &Bound<'_, PyString>) -> PyResult<String> {
    text.call_method1("encode", ("utf-8", "backslashreplace"))?.call_method0("decode")?.extract()
}

/// A text of others for a message, no longer than a few lines.
pub(crate) const fn printable(text: &str) -> Printable<'_> {
    Printable { text, most: 240 }
}

impl StrategyArgument {
    pub(crate) fn checked(self) -> PyResult<Strategy> {
        self.0
    }
}

/// Whether a value is one integer, and not an array of them.
pub(crate) fn is_integer(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(value.is_instance_of::<PyInt>() || (value.hasattr("__index__")? && !value.hasattr("__len__")?))
}

/// A number that is counted. One that fits is for the crate to refuse, which says why; others are out of `range`.
pub(crate) fn natural(parameter: &str, value: &Bound<'_, PyAny>, range: RangeInclusive<u32>) -> PyResult<u32> {
    match integer(parameter, value)? {
        Integer::Small(small) => u32::try_from(small).map_err(|_| outside(parameter, &small.to_string(), range)),
        Integer::Huge(text) => Err(outside(parameter, &text, range)),
    }
}

/// A number that is counted and within `range`, which the crate does not look at.
pub(crate) fn bounded(parameter: &str, value: &Bound<'_, PyAny>, range: RangeInclusive<u32>) -> PyResult<u32> {
    let number = natural(parameter, value, range.clone())?;
    if range.contains(&number) { Ok(number) } else { Err(outside(parameter, &number.to_string(), range)) }
}

fn outside(parameter: &str, text: &str, range: RangeInclusive<u32>) -> PyErr {
    let (least, most) = range.into_inner();
    PyValueError::new_err(format!("{parameter}={text} is out of range, expected {least}..={most}"))
}

/// As [`count`], where a value is given.
pub(crate) fn optional_count(limit: Limit, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u32>> {
    value.map(|value| count(limit, value)).transpose()
}

/// A number of groups of experts, of which each has at least one.
pub(crate) fn num_groups(value: &Bound<'_, PyAny>, num_experts: u32) -> PyResult<u32> {
    natural("num_groups", value, 1..=num_experts.max(1))
}

/// An id in `0 .. end`.
pub(crate) fn index(parameter: &str, value: &Bound<'_, PyAny>, end: i64) -> PyResult<i64> {
    let refuse = |text: String| PyIndexError::new_err(format!("{parameter}={text} is out of range, expected 0..{end}"));
    match integer(parameter, value)? {
        Integer::Small(small) if (0..end).contains(&small) => Ok(small),
        Integer::Small(small) => Err(refuse(small.to_string())),
        Integer::Huge(text) => Err(refuse(text)),
    }
}

/// A number, as a float.
pub(crate) fn number(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    // A complex number of numpy passes for its real part.
    let is_complex = value.getattr_opt("dtype")?.map(|dtype| dtype.str()).transpose()?;
    let is_complex =
        is_complex.is_some_and(|dtype| dtype.to_string().trim_start_matches("torch.").starts_with("complex"));
    if is_complex || is_bool(value)? || value.is_instance_of::<PyString>() {
        return Err(wrong_type(parameter, "a number", value));
    }
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            let text = format!("{parameter}={} is out of range, expected a finite number", digits(value));
            PyValueError::new_err(text)
        } else {
            wrong_type(parameter, "a number", value)
        }
    })
}

/// Goes through values that can be gone through, of which so many are wanted.
///
/// Another number of them is another's to refuse, but a generator may never end, and then it is refused here.
fn each<'py>(
    parameter: &str,
    values: &Bound<'py, PyAny>,
    wanted: usize,
    mut take: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
    refuse: impl Fn(&Bound<'py, PyAny>) -> PyErr,
) -> PyResult<()> {
    let most = values.len().unwrap_or(wanted).max(wanted);
    for (position, value) in values.try_iter().map_err(|_| refuse(values))?.enumerate() {
        if position == most {
            return Err(PyValueError::new_err(format!("{parameter} has more than {most} entries, expected {wanted}")));
        }
        take(value?)?;
    }
    Ok(())
}

/// The numbers of a sequence or an array, as floats, of which so many are wanted.
pub(crate) fn numbers(parameter: &str, values: &Bound<'_, PyAny>, wanted: usize) -> PyResult<Vec<f64>> {
    let refuse = |value: &Bound<'_, PyAny>| wrong_type(parameter, "a sequence of numbers", value);
    // The keys of a mapping are no numbers of anything.
    if values.hasattr("keys")? {
        return Err(refuse(values));
    }
    let mut numbers = Vec::new();
    let take = |value: Bound<'_, PyAny>| {
        numbers.push(number(parameter, &value)?);
        Ok(())
    };
    each(parameter, values, wanted, take, refuse)?;
    Ok(numbers)
}

/// One number of bytes, or a sequence or an array of so many of them; whether it was a sequence.
pub(crate) fn sizes(parameter: &str, value: &Bound<'_, PyAny>, wanted: usize) -> PyResult<(Vec<u64>, bool)> {
    let size = |value: &Bound<'_, PyAny>| {
        match integer(parameter, value)? {
            Integer::Small(small) if small >= 0 => Ok(u64::try_from(small)?),
            Integer::Small(small) => Err(small.to_string()),
            Integer::Huge(text) => Err(text),
        }
        .map_err(|text| PyValueError::new_err(format!("{parameter}={text} is out of range, expected 0..={}", i64::MAX)))
    };
    if is_integer(value)? {
        return Ok((vec![size(value)?], false));
    }
    let refuse = |value: &Bound<'_, PyAny>| wrong_type(parameter, "an int or a sequence of them", value);
    // Bytes are numbers to Python, a set has no order, and the keys of a mapping are no sizes.
    let is_bytes = value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>();
    if is_bytes || value.hasattr("keys")? || !value.hasattr("__getitem__")? {
        return Err(refuse(value));
    }
    let mut all = Vec::new();
    let take = |one: Bound<'_, PyAny>| {
        all.push(size(&one)?);
        Ok(())
    };
    each(parameter, value, wanted, take, refuse)?;
    Ok((all, true))
}

/// The truth values of a sequence or an array, of which so many are wanted.
pub(crate) fn flags(parameter: &str, values: &Bound<'_, PyAny>, wanted: usize) -> PyResult<Vec<bool>> {
    let refuse = |value: &Bound<'_, PyAny>| wrong_type(parameter, "a sequence of bools", value);
    let mut flags = Vec::new();
    let take = |value: Bound<'_, PyAny>| {
        // A row of an array has the dtype of its truth values.
        if !is_bool(&value)? || value.len().is_ok() {
            return Err(refuse(&value));
        }
        flags.push(value.is_truthy()?);
        Ok(())
    };
    each(parameter, values, wanted, take, refuse)?;
    Ok(flags)
}
