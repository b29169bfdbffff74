//! Rust errors as the exceptions of `blocker.errors`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

fn raise(py: Python<'_>, class: &'static PyOnceLock<Py<PyType>>, name: &str, message: String) -> PyErr {
    match class.import(py, "blocker.errors", name) {
        Ok(class) => PyErr::from_type(class.clone(), message),
        Err(_) => PyRuntimeError::new_err(message),
    }
}

pub fn invalid_url(py: Python<'_>, message: &(impl ToString + ?Sized)) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    raise(py, &CLASS, "InvalidURL", message.to_string())
}

pub fn invalid_rule(py: Python<'_>, message: &(impl ToString + ?Sized)) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    raise(py, &CLASS, "InvalidRule", message.to_string())
}

pub fn format_error(py: Python<'_>, message: &(impl ToString + ?Sized)) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    raise(py, &CLASS, "FormatError", message.to_string())
}
