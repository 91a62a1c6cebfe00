/* The memory of an object that has no buffer protocol but speaks DLPack (a PyTorch CPU tensor, for
 * one).
 *
 * The layout is DLPack's stable ABI (dlpack.h, version 0.x: `DLManagedTensor` in a capsule named
 * "dltensor"). The capsule is never consumed: it is kept as the owner, and its own destructor gives
 * the memory back.
 */
#ifndef KAFKA_EXT_DLPACK_H
#define KAFKA_EXT_DLPACK_H

#include <Python.h>
#include <stdint.h>

typedef struct kx_dl_tensor {
    void *data;
    struct { int32_t type, id; } device;
    int32_t ndim;
    struct { uint8_t code, bits; uint16_t lanes; } dtype;
    int64_t *shape;
    int64_t *strides;       /* in elements; NULL: C-contiguous */
    uint64_t byte_offset;
} kx_dl_tensor;

#define KX_DL_CPU 1
#define KX_DL_OPAQUE 3      /* dtype.code of handles, that is of pointers */

/* What `__dlpack__` raised names no argument: a tensor that may not be written has no memory,
 * for one. */
static void kx_dlpack_refused(PyObject *object, const char *what)
{
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(PyExc_BufferError) && !PyErr_ExceptionMatches(PyExc_TypeError)
        && !PyErr_ExceptionMatches(PyExc_ValueError))
        return;
    PyErr_Fetch(&type, &value, &traceback);
    kx_refuse("%s must be a buffer, a str or None; %.200s gives no memory: %S", what,
              Py_TYPE(object)->tp_name, value ? value : Py_None);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* 1 with data, size and a new reference to the capsule in `owner`; 0 when `object` has no
 * DLPack; -1 with an exception that names `what`. */
static int kx_dlpack_get(PyObject *object, const void **data, size_t *size, PyObject **owner,
                         const char *what)
{
    PyObject *device, *capsule;
    const kx_dl_tensor *tensor;
    int64_t elements = 1;
    long device_type;

    if (!PyObject_HasAttrString(object, "__dlpack__")
        || !PyObject_HasAttrString(object, "__dlpack_device__")
        || PyObject_HasAttrString(object, "__arrow_c_array__"))     /* a column is many values */
        return 0;
    device = PyObject_CallMethod(object, "__dlpack_device__", NULL);
    if (!device)
        return -1;
    device_type = PyTuple_Check(device) && PyTuple_GET_SIZE(device) == 2
                      ? PyLong_AsLong(PyTuple_GET_ITEM(device, 0))
                      : -1;
    Py_DECREF(device);
    if (device_type == -1 && PyErr_Occurred())
        return -1;
    if (device_type != KX_DL_CPU) {
        kx_refuse("%s: %.200s is not in CPU memory (DLPack device type %ld): "
                  "move it to the CPU first",
                  what, Py_TYPE(object)->tp_name, device_type);
        return -1;
    }
    capsule = PyObject_CallMethod(object, "__dlpack__", NULL);
    if (!capsule) {
        kx_dlpack_refused(object, what);
        return -1;
    }
    tensor = PyCapsule_GetPointer(capsule, "dltensor");
    if (!tensor) {
        Py_DECREF(capsule);
        return -1;
    }
    if (!tensor->ndim || tensor->dtype.code == KX_DL_OPAQUE) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be a buffer of plain data, not a %.200s that holds %s", what,
                     Py_TYPE(object)->tp_name,
                     tensor->ndim ? "pointers" : "one number: encode it first");
        Py_DECREF(capsule);
        return -1;
    }
    for (int32_t i = tensor->ndim - 1; i >= 0; i--) {
        if (tensor->strides && tensor->shape[i] != 1 && tensor->strides[i] != elements
            && elements != 0) {
            Py_DECREF(capsule);
            kx_refuse("%s: %.200s is not C-contiguous", what, Py_TYPE(object)->tp_name);
            return -1;
        }
        elements *= tensor->shape[i];
    }
    *size = (size_t)(elements * (((int64_t)tensor->dtype.bits * tensor->dtype.lanes + 7) / 8));
    *data = *size ? (const char *)tensor->data + tensor->byte_offset : "";
    *owner = capsule;
    return 1;
}

#endif
