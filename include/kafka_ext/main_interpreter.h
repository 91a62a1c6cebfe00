/* Sub-interpreters are refused, each time and before anything is set up.
 *
 * The module's state is the process's: two interpreters would share objects under two GILs.
 * Cython only refuses the second interpreter that loads the module, whichever that is, so that a
 * sub-interpreter could keep the main one from it. Hence the module's Py_mod_create slot gets a
 * guard before it. */
#ifndef KAFKA_EXT_MAIN_INTERPRETER_H
#define KAFKA_EXT_MAIN_INTERPRETER_H

#include <Python.h>

static PyObject *(*kx_create)(PyObject *spec, PyModuleDef *def);

static PyObject *kx_create_in_main(PyObject *spec, PyModuleDef *def)
{
    if (PyInterpreterState_GetID(PyInterpreterState_Get()) != 0) {
        PyErr_SetString(PyExc_ImportError,
                        "kafka_ext can only be imported in the main interpreter, not in a "
                        "sub-interpreter: use a process of its own instead (for mod_wsgi: "
                        "WSGIApplicationGroup %{GLOBAL})");
        return NULL;
    }
    return kx_create(spec, def);
}

/* What Cython's PyInit__rdkafka calls to give its definition away: by then it is whole, and
 * nobody has used it. */
static PyObject *kx_module_def_init(PyModuleDef *def)
{
    PyModuleDef_Slot *slot;
    for (slot = def->m_slots; slot && slot->slot; slot++)
        if (slot->slot == Py_mod_create && slot->value != (void *)kx_create_in_main) {
            kx_create   = (PyObject * (*)(PyObject *, PyModuleDef *)) slot->value;
            slot->value = (void *)kx_create_in_main;
        }
    return PyModuleDef_Init(def);
}

#define PyModuleDef_Init kx_module_def_init

#endif
