/* What the driver and each GPU say about themselves. */
#include "machine.h"

#include <stdio.h>
#include <string.h>

API const char *nvmlErrorString(nvmlReturn_t code)
{
    return code == NVML_SUCCESS ? "Success" : "Error of a GPU that does not exist";
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    nvmlReturn_t code = enter_driver();
    if (code != NVML_SUCCESS)
        return code;
    return leave(give_text(version, length, whole_machine()->driver_version));
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    nvmlReturn_t code = enter_driver();
    if (code != NVML_SUCCESS)
        return code;
    *version = (int)whole_machine()->cuda_version;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *address, nvmlDevice_t *device)
{
    struct gpu *gpu = gpu_at(address);
    nvmlReturn_t code = gpu ? enter_gpu(__func__, gpu) : enter_driver();
    if (code != NVML_SUCCESS)
        return code;
    *device = gpu;
    return leave(gpu ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND);
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    unsigned function;
    memset(info, 0, sizeof *info);
    sscanf(gpu->address, "%x:%x:%x.%x", &info->domain, &info->bus, &info->device, &function);
    info->pciDeviceId = gpu->device_id << 16 | 0x10de;
    memcpy(info->busIdLegacy, gpu->address, sizeof info->busIdLegacy);
    snprintf(info->busId, sizeof info->busId, "%08X:%02X:%02X.%X", info->domain, info->bus,
             info->device, function);
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    return gpu ? leave(give_text(name, length, gpu->name)) : code;
}

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU | COMPUTE_INSTANCE, &code);
    if (!gpu)
        return code;
    const struct compute *mig = device;
    return leave(give_text(uuid, length, device == gpu ? gpu->uuid : mig->uuid));
}

nvmlReturn_t give_number(const char *function, nvmlDevice_t device, size_t offset, unsigned *number)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(function, device, GPU, &code);
    if (!gpu)
        return code;
    *number = *(uint32_t *)((char *)gpu + offset);
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *minor)
{
    return give_number(__func__, device, offsetof(struct gpu, minor), minor);
}

API nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned *architecture)
{
    return give_number(__func__, device, offsetof(struct gpu, architecture), architecture);
}

API nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned *cores)
{
    return give_number(__func__, device, offsetof(struct gpu, cores), cores);
}

API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    *major = (int)gpu->capability_major;
    *minor = (int)gpu->capability_minor;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    memory->total = memory->free = (unsigned long long)gpu->memory_mib << 20;
    memory->used = 0;
    return leave(NVML_SUCCESS);
}
