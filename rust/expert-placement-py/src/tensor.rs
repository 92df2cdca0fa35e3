//! Fresh int32 tensors over memory that Rust filled, and integer tensors read in place.
//!
//! SPEC.md does not speak of tensors; DLPack's own documents do, and `dlpack` holds every unsafe line.

use pyo3::exceptions::{
    PyAttributeError, PyImportError, PyIndexError, PyModuleNotFoundError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyRange, PyString};

use crate::argument::{self, wrong_type};
use crate::dlpack::{ExchangeApi, Int32Buffer, Int32Exporter, Integers};
use crate::to_py_err;

/// From this many elements on, filling takes longer than giving the interpreter to other threads and back.
const DETACH_FROM: usize = 1 << 14;

/// How memory becomes a `torch.Tensor`, decided once, when the first tensor is asked for.
enum HandOver {
    /// DLPack's C exchange API: one C call.
    ExchangeApi(ExchangeApi),
    /// The public DLPack protocol: `torch.from_dlpack` of an exporter.
    Protocol(Py<PyAny>),
}

static HAND_OVER: PyOnceLock<HandOver> = PyOnceLock::new();

/// A fresh tensor of shape `[length]`, written by `fill`, on the CPU or moved to `device`.
pub(crate) fn filled<'py>(
    py: Python<'py>,
    length: u64,
    device: Option<&Bound<'py, PyAny>>,
    fill: impl FnOnce(&mut [i32]) -> Result<(), expert_placement::Error> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let mut buffer = Int32Buffer::zeroed(length)?;
    let values = buffer.as_mut_slice();
    working(py, values.len(), || fill(values)).map_err(to_py_err)?;
    let tensor = handed_over(py, buffer)?;
    match device {
        None => Ok(tensor),
        Some(device) => move_to(&tensor, device),
    }
}

/// Runs what fills so many elements, without the interpreter where that takes long enough.
pub(crate) fn working<T: Send>(py: Python<'_>, length: usize, work: impl FnOnce() -> T + Send) -> T {
    if length < DETACH_FROM { work() } else { py.detach(work) }
}

/// Memory as a tensor of shape `[length]`, which owns it.
pub(crate) fn handed_over(py: Python<'_>, buffer: Int32Buffer) -> PyResult<Bound<'_, PyAny>> {
    match HAND_OVER.get_or_try_init(py, || HandOver::find(py))? {
        HandOver::ExchangeApi(api) => api.tensor(py, buffer),
        HandOver::Protocol(from_dlpack) => from_dlpack.bind(py).call1((Int32Exporter::new(buffer),)),
    }
}

/// A fresh float64 tensor of shape `[length]` with these values.
pub(crate) fn doubles<'py>(py: Python<'py>, values: &[f64]) -> PyResult<Bound<'py, PyAny>> {
    wide(py, values.iter().map(|value| value.to_ne_bytes()), "float64")
}

/// A fresh int64 tensor of shape `[length]` with these values.
pub(crate) fn longs(py: Python<'_>, values: impl ExactSizeIterator<Item = i64> + Send) -> PyResult<Bound<'_, PyAny>> {
    wide(py, values.map(i64::to_ne_bytes), "int64")
}

/// A tensor of eight bytes an element: the buffer's memory under another dtype, which its alignment allows.
fn wide<'py>(
    py: Python<'py>,
    values: impl ExactSizeIterator<Item = [u8; 8]> + Send,
    dtype: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let halves = filled(py, u64::try_from(values.len())? * 2, None, |out| {
        for (pair, bytes) in out.chunks_exact_mut(2).zip(values) {
            for (half, part) in pair.iter_mut().zip(bytes.chunks_exact(4)) {
                *half = part.try_into().map_or(0, i32::from_ne_bytes);
            }
        }
        Ok(())
    })?;
    halves.call_method1("view", (torch(py)?.getattr(dtype)?,))
}

/// Moves a tensor without waiting for the device where that is safe: CUDA stages pageable memory before it returns.
fn move_to<'py>(tensor: &Bound<'py, PyAny>, device: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = tensor.py();
    let torch = torch(py)?;
    let place = torch.getattr("device")?.call1((device,)).map_err(|error| {
        if error.is_instance_of::<PyTypeError>(py) {
            wrong_type("device", "a torch.device, a str or an int", device)
        } else {
            unusable(device, error)
        }
    })?;
    let options = PyDict::new(py);
    options.set_item("non_blocking", place.getattr("type")?.cast::<PyString>()? == "cuda")?;
    tensor.call_method("to", (&place,), Some(&options)).map_err(|error| {
        // Where even nothing can be put on the device it is the device that is at fault, and not what was moved.
        let nothing = PyDict::new(py);
        let probe = nothing.set_item("device", &place).and_then(|()| torch.call_method("empty", (0,), Some(&nothing)));
        if probe.is_err() { unusable(device, error) } else { error }
    })
}

/// The error for a device that torch does not know or cannot reach, with torch's own reason and its error as the cause.
fn unusable(device: &Bound<'_, PyAny>, reason: PyErr) -> PyErr {
    let py = device.py();
    let text = |value: &Bound<'_, PyAny>| value.str().and_then(|text| argument::escaped(&text)).unwrap_or_default();
    let (value, why) = (text(device), text(reason.value(py)));
    let value = argument::printable(&value);
    let why = argument::printable(why.lines().next().unwrap_or_default());
    let error = PyValueError::new_err(format!(
        "device=`{value}` cannot be used, expected one that torch has here, such as `cpu` or `cuda:0`: {why}"
    ));
    error.set_cause(py, Some(reason));
    error
}

/// What `integers` says of an integer beyond 64 bits, given as text with its position.
type Refusal<'a> = &'a dyn Fn(&str, usize) -> PyErr;

/// Borrows the integers of a torch tensor on any device, a numpy array, or a sequence of ints, in row-major order.
pub(crate) fn integers(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<Integers> {
    integers_or(parameter, value, &|text, position| {
        PyValueError::new_err(format!("{parameter} holds {text} at position {position}, expected integers of 64 bits"))
    })
}

/// Floats from the bits of a float64 array, which DLPack's integers carry as they are.
pub(crate) fn floats(parameter: &str, bits: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    let elements = integers(parameter, bits)?.to_elements()?;
    Ok(elements.iter().map(|bits| f64::from_ne_bytes(bits.to_ne_bytes())).collect())
}

/// As `integers`, of one dimension.
pub(crate) fn row(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<Integers> {
    let row = integers(parameter, value)?;
    match row.ndim() {
        1 => Ok(row),
        other => Err(PyValueError::new_err(format!("{parameter} has {other} dimensions, expected 1"))),
    }
}

/// As `integers`, where each is an id in `0 .. end`, and is called `id` in errors.
pub(crate) fn ids(parameter: &str, id: &str, end: u32, value: &Bound<'_, PyAny>) -> PyResult<Integers> {
    integers_or(parameter, value, &|text, position| {
        PyIndexError::new_err(format!("{id}={text} is out of range, expected 0..{end} (at position {position})"))
    })
}

fn integers_or(parameter: &str, value: &Bound<'_, PyAny>, refuse_huge: Refusal<'_>) -> PyResult<Integers> {
    let py = value.py();
    if value.hasattr("detach")? {
        expect_integers(parameter, value)?;
        expect_dense(parameter, OF_INTEGERS, value)?;
        // Lazy negation is a flag that DLPack does not carry.
        let plain = value.call_method0("detach")?;
        let steps = ["cpu", "resolve_neg", "contiguous"];
        let rows = steps.into_iter().try_fold(plain, |tensor, step| tensor.call_method0(step));
        return rows.and_then(|rows| Integers::read(parameter, &rows)).map_err(|error| {
            // A tensor inside of a transformation such as vmap is a name for values that nobody has, and what detaches
            // as tensors do need not be one.
            let is_none = error.is_instance_of::<PyRuntimeError>(py)
                || error.is_instance_of::<PyAttributeError>(py)
                || error.is_instance_of::<PyTypeError>(py) && !error.value(py).to_string().starts_with(parameter);
            if is_none { not_dense(parameter, OF_INTEGERS, &error.value(py).to_string()) } else { error }
        });
    }
    let numpy = py.import("numpy")?;
    if numpy.getattr("ma")?.call_method1("isMaskedArray", (value,))?.is_truthy()? {
        return Err(PyTypeError::new_err(format!("{parameter} must not be a masked array")));
    }
    let in_rows = PyDict::new(py);
    in_rows.set_item("order", "C")?;
    let made = match ends_of_range(value) {
        // Of a range numpy would make a list first.
        Some(ends) => numpy.call_method1("arange", ends),
        None => numpy.call_method("asarray", (value,), Some(&in_rows)),
    };
    let mut array = made.map_err(|error| {
        if error.is_instance_of::<PyTypeError>(py) || error.is_instance_of::<PyValueError>(py) {
            // numpy's own words say what is wrong, but not with which argument.
            PyTypeError::new_err(format!("{parameter} must be an array of int32 or int64: {}", error.value(py)))
        } else {
            error
        }
    })?;
    if !value.hasattr("dtype")? {
        if array.getattr("size")?.extract::<usize>()? == 0 {
            // An empty sequence says nothing of its dtype, and numpy would take it for floats.
            array = array.call_method1("astype", ("int64",))?;
        } else if let Err(error) = expect_integers(parameter, &array) {
            // Integers beyond 64 bits have no dtype of their own: numpy takes them for objects or floats.
            let objects = numpy.call_method1("asarray", (value, "object"))?.call_method0("ravel")?;
            let huge = argument::first_huge(&objects)?;
            return Err(huge.map_or(error, |(text, position)| refuse_huge(&text, position)));
        }
    }
    expect_integers(parameter, &array)?;
    if !value.hasattr("dtype")? {
        expect_ints_within(parameter, value, 0)?;
    }
    Integers::read(parameter, &array)
}

/// Start, stop and step of a range whose numbers all fit 64 bits.
fn ends_of_range(value: &Bound<'_, PyAny>) -> Option<(i64, i64, i64)> {
    let number = |name: &str| value.getattr(name).and_then(|end| end.extract::<i64>()).ok();
    if value.is_exact_instance_of::<PyRange>() {
        Some((number("start")?, number("stop")?, number("step")?))
    } else {
        None
    }
}

/// As many as an array of numpy can have.
const MOST_DIMENSIONS: usize = 64;

/// Refuses what numpy takes for integers within a sequence and is something else: truth values and masked arrays.
fn expect_ints_within(parameter: &str, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    if value.is_exact_instance_of::<PyInt>() || value.is_exact_instance_of::<PyRange>() {
        return Ok(());
    }
    if argument::is_bool(value)? {
        return Err(wrong_type(parameter, "an int", value));
    }
    if value.hasattr("mask")? {
        return Err(wrong_type(parameter, "an int or an array without a mask", value));
    }
    if let Some(dtype) = value.getattr_opt("dtype")? {
        let dtype = dtype.str()?.to_string();
        let name = dtype.strip_prefix("torch.").unwrap_or(&dtype);
        return if name.starts_with("int") || name.starts_with("uint") {
            Ok(())
        } else {
            Err(PyTypeError::new_err(format!("{parameter} must be an int or an array of them, got {name}")))
        };
    }
    if depth > MOST_DIMENSIONS {
        return Err(PyTypeError::new_err(format!("{parameter} is nested too deeply, expected an int")));
    }
    if value.hasattr("__len__")? && value.hasattr("__iter__")? {
        for (position, one) in value.try_iter()?.enumerate() {
            let one = one?;
            if !one.is_exact_instance_of::<PyInt>() {
                expect_ints_within(&format!("{parameter}[{position}]"), &one, depth + 1)?;
            }
        }
    }
    Ok(())
}

const OF_INTEGERS: &str = "of int32 or int64";

/// Refuses loads or weights that nobody can read, as `expect_dense` does.
#[pyfunction]
pub(crate) fn _expect_dense(parameter: &str, tensor: &Bound<'_, PyAny>) -> PyResult<()> {
    expect_dense(parameter, "whose values are known", tensor)
}

/// Refuses a tensor that is not one block of values in memory: sparse, nested, on the device `meta`, or with a storage
/// that was made smaller than its shape, which torch itself would read beyond.
fn expect_dense(parameter: &str, what: &str, tensor: &Bound<'_, PyAny>) -> PyResult<()> {
    let is = |name: &str| tensor.getattr_opt(name)?.map_or(Ok(false), |flag| flag.is_truthy());
    let layout = tensor.getattr_opt("layout")?.map(|layout| layout.str()).transpose()?.map(|layout| layout.to_string());
    if is("is_nested")? {
        Err(not_dense(parameter, what, "it is nested"))
    } else if let Some(layout) = layout.filter(|layout| layout != "torch.strided") {
        Err(not_dense(parameter, what, &format!("its layout is {layout}")))
    } else if is("is_meta")? {
        Err(not_dense(parameter, what, "on the device `meta` it has no values"))
    } else {
        // A fake tensor says that it is elsewhere than its storage is.
        let storage = tensor.call_method0("untyped_storage");
        let place = storage.and_then(|storage| storage.getattr("device")?.getattr("type")?.extract::<String>());
        if place.is_ok_and(|place| place == "meta") {
            return Err(not_dense(parameter, what, "its storage is on the device `meta` and has no values"));
        }
        // What has no storage of its own, as inside of a transformation, is refused where it is read.
        match bytes_needed_and_held(tensor) {
            Ok((needed, held)) if needed > held => {
                let reason = format!("its storage has {held} bytes, and its shape needs {needed}");
                Err(not_dense(parameter, what, &reason))
            }
            _ => Ok(()),
        }
    }
}

/// How far into its storage a tensor reaches, and how far that goes.
fn bytes_needed_and_held(tensor: &Bound<'_, PyAny>) -> PyResult<(u128, u128)> {
    let number = |name: &str| tensor.call_method0(name)?.extract::<u128>();
    let held = tensor.call_method0("untyped_storage")?.call_method0("nbytes")?.extract()?;
    if number("numel")? == 0 {
        return Ok((0, held));
    }
    let sizes: Vec<u128> = tensor.getattr("shape")?.extract()?;
    let strides: Vec<u128> = tensor.call_method0("stride")?.extract()?;
    let steps = sizes.iter().zip(&strides).map(|(size, stride)| (size - 1).saturating_mul(*stride));
    let elements = steps.fold(number("storage_offset")?.saturating_add(1), u128::saturating_add);
    Ok((elements.saturating_mul(number("element_size")?), held))
}

fn not_dense(parameter: &str, what: &str, reason: &str) -> PyErr {
    let reason = argument::printable(reason.lines().next().unwrap_or_default());
    PyTypeError::new_err(format!("{parameter} must be a dense tensor {what}: {reason}"))
}

/// Refuses an array of another dtype, by the name that its own library has for it.
fn expect_integers(parameter: &str, array: &Bound<'_, PyAny>) -> PyResult<()> {
    let dtype = array.getattr("dtype")?.str()?.to_string();
    match dtype.strip_prefix("torch.").unwrap_or(&dtype) {
        "int32" | "int64" => Ok(()),
        other => Err(PyTypeError::new_err(format!("{parameter} must have dtype int32 or int64, got {other}"))),
    }
}

impl HandOver {
    fn find(py: Python<'_>) -> PyResult<Self> {
        let torch = torch(py)?;
        match torch.getattr("Tensor")?.getattr("__dlpack_c_exchange_api__") {
            Ok(capsule) => {
                if let Some(api) = ExchangeApi::from_capsule(&capsule)? {
                    return Ok(Self::ExchangeApi(api));
                }
            }
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => {}
            Err(error) => return Err(error),
        }
        Ok(Self::Protocol(torch.getattr("from_dlpack")?.unbind()))
    }
}

/// The name of the hand-over in use, or `None` as long as no tensor was asked for.
pub(crate) fn hand_over_in_use(py: Python<'_>) -> Option<&'static str> {
    HAND_OVER.get(py).map(|hand_over| match hand_over {
        HandOver::ExchangeApi(_) => "dlpack c exchange api",
        HandOver::Protocol(_) => "dlpack protocol",
    })
}

/// The torch module; where it is not installed, an error that names the extra.
pub(crate) fn torch(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("torch").map_err(|error| {
        let missing = error.is_instance_of::<PyModuleNotFoundError>(py)
            && error.value(py).getattr("name").is_ok_and(|name| name.eq("torch").unwrap_or(false));
        if missing {
            PyImportError::new_err("tensors need torch, install it with: pip install 'expert-placement[torch]'")
        } else {
            error
        }
    })
}
