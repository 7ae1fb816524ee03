// What the driver shows, what was compiled in, and the words for a failed launch.
#include <string>

#include "launch.cuh"

namespace edgeseg::cuda {

int device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        cudaGetLastError();  // leaves no error behind for the next caller
        return 0;
    }
    return count;
}

int runtime_version() {
    int version = 0;
    cudaRuntimeGetVersion(&version);
    return version;
}

const char* architectures() { return EDGESEG_CUDA_ARCHITECTURES; }

void throw_launch_error(const char* kernel_name, cudaError_t error) {
    cudaGetLastError();
    std::string message = std::string(kernel_name) + ": CUDA says \"" + cudaGetErrorString(error) +
                          "\" (" + cudaGetErrorName(error) + ").";
    switch (error) {
        case cudaErrorNoDevice:
        case cudaErrorInsufficientDriver:
            message +=
                " This process sees no usable NVIDIA driver and GPU: install a driver, give the"
                " container access to the GPU, or call the CPU function of the same name.";
            break;
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorUnsupportedPtxVersion:
            message += std::string(" This build holds code for ") + architectures() +
                       ": install edgeseg from source on this machine, or name this GPU's"
                       " architecture in EDGESEG_CUDA_ARCHITECTURES.";
            break;
        case cudaErrorInvalidResourceHandle:
            message += " The stream must belong to the current device of the calling thread.";
            break;
        case cudaErrorInvalidConfiguration:
            message += " The tensor has more rows or images than one launch can cover.";
            break;
        default:
            message +=
                " If an earlier kernel failed, this is its error: run with"
                " CUDA_LAUNCH_BLOCKING=1 to find it.";
    }
    throw CudaError(message);
}

}  // namespace edgeseg::cuda
