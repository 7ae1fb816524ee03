// The bindings of `edgeseg._core.cuda`, as a module of their own.
#include <pybind11/pybind11.h>

void bind_cuda(pybind11::module_& module);

PYBIND11_MODULE(cuda_emulation, module) { bind_cuda(module); }
