//! The DLPack hand-over, and all of the project's unsafe code.
//!
//! Layouts and ownership rules are those of DLPack 1.x (`dlpack.h`). Memory is allocated and freed by Rust's allocator
//! alone, so a tensor may be freed on any thread, with or without the interpreter. Every buffer is handed over once:
//! nobody else reads or writes it afterwards, since consumers ignore read-only flags.

#![allow(unsafe_code, reason = "C structures of the DLPack protocol are exchanged by pointer")]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Mutex;

use pyo3::exceptions::{PyBufferError, PyMemoryError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

/// The version of the structures below; consumers check the major number.
/// Up to 1.1 strides may be NULL for row-major order, which torch takes a little faster than strides that say it.
const VERSION: Version = Version { major: 1, minor: 1 };
const CPU: Device = Device { device_type: 1, device_id: 0 };
const INT32: DataType = DataType { code: DataType::INT, bits: 32, lanes: 1 };
/// The consumer is the only owner, as if the producer had made a copy for it.
const FLAG_IS_COPIED: u64 = 1 << 1;
/// Where the elements begin: what every allocator gives without asking it for more, and numpy's arrays have too.
const ALIGNMENT: usize = 16;
/// Up to this many bytes a block is cleared by hand.
const SMALL: usize = 1 << 14;

const VERSIONED: &CStr = c"dltensor_versioned";
const USED_VERSIONED: &CStr = c"used_dltensor_versioned";
const LEGACY: &CStr = c"dltensor";
const USED_LEGACY: &CStr = c"used_dltensor";
const EXCHANGE_API: &CStr = c"dlpack_exchange_api";

#[repr(C)]
#[derive(Clone, Copy)]
struct Version {
    major: u32,
    minor: u32,
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Device {
    device_type: i32,
    device_id: i32,
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

impl DataType {
    const INT: u8 = 0;
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    ndim: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct ManagedTensor {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut ManagedTensor)>,
}

#[repr(C)]
struct ManagedTensorVersioned {
    version: Version,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut ManagedTensorVersioned)>,
    flags: u64,
    tensor: Tensor,
}

#[repr(C)]
struct ExchangeApiHeader {
    version: Version,
    previous: *const ExchangeApiHeader,
}

/// The function table behind the header for major version 1; only the function used here has its type.
#[repr(C)]
struct ExchangeApiTable {
    header: ExchangeApiHeader,
    managed_tensor_allocator: *const c_void,
    managed_tensor_from_py_object: *const c_void,
    managed_tensor_to_py_object: Option<ToPyObject>,
}

type ToPyObject = unsafe extern "C" fn(*mut ManagedTensorVersioned, *mut *mut c_void) -> c_int;

/// What stands before the elements, in the same allocation: either structure, and the shape that both point to.
#[repr(C)]
struct Header {
    versioned: ManagedTensorVersioned,
    legacy: ManagedTensor,
    shape: [i64; 1],
    layout: Layout,
}

/// int32 memory of Rust's allocator, owned, with room for the DLPack structures in front.
pub(crate) struct Int32Buffer {
    header: NonNull<Header>,
    data: NonNull<i32>,
    length: usize,
}

// SAFETY: the buffer is the only owner of plain memory, which any thread may read, write and free.
unsafe impl Send for Int32Buffer {}

impl Int32Buffer {
    /// Memory for `length` elements, all 0.
    pub(crate) fn zeroed(length: u64) -> PyResult<Self> {
        let refuse = || PyMemoryError::new_err(format!("cannot allocate an int32 tensor of {length} elements"));
        let elements = usize::try_from(length).map_err(|_| refuse())?;
        let shape = i64::try_from(length).map_err(|_| refuse())?;
        let (layout, offset) = Layout::new::<Header>()
            .align_to(ALIGNMENT)
            .and_then(|header| header.pad_to_align().extend(Layout::array::<i32>(elements)?))
            .map_err(|_| refuse())?;
        // SAFETY: the layout holds at least a header, so its size is not zero.
        let block = NonNull::new(unsafe { allocate_zeroed(layout) }).ok_or_else(refuse)?;
        let header = block.cast::<Header>();
        // SAFETY: `offset` lies within the allocation, after the header, and is a multiple of ALIGNMENT.
        let data = unsafe { block.add(offset) }.cast::<i32>();
        let tensor = |header: NonNull<Header>| {
            // SAFETY: a field's address within a live allocation; nothing is read.
            let shape = unsafe { &raw mut (*header.as_ptr()).shape };
            Tensor {
                // DLPack wants NULL for a tensor of no elements.
                data: if elements == 0 { std::ptr::null_mut() } else { data.as_ptr().cast() },
                device: CPU,
                ndim: 1,
                dtype: INT32,
                shape: shape.cast(),
                strides: std::ptr::null_mut(),
                byte_offset: 0,
            }
        };
        let context = block.as_ptr().cast();
        let value = Header {
            versioned: ManagedTensorVersioned {
                version: VERSION,
                context,
                deleter: Some(delete_versioned),
                flags: FLAG_IS_COPIED,
                tensor: tensor(header),
            },
            legacy: ManagedTensor { tensor: tensor(header), context, deleter: Some(delete_legacy) },
            shape: [shape],
            layout,
        };
        // SAFETY: `header` points to memory of the allocation that is large enough and aligned for a `Header`.
        unsafe { header.write(value) };
        Ok(Self { header, data, length: elements })
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [i32] {
        // SAFETY: `data` is aligned, holds `length` initialised elements, and `self` is their only owner.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.length) }
    }

    /// Gives the memory away: whoever takes the pointer must call its deleter once.
    fn into_versioned(self) -> *mut ManagedTensorVersioned {
        // SAFETY: the field's address within a live allocation; nothing is read.
        let pointer = unsafe { &raw mut (*self.header.as_ptr()).versioned };
        std::mem::forget(self);
        pointer
    }

    /// As `into_versioned`, for consumers that know only the structure of before DLPack 1.0.
    fn into_legacy(self) -> *mut ManagedTensor {
        // SAFETY: the field's address within a live allocation; nothing is read.
        let pointer = unsafe { &raw mut (*self.header.as_ptr()).legacy };
        std::mem::forget(self);
        pointer
    }
}

impl Drop for Int32Buffer {
    fn drop(&mut self) {
        // SAFETY: `self` owns the allocation and is not used again.
        unsafe { free(self.header.as_ptr().cast()) }
    }
}

/// Zeroed memory, or null. Small blocks are cleared here: the C library serves `malloc` from its thread's cache, which
/// glibc's `calloc` passes by; large ones come from the system already cleared.
///
/// # Safety
/// The layout's size is not zero.
unsafe fn allocate_zeroed(layout: Layout) -> *mut u8 {
    if layout.size() > SMALL {
        // SAFETY: by this function's contract.
        return unsafe { alloc_zeroed(layout) };
    }
    // SAFETY: by this function's contract.
    let block = unsafe { alloc(layout) };
    if !block.is_null() {
        // SAFETY: the block holds as many bytes.
        unsafe { block.write_bytes(0, layout.size()) };
    }
    block
}

/// Frees an allocation made by `Int32Buffer::zeroed`. Touches nothing else, so any thread may call it at any time.
///
/// # Safety
/// `context` is the start of such an allocation, and nobody uses it again.
unsafe fn free(context: *mut c_void) {
    let header = context.cast::<Header>();
    // SAFETY: by this function's contract the header is live, and its layout is the one it was allocated with.
    unsafe { dealloc(context.cast(), (*header).layout) }
}

unsafe extern "C" fn delete_versioned(managed: *mut ManagedTensorVersioned) {
    if !managed.is_null() {
        // SAFETY: the consumer passes the structure that it was given, once.
        unsafe { free((*managed).context) }
    }
}

unsafe extern "C" fn delete_legacy(managed: *mut ManagedTensor) {
    if !managed.is_null() {
        // SAFETY: the consumer passes the structure that it was given, once.
        unsafe { free((*managed).context) }
    }
}

/// torch's half of the C exchange API: the function that makes a tensor of a DLPack structure.
#[derive(Clone, Copy)]
pub(crate) struct ExchangeApi {
    to_py_object: ToPyObject,
}

impl ExchangeApi {
    /// The table in the capsule that a tensor type carries, or `None` where it is of a version unknown here.
    pub(crate) fn from_capsule(capsule: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let mut header = capsule
            .cast::<PyCapsule>()?
            .pointer_checked(Some(EXCHANGE_API))?
            .cast::<ExchangeApiHeader>()
            .as_ptr()
            .cast_const();
        while !header.is_null() {
            // SAFETY: the capsule's name promises a chain of headers that live as long as the process.
            let current = unsafe { &*header };
            if current.version.major == VERSION.major {
                // SAFETY: the major version promises this table behind the header.
                let table = unsafe { &*header.cast::<ExchangeApiTable>() };
                return Ok(table.managed_tensor_to_py_object.map(|to_py_object| Self { to_py_object }));
            }
            header = current.previous;
        }
        Ok(None)
    }

    /// The buffer as a tensor of the type that the table belongs to.
    pub(crate) fn tensor(self, py: Python<'_>, buffer: Int32Buffer) -> PyResult<Bound<'_, PyAny>> {
        let mut object = std::ptr::null_mut();
        // SAFETY: the structure is valid and ownership passes to the callee, whether or not it succeeds. The thread is
        // attached to the interpreter, as `py` shows.
        let status = unsafe { (self.to_py_object)(buffer.into_versioned(), &raw mut object) };
        if status != 0 || object.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: on success the callee returns a new reference.
        Ok(unsafe { Bound::from_owned_ptr(py, object.cast()) })
    }
}

/// Fresh int32 memory, for any consumer of the public DLPack protocol, which may take it once.
#[pyclass(frozen, module = "expert_placement._core")]
pub(crate) struct Int32Exporter {
    buffer: Mutex<Option<Int32Buffer>>,
}

impl Int32Exporter {
    pub(crate) fn new(buffer: Int32Buffer) -> Self {
        Self { buffer: Mutex::new(Some(buffer)) }
    }
}

#[pymethods]
impl Int32Exporter {
    /// The memory as a DLPack capsule, which owns it from then on.
    ///
    /// A `max_version` of at least (1, 0) yields a versioned capsule. A second call, and a `dl_device` other than the
    /// CPU, are a `BufferError`. `copy` may be anything: the memory belongs to nobody else, as a copy would.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = copy;
        if let Some(stream) = stream {
            return Err(PyBufferError::new_err(format!("stream must be None for CPU memory, got {stream}")));
        }
        if let Some((device_type, device_id)) = dl_device {
            if (Device { device_type, device_id }) != CPU {
                return Err(PyBufferError::new_err(format!(
                    "dl_device=({device_type}, {device_id}) is not available, expected (1, 0), the CPU"
                )));
            }
        }
        let taken = self.buffer.lock().map_or(None, |mut buffer| buffer.take());
        let buffer =
            taken.ok_or_else(|| PyBufferError::new_err("the memory was exported before, and only once it can be"))?;
        if max_version.is_some_and(|(major, _)| major >= VERSION.major) {
            let managed = NonNull::new(buffer.into_versioned()).map(NonNull::cast);
            new_capsule(py, managed, VERSIONED, drop_versioned_capsule)
        } else {
            let managed = NonNull::new(buffer.into_legacy()).map(NonNull::cast);
            new_capsule(py, managed, LEGACY, drop_legacy_capsule)
        }
    }

    /// The CPU: (1, 0).
    #[expect(clippy::unused_self, reason = "the protocol asks an instance")]
    fn __dlpack_device__(&self) -> (i32, i32) {
        (CPU.device_type, CPU.device_id)
    }
}

fn new_capsule<'py>(
    py: Python<'py>,
    managed: Option<NonNull<c_void>>,
    name: &'static CStr,
    destructor: ffi::PyCapsule_Destructor,
) -> PyResult<Bound<'py, PyCapsule>> {
    let managed = managed.ok_or_else(|| PyBufferError::new_err("no memory to export"))?;
    // SAFETY: the name lives for ever, and the destructor frees what the pointer owns unless a consumer took it.
    unsafe { PyCapsule::new_with_pointer_and_destructor(py, managed, name, Some(destructor)) }
}

unsafe extern "C" fn drop_versioned_capsule(capsule: *mut ffi::PyObject) {
    // SAFETY: a consumer that took the structure renamed the capsule; otherwise it is still ours to delete, once.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, VERSIONED.as_ptr()) == 1 {
            delete_versioned(ffi::PyCapsule_GetPointer(capsule, VERSIONED.as_ptr()).cast());
        }
    }
}

unsafe extern "C" fn drop_legacy_capsule(capsule: *mut ffi::PyObject) {
    // SAFETY: a consumer that took the structure renamed the capsule; otherwise it is still ours to delete, once.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, LEGACY.as_ptr()) == 1 {
            delete_legacy(ffi::PyCapsule_GetPointer(capsule, LEGACY.as_ptr()).cast());
        }
    }
}

/// The elements of a contiguous integer array on the CPU, borrowed for as long as this value lives.
pub(crate) struct Integers(Managed);

/// A DLPack structure that a producer handed to us, in either of its forms.
enum Managed {
    Versioned(NonNull<ManagedTensorVersioned>),
    Legacy(NonNull<ManagedTensor>),
}

/// The elements, by the widths that ids come in.
pub(crate) enum Elements {
    Int32(Vec<i32>),
    Int64(Vec<i64>),
}

impl Elements {
    /// How many elements there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Int32(elements) => elements.len(),
            Self::Int64(elements) => elements.len(),
        }
    }

    /// Each element, whatever its width.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = i64> + '_> {
        match self {
            Self::Int32(elements) => Box::new(elements.iter().map(|element| i64::from(*element))),
            Self::Int64(elements) => Box::new(elements.iter().copied()),
        }
    }
}

impl Integers {
    /// Borrows the elements of anything that exports int32 or int64 through `__dlpack__`.
    pub(crate) fn read(parameter: &str, array: &Bound<'_, PyAny>) -> PyResult<Self> {
        let integers = Self(Managed::take(array)?);
        integers.check(parameter)?;
        Ok(integers)
    }

    fn check(&self, parameter: &str) -> PyResult<()> {
        let tensor = self.0.tensor();
        let DataType { code, bits, lanes } = tensor.dtype;
        if code != DataType::INT || !(bits == 32 || bits == 64) || lanes != 1 {
            return Err(PyTypeError::new_err(format!("{parameter} must have dtype int32 or int64")));
        }
        if tensor.device.device_type != CPU.device_type {
            return Err(PyBufferError::new_err(format!("{parameter} must be on the CPU")));
        }
        // Nothing is read of an array without elements, so neither its address nor its strides mean anything.
        if self.len() == 0 {
            return Ok(());
        }
        let mut expected = 1_i64;
        let contiguous = self.0.axes().into_iter().rev().all(|(extent, stride)| {
            let fits = extent == 1 || stride.is_none_or(|stride| stride == expected);
            expected = expected.saturating_mul(extent);
            fits
        });
        if !contiguous {
            return Err(PyBufferError::new_err(format!("{parameter} must be contiguous")));
        }
        let size = self.len().checked_mul(usize::from(bits / 8));
        if tensor.data.is_null() || size.is_none_or(|size| size > usize::MAX / 2) {
            let text = format!("{parameter} has no memory that can be read, as a fake or traced tensor has none");
            return Err(PyTypeError::new_err(text));
        }
        Ok(())
    }

    /// How many dimensions the array has.
    pub(crate) fn ndim(&self) -> usize {
        self.0.axes().len()
    }

    /// How many elements there are.
    pub(crate) fn len(&self) -> usize {
        let axes = self.0.axes();
        let mut extents = axes.iter().map(|(extent, _)| usize::try_from(*extent).unwrap_or(0));
        if extents.clone().any(|extent| extent == 0) {
            0
        } else {
            extents.try_fold(1, usize::checked_mul).unwrap_or(usize::MAX)
        }
    }

    /// A copy of all elements in row-major order.
    ///
    /// A copy, because the array stays its owner's, who may write to it at any time; torch and numpy do so without the
    /// interpreter, too. No consumer of DLPack can keep them from it: elements that are written during this call may be
    /// seen as they were, as they will be, or torn. What reads the copy sees one value of each, and so checks the very
    /// ids that it answers for.
    pub(crate) fn to_elements(&self) -> PyResult<Elements> {
        let tensor = self.0.tensor();
        let offset = usize::try_from(tensor.byte_offset).unwrap_or(0);
        let data = tensor.data.cast_const();
        // SAFETY: `check` saw contiguous memory on the CPU of one of the two types; its owner keeps it alive, and the
        // offset leads to its first element. That nobody writes meanwhile is the caller's part of the protocol, as
        // `owner_of` states.
        unsafe {
            if tensor.dtype.bits == INT32.bits {
                copied(data.byte_add(offset).cast(), self.len()).map(Elements::Int32)
            } else {
                copied(data.byte_add(offset).cast(), self.len()).map(Elements::Int64)
            }
        }
    }
}

/// The integers at an address, aligned or not, which may be anything where there are none.
///
/// # Safety
/// `data` points to `length` integers that live, and that nobody writes during the call.
unsafe fn copied<T: Copy>(data: *const T, length: usize) -> PyResult<Vec<T>> {
    let mut elements: Vec<T> = Vec::new();
    elements
        .try_reserve_exact(length)
        .map_err(|_| PyMemoryError::new_err(format!("cannot allocate a copy of {length} elements")))?;
    if length > 0 {
        // SAFETY: by this function's contract, and the copy has room for as many; it is not referenced elsewhere. Bytes
        // are copied, since an exporter may hand out unaligned integers.
        unsafe {
            let bytes = length * size_of::<T>();
            std::ptr::copy_nonoverlapping(data.cast::<u8>(), elements.as_mut_ptr().cast::<u8>(), bytes);
            elements.set_len(length);
        }
    }
    Ok(elements)
}

impl Managed {
    /// Asks for a versioned structure, or a legacy one where the producer knows no other, and takes ownership.
    fn take(array: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = array.py();
        let options = PyDict::new(py);
        options.set_item("max_version", (VERSION.major, VERSION.minor))?;
        let object = match array.call_method("__dlpack__", (), Some(&options)) {
            Err(error) if error.is_instance_of::<PyTypeError>(py) => array.call_method0("__dlpack__")?,
            other => other?,
        };
        let capsule = object.cast::<PyCapsule>()?;
        let rename = |name: &'static CStr| {
            // SAFETY: the capsule is live, and the name lives for ever. From here on the structure is ours to delete.
            let status = unsafe { ffi::PyCapsule_SetName(capsule.as_ptr(), name.as_ptr()) };
            if status == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
        };
        if capsule.is_valid_checked(Some(VERSIONED)) {
            let managed = capsule.pointer_checked(Some(VERSIONED))?.cast::<ManagedTensorVersioned>();
            rename(USED_VERSIONED)?;
            let managed = Self::Versioned(managed);
            managed.check_version()?;
            Ok(managed)
        } else {
            let managed = capsule.pointer_checked(Some(LEGACY))?.cast::<ManagedTensor>();
            rename(USED_LEGACY)?;
            Ok(Self::Legacy(managed))
        }
    }

    /// Refuses a layout unknown here; only the deleter of such a structure may be used.
    fn check_version(&self) -> PyResult<()> {
        let Self::Versioned(managed) = self else { return Ok(()) };
        // SAFETY: `self` owns the structure, whose version stands at its head in every version.
        let major = unsafe { managed.as_ref().version.major };
        if major == VERSION.major {
            Ok(())
        } else {
            Err(PyBufferError::new_err(format!("the array is of DLPack version {major}, expected {}", VERSION.major)))
        }
    }

    fn tensor(&self) -> &Tensor {
        // SAFETY: `self` owns the structure, which lives until its deleter is called in `drop`.
        unsafe {
            match self {
                Self::Versioned(managed) => &managed.as_ref().tensor,
                Self::Legacy(managed) => &managed.as_ref().tensor,
            }
        }
    }

    /// The extent of each axis, and its stride in elements unless the producer left it to row-major order.
    fn axes(&self) -> Vec<(i64, Option<i64>)> {
        let tensor = self.tensor();
        let ndim = usize::try_from(tensor.ndim).unwrap_or(0);
        // SAFETY: a valid structure has `ndim` extents, and as many strides unless that pointer is null.
        let axis = |axis: usize| unsafe {
            let stride = if tensor.strides.is_null() { None } else { Some(*tensor.strides.add(axis)) };
            (*tensor.shape.add(axis), stride)
        };
        (0..ndim).map(axis).collect()
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        // SAFETY: `self` owns the structure and does not use it again.
        unsafe {
            match self {
                Self::Versioned(managed) => {
                    if let Some(deleter) = managed.as_ref().deleter {
                        deleter(managed.as_ptr());
                    }
                }
                Self::Legacy(managed) => {
                    if let Some(deleter) = managed.as_ref().deleter {
                        deleter(managed.as_ptr());
                    }
                }
            }
        }
    }
}
