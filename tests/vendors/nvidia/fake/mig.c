/* MIG: the mode, GPU instances and MIG devices, by the driver's rules. */
#include "machine.h"

#include <string.h>

/* The GPU, if it has MIG at all; otherwise it is left again. */
static struct gpu *enter_mig(const char *function, nvmlDevice_t device, nvmlReturn_t *code)
{
    struct gpu *gpu = enter(function, device, GPU, code);
    if (!gpu || gpu->cut_count)
        return gpu;
    *code = leave(NVML_ERROR_NOT_SUPPORTED);
    return NULL;
}

/* The GPU, if it is in MIG mode. */
static struct gpu *enter_enabled(const char *function, nvmlDevice_t device, nvmlReturn_t *code)
{
    struct gpu *gpu = enter_mig(function, device, code);
    if (!gpu || gpu->mode)
        return gpu;
    *code = leave(NVML_ERROR_NOT_SUPPORTED);
    return NULL;
}

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter_mig(__func__, device, &code);
    if (!gpu)
        return code;
    *current = gpu->mode;
    *pending = gpu->pending;
    return leave(NVML_SUCCESS);
}

/* Instances forbid leaving MIG. Otherwise the mode is pending at once, and current if nothing is in the way. */
API nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned mode, nvmlReturn_t *activation)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter_mig(__func__, device, &code);
    if (!gpu)
        return code;
    if (mode > 1)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    for (int i = 0; i < INSTANCES; i++)
        if (mode != gpu->mode && gpu->instances[i].kind != NOTHING)
            return leave(NVML_ERROR_IN_USE);
    gpu->pending = mode;
    if (mode == gpu->mode)
        *activation = NVML_SUCCESS;
    else if (gpu->busy)
        *activation = NVML_ERROR_IN_USE;
    else if (!gpu->resetless)
        *activation = NVML_ERROR_RESET_REQUIRED;
    else {
        *activation = NVML_SUCCESS;
        gpu->mode = mode;
    }
    return leave(NVML_SUCCESS);
}

/* Answers with MIG off too, as drivers since 545 do. */
static nvmlReturn_t give_profile(const struct cut *cut, void *info)
{
    nvmlGpuInstanceProfileInfo_v2_t *second = info;
    nvmlGpuInstanceProfileInfo_v3_t *third = info;
#define FILL(of)                                                                                   \
    do {                                                                                           \
        of->id = cut->id;                                                                          \
        of->sliceCount = cut->amounts[0];                                                          \
        of->instanceCount = cut->limit;                                                            \
        of->multiprocessorCount = cut->multiprocessors;                                            \
        of->copyEngineCount = cut->amounts[1];                                                     \
        of->decoderCount = cut->amounts[2];                                                        \
        of->encoderCount = cut->amounts[3];                                                        \
        of->jpegCount = cut->amounts[4];                                                           \
        of->ofaCount = cut->amounts[5];                                                            \
        of->memorySizeMB = cut->memory_mib;                                                        \
        memcpy(of->name, cut->name, sizeof of->name);                                              \
    } while (0)
    if (second->version == VERSION_OF(nvmlGpuInstanceProfileInfo_v2_t, 2)) {
        FILL(second);
        second->isP2pSupported = 0;
    } else if (second->version == VERSION_OF(nvmlGpuInstanceProfileInfo_v3_t, 3)) {
        FILL(third);
        third->capabilities = 0;
    } else
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
#undef FILL
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned index, void *info)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter_mig(__func__, device, &code);
    if (!gpu)
        return code;
    if (index >= NVML_GPU_INSTANCE_PROFILE_COUNT)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    for (uint32_t i = 0; i < gpu->cut_count; i++)
        if (gpu->cuts[i].index == index)
            return leave(give_profile(&gpu->cuts[i], info));
    return leave(NVML_ERROR_NOT_SUPPORTED);
}

static struct cut *cut_of(struct gpu *gpu, unsigned profile_id)
{
    for (uint32_t i = 0; i < gpu->cut_count; i++)
        if (gpu->cuts[i].id == profile_id)
            return &gpu->cuts[i];
    return NULL;
}

API nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned profile_id,
                                                               nvmlGpuInstancePlacement_t *places,
                                                               unsigned *count)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter_mig(__func__, device, &code);
    if (!gpu)
        return code;
    const struct cut *cut = cut_of(gpu, profile_id);
    if (!cut)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    if (places && *count < cut->place_count)
        return leave(NVML_ERROR_INSUFFICIENT_SIZE);
    if (places)
        memcpy(places, cut->places, cut->place_count * sizeof *places);
    *count = cut->place_count;
    return leave(NVML_SUCCESS);
}

static int is_possible(const struct cut *cut, const nvmlGpuInstancePlacement_t *place)
{
    for (uint32_t i = 0; i < cut->place_count; i++)
        if (cut->places[i].start == place->start && cut->places[i].size == place->size)
            return 1;
    return 0;
}

/* No two instances share a memory slice, and together they take no more slices and engines than the GPU has.
 * What it has is nowhere said, but some profile always gets all there is. */
static int has_room(const struct gpu *gpu, const struct cut *wanted,
                    const nvmlGpuInstancePlacement_t *place)
{
    for (int i = 0; i < INSTANCES; i++) {
        const struct instance *one = &gpu->instances[i];
        if (one->kind != NOTHING && one->place.start < place->start + place->size &&
            place->start < one->place.start + one->place.size)
            return 0;
    }
    for (int amount = 0; amount < AMOUNTS; amount++) {
        uint32_t used = wanted->amounts[amount], total = 0;
        for (uint32_t i = 0; i < gpu->cut_count; i++)
            if (gpu->cuts[i].amounts[amount] > total)
                total = gpu->cuts[i].amounts[amount];
        for (int i = 0; i < INSTANCES; i++)
            if (gpu->instances[i].kind != NOTHING)
                used += gpu->cuts[gpu->instances[i].cut].amounts[amount];
        if (used > total)
            return 0;
    }
    return 1;
}

/* Halves, quarters and eighths of the GPU are numbered through: 0 is all of it, 1 and 2 are its halves, and so on. */
static uint32_t number_of(const struct gpu *gpu, const nvmlGpuInstancePlacement_t *place)
{
    uint32_t slices = 0;
    for (uint32_t i = 0; i < gpu->cut_count; i++) {
        const struct cut *cut = &gpu->cuts[i];
        for (uint32_t j = 0; j < cut->place_count; j++)
            if (cut->places[j].start + cut->places[j].size > slices)
                slices = cut->places[j].start + cut->places[j].size;
    }
    return slices / place->size - 1 + place->start / place->size;
}

API nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, unsigned profile_id,
                                                          const nvmlGpuInstancePlacement_t *place,
                                                          nvmlGpuInstance_t *made)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter_enabled(__func__, device, &code);
    if (!gpu)
        return code;
    const struct cut *cut = cut_of(gpu, profile_id);
    if (!cut)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    if (!is_possible(cut, place))
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (!has_room(gpu, cut, place))
        return leave(NVML_ERROR_INSUFFICIENT_RESOURCES);
    struct instance *free = gpu->instances;
    while (free->kind != NOTHING)
        free++;
    memset(free, 0, sizeof *free);
    free->kind = GPU_INSTANCE;
    free->cut = (uint32_t)(cut - gpu->cuts);
    free->place = *place;
    free->id = number_of(gpu, place);
    *made = free;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned profile_id,
                                           nvmlGpuInstance_t *found, unsigned *count)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter_enabled(__func__, device, &code);
    if (!gpu)
        return code;
    *count = 0;
    for (int i = 0; i < INSTANCES; i++) {
        struct instance *one = &gpu->instances[i];
        if (one->kind != NOTHING && gpu->cuts[one->cut].id == profile_id)
            found[(*count)++] = one;
    }
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned id, nvmlGpuInstance_t *found)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter_enabled(__func__, device, &code);
    if (!gpu)
        return code;
    for (int i = 0; i < INSTANCES; i++)
        if (gpu->instances[i].kind != NOTHING && gpu->instances[i].id == id) {
            *found = &gpu->instances[i];
            return leave(NVML_SUCCESS);
        }
    return leave(NVML_ERROR_NOT_FOUND);
}

API nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t handle, nvmlGpuInstanceInfo_t *info)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, handle, GPU_INSTANCE, &code);
    if (!gpu)
        return code;
    const struct instance *instance = handle;
    info->device = gpu;
    info->id = instance->id;
    info->profileId = gpu->cuts[instance->cut].id;
    info->placement = instance->place;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t handle)
{
    nvmlReturn_t code;
    if (!enter(__func__, handle, GPU_INSTANCE, &code))
        return code;
    struct instance *instance = handle;
    for (int i = 0; i < COMPUTES; i++)
        if (instance->computes[i].kind != NOTHING)
            return leave(NVML_ERROR_IN_USE);
    instance->kind = NOTHING;
    return leave(NVML_SUCCESS);
}
