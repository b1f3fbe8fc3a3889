/* Compute instances, and the MIG devices that they are. */
#include "machine.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Slices of each compute profile, by index; its id is the same number. */
static const uint32_t compute_slices[] = {1, 2, 3, 4, 7};
enum { COMPUTE_PROFILES = sizeof compute_slices / sizeof *compute_slices };

static const struct cut *cut_around(const struct gpu *gpu, const struct instance *instance)
{
    return &gpu->cuts[instance->cut];
}

API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t handle, unsigned index,
                                                               unsigned engines,
                                                               nvmlComputeInstanceProfileInfo_v2_t *info)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, handle, GPU_INSTANCE, &code);
    if (!gpu)
        return code;
    const struct cut *cut = cut_around(gpu, handle);
    if (index >= NVML_COMPUTE_INSTANCE_PROFILE_COUNT ||
        engines != NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (info->version != VERSION_OF(nvmlComputeInstanceProfileInfo_v2_t, 2))
        return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    if (index >= COMPUTE_PROFILES || compute_slices[index] > cut->amounts[0])
        return leave(NVML_ERROR_NOT_SUPPORTED);
    info->id = index;
    info->sliceCount = compute_slices[index];
    info->instanceCount = cut->amounts[0] / compute_slices[index];
    info->multiprocessorCount = cut->multiprocessors * compute_slices[index] / cut->amounts[0];
    info->sharedCopyEngineCount = cut->amounts[1];
    info->sharedDecoderCount = cut->amounts[2];
    info->sharedEncoderCount = cut->amounts[3];
    info->sharedJpegCount = cut->amounts[4];
    info->sharedOfaCount = cut->amounts[5];
    snprintf(info->name, sizeof info->name, "%uc.%.80s", compute_slices[index], cut->name);
    return leave(NVML_SUCCESS);
}

/* The MIG device of the GPU that has that index, or NULL. */
static struct compute *mig_device(struct gpu *gpu, uint32_t index)
{
    for (int i = 0; i < INSTANCES; i++)
        for (int j = 0; j < COMPUTES; j++) {
            struct compute *one = &gpu->instances[i].computes[j];
            if (one->kind != NOTHING && one->mig_index == index)
                return one;
        }
    return NULL;
}

static struct compute *compute_of(struct instance *instance, uint32_t id)
{
    for (int i = 0; i < COMPUTES; i++)
        if (instance->computes[i].kind != NOTHING && instance->computes[i].id == id)
            return &instance->computes[i];
    return NULL;
}

struct instance *instance_of(struct gpu *gpu, const struct compute *compute)
{
    size_t offset = (size_t)((const char *)compute - (const char *)gpu->instances);
    return &gpu->instances[offset / sizeof(struct instance)];
}

/* A new one in an instance, from that slice on: lowest free numbers, and a UUID that no other ever had. */
static struct compute *make(struct gpu *gpu, struct instance *instance, uint32_t profile, uint32_t start)
{
    struct compute *free = instance->computes;
    while (free->kind != NOTHING)
        free++;
    memset(free, 0, sizeof *free);
    while (compute_of(instance, free->id))
        free->id++;
    while (mig_device(gpu, free->mig_index))
        free->mig_index++;
    free->profile = profile;
    free->start = start;
    /* The GPU's UUID with a count instead of its first group. */
    snprintf(free->uuid, sizeof free->uuid, "MIG-%08x%.50s", ++gpu->created,
             gpu->uuid + strlen("GPU-00000000"));
    free->kind = COMPUTE_INSTANCE;
    return free;
}

/* Whether none of these compute slices is taken. */
static int is_free(const struct instance *instance, uint32_t start, uint32_t size)
{
    for (int i = 0; i < COMPUTES; i++) {
        const struct compute *one = &instance->computes[i];
        if (one->kind != NOTHING && one->start < start + size &&
            start < one->start + compute_slices[one->profile])
            return 0;
    }
    return 1;
}

/* At that place, or, without one, at the first that is free. */
static nvmlReturn_t create(struct gpu *gpu, struct instance *instance, unsigned profile_id,
                           const nvmlComputeInstancePlacement_t *place, nvmlComputeInstance_t *made)
{
    uint32_t slices = cut_around(gpu, instance)->amounts[0];
    if (profile_id >= COMPUTE_PROFILES || compute_slices[profile_id] > slices)
        return NVML_ERROR_NOT_SUPPORTED;
    uint32_t size = compute_slices[profile_id];
    if (place && (place->size != size || place->start % size || place->start + size > slices))
        return NVML_ERROR_INVALID_ARGUMENT;
    for (uint32_t start = 0; start + size <= slices; start += size)
        if ((!place || place->start == start) && is_free(instance, start, size)) {
            *made = make(gpu, instance, profile_id, start);
            return NVML_SUCCESS;
        }
    return NVML_ERROR_INSUFFICIENT_RESOURCES;
}

API nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t handle, unsigned profile_id,
                                                      nvmlComputeInstance_t *made)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, handle, GPU_INSTANCE, &code);
    if (!gpu)
        return code;
    return leave(create(gpu, handle, profile_id, NULL, made));
}

API nvmlReturn_t nvmlGpuInstanceCreateComputeInstanceWithPlacement(
    nvmlGpuInstance_t handle, unsigned profile_id, const nvmlComputeInstancePlacement_t *place,
    nvmlComputeInstance_t *made)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, handle, GPU_INSTANCE, &code);
    if (!gpu)
        return code;
    return leave(create(gpu, handle, profile_id, place, made));
}

API nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t handle, unsigned profile_id,
                                                    nvmlComputeInstance_t *found, unsigned *count)
{
    nvmlReturn_t code;
    if (!enter(__func__, handle, GPU_INSTANCE, &code))
        return code;
    struct instance *instance = handle;
    *count = 0;
    for (int i = 0; i < COMPUTES; i++) {
        struct compute *one = &instance->computes[i];
        if (one->kind != NOTHING && one->profile == profile_id)
            found[(*count)++] = one;
    }
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t handle, unsigned id,
                                                       nvmlComputeInstance_t *found)
{
    nvmlReturn_t code;
    if (!enter(__func__, handle, GPU_INSTANCE, &code))
        return code;
    *found = compute_of(handle, id);
    return leave(*found ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND);
}

API nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t handle,
                                               nvmlComputeInstanceInfo_t *info)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, handle, COMPUTE_INSTANCE, &code);
    if (!gpu)
        return code;
    const struct compute *compute = handle;
    *info = (nvmlComputeInstanceInfo_t){
        .device = gpu,
        .gpuInstance = instance_of(gpu, compute),
        .id = compute->id,
        .profileId = compute->profile,
        .placement = {.start = compute->start, .size = compute_slices[compute->profile]},
    };
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t handle)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, handle, COMPUTE_INSTANCE, &code);
    if (!gpu)
        return code;
    if (gpu->busy)
        return leave(NVML_ERROR_IN_USE);
    ((struct compute *)handle)->kind = NOTHING;
    return leave(NVML_SUCCESS);
}

/* 0 without MIG and with MIG off. */
API nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    *count = 0;
    for (uint32_t i = 0; gpu->mode && i < gpu->cut_count; i++)
        if (gpu->cuts[i].amounts[0] > *count)
            *count = gpu->cuts[i].amounts[0];
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index,
                                                     nvmlDevice_t *mig)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    *mig = mig_device(gpu, index);
    return leave(*mig ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND);
}

API nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, COMPUTE_INSTANCE, &code);
    if (!gpu)
        return code;
    *id = instance_of(gpu, device)->id;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id)
{
    nvmlReturn_t code;
    if (!enter(__func__, device, COMPUTE_INSTANCE, &code))
        return code;
    *id = ((struct compute *)device)->id;
    return leave(NVML_SUCCESS);
}
